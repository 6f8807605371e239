"""Pictures for people: anchors drawn as in the papers, and the grid that shows all steps of a transfer.

Motion anchors are coloured discs, intermediate anchors white-rimmed diamonds, the root anchor a star; around regions
stands the ellipse of their covariance. Lines lead from the root to its children; from intermediate to motion anchors
they are as wide as the attention is high. Ignored anchors are left out.
"""

import colorsys
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hdam.models.structures import AnchorTree, Transfer

Rgb = tuple[int, int, int]
Spot = tuple[float, float]

BACKGROUND_COLOUR: Rgb = (70, 70, 70)
ROOT_COLOUR: Rgb = (255, 255, 255)
RIM_COLOUR: Rgb = (20, 20, 20)
PAPER_COLOUR: Rgb = (255, 255, 255)
GOLDEN_ANGLE = 0.618034
SMOOTHING = 3
"""The overlay is drawn this much larger and scaled down, since Pillow draws hard edges."""
LEAST_CELL = 128
GAP = 4
FULL_ATTENTION = 0.3
"""Attention whose line has the full width: δ, what a motion anchor shall get at least."""
LEAST_WIDTH = 0.1
"""Share of the full width below which no line is drawn."""
COLUMNS = ("source", "driving", "warped source", "flow masks", "occlusion", "result", "structure")


@cache
def anchor_colours(count: int) -> tuple[Rgb, ...]:
    """`count` colours that are easy to tell apart; the first ones stay the same for any count."""
    colours = []
    for index in range(count):
        hue, light = (0.02 + index * GOLDEN_ANGLE) % 1, (0.52, 0.66, 0.42)[index % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, light, 0.95)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colours)


def owner_colours(attention: Tensor) -> tuple[Rgb, ...]:
    """For every motion anchor the colour of the intermediate anchor that owns most of it; `attention` is [I, K]."""
    num_owners, num_motion = attention.shape
    owners = anchor_colours(num_motion + num_owners)[num_motion:]
    return tuple(owners[i] for i in attention.argmax(0).tolist())


def draw_structure(
    frame: Tensor,
    tree: AnchorTree,
    *,
    attention: Tensor | None = None,
    ignored: Sequence[int] = (),
    colours: Sequence[Rgb] = (),
    scale: int = 4,
    index: int = 0,
) -> Image.Image:
    """Draw the anchors `tree[index]` over `frame` ([3, height, width] in 0…1), `scale` times enlarged.

    `attention` is [batch, intermediate, motion] as in `Transfer`; without it the lines from intermediate to motion
    anchors are left out. `colours` are those of the motion anchors; empty: each its own.
    """
    picture = image_from(frame, scale=scale).convert("RGBA")
    overlay = Image.new("RGBA", (picture.width * SMOOTHING, picture.height * SMOOTHING))
    draw, zoom = ImageDraw.Draw(overlay), scale * SMOOTHING
    colours = colours or anchor_colours(tree.motion.position.shape[1])
    _draw_ellipses(draw, tree, frame, colours, ignored=frozenset(ignored), index=index, zoom=zoom)
    _draw_tree(
        draw,
        _spots(tree, frame, index=index, zoom=zoom),
        None if attention is None else attention[index],
        colours,
        ignored=frozenset(ignored),
        unit=overlay.height / 100,
    )
    picture.alpha_composite(overlay.resize(picture.size, Image.Resampling.LANCZOS))
    return picture.convert("RGB")


def sample_grid(
    transfer: Transfer, source: Tensor, driving: Tensor, *, ignored: Sequence[int] = (), max_rows: int = 6
) -> Image.Image:
    """One labelled row per pair of a batch: what went in, every step between, and what came out.

    `source` and `driving` are [batch, 3, height, width] in 0…1, as they were given to the model.
    """
    rows = [list(_cells(transfer, source, driving, ignored=ignored, index=i)) for i in range(len(source))[:max_rows]]
    return tile(rows, labels=COLUMNS)


def tile(rows: Sequence[Sequence[Image.Image]], *, labels: Sequence[str] = ()) -> Image.Image:
    """Pictures of one size in rows, with a label over each column."""
    width, height = rows[0][0].size
    font_size = max(11, round(width / 10))
    font = ImageFont.load_default(font_size)
    head = round(1.7 * font_size) if labels else 0
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, head + len(rows) * (height + GAP) - GAP), PAPER_COLOUR)
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(labels):
        draw.text((column * (width + GAP) + width / 2, head / 2), label, fill=RIM_COLOUR, font=font, anchor="mm")
    for number, row in enumerate(rows):
        for column, picture in enumerate(row):
            sheet.paste(picture, (column * (width + GAP), head + number * (height + GAP)))
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG under a temporary name, which leaves nothing behind, then rename it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        picture.save(partial, "PNG")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def image_from(frame: Tensor, *, scale: int = 1) -> Image.Image:
    """A frame [1 or 3, height, width] in 0…1 as a picture, `scale` times enlarged."""
    values = (frame.detach().float().clamp(0, 1) * 255).round().byte().cpu()
    pixels = values.expand(3, -1, -1).movedim(0, -1).numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)


def cell_scale(frame: Tensor, *, pixels: int = LEAST_CELL) -> int:
    """How much a frame [..., height, width] is enlarged to be at least `pixels` wide."""
    return max(1, math.ceil(pixels / frame.shape[-1]))


def _cells(
    transfer: Transfer, source: Tensor, driving: Tensor, *, ignored: Sequence[int], index: int
) -> Iterator[Image.Image]:
    """The cells of one row, in the order of `COLUMNS`."""
    scale = cell_scale(source)
    size = (source.shape[-1] * scale, source.shape[-2] * scale)
    yield image_from(source[index], scale=scale)
    yield image_from(driving[index], scale=scale)
    yield image_from(transfer.warped[index], scale=scale)
    yield image_from(colour_masks(transfer.motion.masks[index])).resize(size, Image.Resampling.BILINEAR)
    yield image_from(transfer.motion.occlusion[index]).resize(size, Image.Resampling.BILINEAR)
    yield image_from(transfer.image[index], scale=scale)
    yield draw_structure(
        driving[index], transfer.driving, attention=transfer.attention, ignored=ignored, scale=scale, index=index
    )


def mask_colours(count: int) -> tuple[Rgb, ...]:
    """Colours of `count` candidates: the background, then the anchors' own."""
    return (BACKGROUND_COLOUR, *anchor_colours(count - 1))


def colour_masks(masks: Tensor) -> Tensor:
    """Flow masks [candidate, height, width] as one picture: each candidate's colour, mixed by its share."""
    colours = torch.tensor(mask_colours(len(masks)), dtype=torch.float32)
    return torch.einsum("khw,kc->chw", masks.detach().float().cpu(), colours / 255)


def _spots(tree: AnchorTree, frame: Tensor, *, index: int, zoom: int) -> list[list[Spot]]:
    """Motion, intermediate and root anchors in pixels of the frame enlarged `zoom` times; a missing level is empty."""
    return [
        [] if anchors is None else pixel_spots(anchors.position[index], frame.shape[-2:], zoom=zoom)
        for anchors in (tree.motion, tree.intermediate, tree.root)
    ]


def pixel_spots(points: Tensor, size: Sequence[int], *, zoom: int) -> list[Spot]:
    """Points [anchor, 2] in −1…1 as pixels of a picture of `size` (height, width) that is enlarged `zoom` times."""
    height, width = size
    # -1 and 1 are the centres of the border pixels, half a pixel inside the picture's edge.
    return [
        (((x + 1) / 2 * (width - 1) + 0.5) * zoom, ((y + 1) / 2 * (height - 1) + 0.5) * zoom)
        for x, y in points.detach().float().cpu().tolist()
    ]


def _draw_ellipses(
    draw: ImageDraw.ImageDraw,
    tree: AnchorTree,
    frame: Tensor,
    colours: Sequence[Rgb],
    *,
    ignored: frozenset[int],
    index: int,
    zoom: int,
) -> None:
    """Where a region's heat map has fallen to exp(−½): one standard deviation around it; nothing around points."""
    if tree.motion.covariance is None:
        return
    turns = torch.linspace(0, 2 * math.pi, 65)
    circle = torch.stack([turns.cos(), turns.sin()])
    # The affine A of a region is a root of its covariance, A Aᵀ, and so takes the unit circle to that ellipse.
    position, affine = (tensor[index].detach().float().cpu() for tensor in tree.motion[:2])
    for k, outline in enumerate(position[:, None] + (affine @ circle).transpose(1, 2)):
        if k not in ignored:
            draw.line(pixel_spots(outline, frame.shape[-2:], zoom=zoom), fill=(*colours[k], 255), width=2 * SMOOTHING)


def _draw_tree(
    draw: ImageDraw.ImageDraw,
    spots: list[list[Spot]],
    attention: Tensor | None,
    colours: Sequence[Rgb],
    *,
    ignored: frozenset[int],
    unit: float,
) -> None:
    """Lines first, then the anchors over them, the many small ones first. `unit` is 1 % of the picture."""
    motion, intermediate, root = spots
    shown = [k for k in range(len(motion)) if k not in ignored]
    owners = anchor_colours(len(motion) + len(intermediate))[len(motion) :]
    if attention is not None and intermediate:
        shares = (attention.detach().float().cpu() / FULL_ATTENTION).clamp(max=1).tolist()
        for i, owner in enumerate(intermediate):
            for k in shown:
                if shares[i][k] >= LEAST_WIDTH:
                    _draw_line(draw, owner, motion[k], owners[i], width=2.4 * unit * shares[i][k])
    for spot in root:
        children = intermediate or [motion[k] for k in shown]
        for child in children:
            _draw_line(draw, spot, child, ROOT_COLOUR, width=1.2 * unit)
    for k in shown:
        _draw_disc(draw, motion[k], colours[k], radius=2.6 * unit)
    for spot, colour in zip(intermediate, owners, strict=True):
        _draw_polygon(draw, spot, colour, radii=(4.2 * unit,) * 4, rim=(255, 255, 255))
    for spot in root:
        _draw_polygon(draw, spot, ROOT_COLOUR, radii=(5.5 * unit, 2.3 * unit) * 5, rim=RIM_COLOUR)


def _draw_line(draw: ImageDraw.ImageDraw, start: Spot, end: Spot, colour: Rgb, *, width: float) -> None:
    draw.line([start, end], fill=(*RIM_COLOUR, 150), width=round(width + SMOOTHING))
    draw.line([start, end], fill=(*colour, 255), width=max(1, round(width)))


def _draw_disc(draw: ImageDraw.ImageDraw, spot: Spot, colour: Rgb, *, radius: float) -> None:
    x, y = spot
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=RIM_COLOUR, width=SMOOTHING)


def _draw_polygon(draw: ImageDraw.ImageDraw, spot: Spot, colour: Rgb, *, radii: Sequence[float], rim: Rgb) -> None:
    """A figure around `spot` with a corner at each of `radii`, the first one above it."""
    turns = [2 * math.pi * number / len(radii) for number in range(len(radii))]
    corners = [(spot[0] + r * math.sin(t), spot[1] - r * math.cos(t)) for r, t in zip(radii, turns, strict=True)]
    draw.polygon(corners, fill=colour, outline=rim, width=SMOOTHING)
