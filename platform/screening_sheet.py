"""The picture of a screening: numbered motion anchors over several images, and the loss of each against ε."""

import torch
from PIL import Image, ImageDraw, ImageFont

from hdam.models.model import MotionModel
from hdam.models.screening import Screening
from hdam.models.structures import Image as Images
from hdam.platform.figures import (
    PAPER_COLOUR,
    RIM_COLOUR,
    anchor_colours,
    cell_scale,
    image_from,
    pixel_spots,
    tile,
)

CELL_PIXELS = 256
NUM_COLUMNS = 4
NUM_CELLS = 8
CHART_HEIGHT = 220
MARGIN = 34
ABNORMAL_COLOUR = (220, 20, 20)


@torch.no_grad()
def draw_screening(model: MotionModel, images: Images, found: Screening, *, epsilon: float) -> Image.Image:
    """Write the motion anchors of the first of `images`, abnormal ones crossed out in red, and the losses as bars."""
    shown = images[:NUM_CELLS].to(next(model.parameters()).device)
    spots = model.eval().detect(shown).motion.position
    cells = [_draw_cell(image, points, found) for image, points in zip(shown, spots, strict=True)]
    rows = [cells[start : start + NUM_COLUMNS] for start in range(0, len(cells), NUM_COLUMNS)]
    grid = tile(rows)
    sheet = Image.new("RGB", (grid.width, grid.height + CHART_HEIGHT), PAPER_COLOUR)
    sheet.paste(grid, (0, 0))
    sheet.paste(_draw_chart(found, epsilon, width=grid.width), (0, grid.height))
    return sheet


def _draw_cell(image: torch.Tensor, points: torch.Tensor, found: Screening) -> Image.Image:
    scale = cell_scale(image, pixels=CELL_PIXELS)
    picture = image_from(image, scale=scale)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    colours = anchor_colours(len(points))
    for anchor, (x, y) in enumerate(pixel_spots(points, image.shape[-2:], zoom=scale)):
        if anchor in found.ignored:
            for line in ((x - 7, y - 7, x + 7, y + 7), (x - 7, y + 7, x + 7, y - 7)):
                draw.line(line, fill=PAPER_COLOUR, width=6)
            for line in ((x - 7, y - 7, x + 7, y + 7), (x - 7, y + 7, x + 7, y - 7)):
                draw.line(line, fill=ABNORMAL_COLOUR, width=3)
        else:
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colours[anchor], outline=RIM_COLOUR, width=1)
        draw.text(
            (x + 9, y), str(anchor), fill=PAPER_COLOUR, stroke_fill=RIM_COLOUR, stroke_width=2, font=font, anchor="lm"
        )
    return picture


def _draw_chart(found: Screening, epsilon: float, *, width: int) -> Image.Image:
    """A bar per motion anchor, those above the line of ε in red; what is no number reaches the top."""
    chart = Image.new("RGB", (width, CHART_HEIGHT), PAPER_COLOUR)
    draw, font = ImageDraw.Draw(chart), ImageFont.load_default(13)
    losses = [loss if loss == loss else float("inf") for loss in found.losses.tolist()]
    highest = 1.15 * max([epsilon, *(loss for loss in losses if loss != float("inf"))]) or 1.0
    bottom, room = CHART_HEIGHT - 22, CHART_HEIGHT - 22 - MARGIN
    title = (
        f"Loss of each motion anchor (10 x mean error of its coordinates) over {found.num_images} images, and epsilon"
    )
    draw.text((MARGIN, 14), title, fill=RIM_COLOUR, font=font, anchor="lm")
    step = (width - 2 * MARGIN) / len(losses)
    for anchor, loss in enumerate(losses):
        left, top = MARGIN + step * (anchor + 0.2), bottom - room * min(1.0, loss / highest)
        colour = ABNORMAL_COLOUR if anchor in found.ignored else (90, 130, 180)
        draw.rectangle((left, top, left + 0.6 * step, bottom), fill=colour)
        draw.text((left + 0.3 * step, bottom + 11), str(anchor), fill=RIM_COLOUR, font=font, anchor="mm")
        draw.text((left + 0.3 * step, top - 8), f"{loss:.2g}", fill=RIM_COLOUR, font=font, anchor="mm")
    level = bottom - room * epsilon / highest
    draw.line((MARGIN, level, width - MARGIN, level), fill=RIM_COLOUR, width=1)
    draw.text((width - MARGIN + 4, level), f"{epsilon:g}", fill=RIM_COLOUR, font=font, anchor="lm")
    return chart
