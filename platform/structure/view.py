"""What a model takes a video's object to be made of, as pictures: anchors and who owns them, masks, occlusion.

The first frame of the video is the source, so that masks and occlusion are those of reconstruction.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hdam.models.model import MotionModel
from hdam.pipelines.errors import InputError
from hdam.pipelines.media import open_media, read_frames
from hdam.platform.animate import CELL_PIXELS, Moment, MomentPicture, View, as_image, counted, write_views
from hdam.platform.figures import (
    PAPER_COLOUR,
    RIM_COLOUR,
    anchor_colours,
    cell_scale,
    colour_masks,
    draw_structure,
    image_from,
    mask_colours,
    owner_colours,
    pixel_spots,
    save_picture,
)
from hdam.platform.model_folder import LoadedModel
from hdam.platform.structure.attention_sheet import draw_attention

NAMES = ("structure.mp4", "structure.png", "masks.png", "occlusion.png", "attention.png")


class StructureReport(NamedTuple):
    """What was written."""

    paths: tuple[Path, ...]
    """Of `NAMES`; the attention only of a model that has one."""
    num_frames: int


def show_structure(
    loaded: LoadedModel, *, driving: Path, out: Path, on_frame: Callable[[int, int | None], None] | None = None
) -> StructureReport:
    """Write the pictures of `driving`, cut to the square in its middle, to the folder `out`.

    Raises InputError for what cannot be read or written, and where a picture would overwrite the video.
    """
    media, model = open_media(driving), loaded.model
    paths = [out / name for name in NAMES]
    if driving.resolve() in {path.resolve() for path in [out, *paths]}:
        raise InputError(f"--out {out} would overwrite the input {driving}; choose another folder")
    device = next(model.parameters()).device
    images = (as_image(frame, size=loaded.experiment.data.size, device=device) for frame in read_frames(driving))
    mean = MeanAttention()
    stream = counted(mean.watch(own_moments(model, images)), media.num_frames, on_frame)
    view = structure_view(model)
    pictures = [MomentPicture(each) for each in (view, masks_view(model), OCCLUSION_VIEW)]
    num_frames = write_views(stream, {paths[0]: view}, media=media, pictures=pictures)
    written = [paths[0], *(picture.save(path) for picture, path in zip(pictures, paths[1:4], strict=True))]
    if mean.total is not None:
        title = f"Attention of {num_frames} frames (mean): how much each intermediate anchor owns each motion anchor"
        save_picture(draw_attention(mean.total / num_frames, ignored=model.config.ignored, title=title), paths[4])
        written.append(paths[4])
    return StructureReport(tuple(written), num_frames)


@torch.no_grad()
def own_moments(model: MotionModel, images: Iterable[Tensor]) -> Iterator[Moment]:
    """Every image painted from the first one, background included; images are [1, 3, size, size] in 0…1."""
    images = iter(images)
    still = next(images, None)
    if still is None:
        return
    for image in chain([still], images):
        yield Moment(source=still, driving=image, transfer=model(still, image))


class MeanAttention:
    """Adds up the attention of moments that pass by."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        """Sum over the moments, [intermediate, motion]; None before the first one, and without attention."""

    def watch(self, stream: Iterable[Moment]) -> Iterator[Moment]:
        """The same moments."""
        for moment in stream:
            if moment.transfer.attention is not None:
                attention = moment.transfer.attention[0].cpu()
                self.total = attention if self.total is None else self.total + attention
            yield moment


def structure_view(model: MotionModel) -> View:
    """The driving frame, and the same with anchors in the colours of their owners, as in the paper's figures."""

    def draw(moment: Moment) -> list[Image.Image]:
        scale, attention = cell_scale(moment.driving, pixels=CELL_PIXELS), moment.transfer.attention
        drawn = draw_structure(
            moment.driving[0],
            moment.transfer.driving,
            attention=attention,
            ignored=model.config.ignored,
            colours=() if attention is None else owner_colours(attention[0]),
            scale=scale,
        )
        return [image_from(moment.driving[0], scale=scale), drawn]

    return View(draw, ("driving", "structure"))


def masks_view(model: MotionModel) -> View:
    """Numbered motion anchors, all flow masks in the anchors' colours, and each one by itself."""
    num_motion, ignored = model.config.anchors.num_motion, set(model.config.ignored)
    names = [f"{k} (ignored)" if k in ignored else str(k) for k in range(num_motion)]
    colours = torch.tensor(mask_colours(num_motion + 1)) / 255

    def draw(moment: Moment) -> list[Image.Image]:
        masks = moment.transfer.motion.masks[0].cpu()
        each = masks[:, None] * colours[:, :, None, None]
        numbered = number_anchors(moment)
        mixed, *single = (image_from(mask) for mask in [colour_masks(masks), *each])
        return [numbered, *(picture.resize(numbered.size, Image.Resampling.BILINEAR) for picture in [mixed, *single])]

    return View(draw, ("anchors", "flow masks", "background", *names))


def number_anchors(moment: Moment) -> Image.Image:
    """The driving frame with the number of every motion anchor in that anchor's own colour, ignored ones too."""
    scale = cell_scale(moment.driving)
    picture = image_from(moment.driving[0], scale=scale)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    points = moment.transfer.driving.motion.position[0]
    spots = pixel_spots(points, moment.driving.shape[-2:], zoom=scale)
    for k, (spot, colour) in enumerate(zip(spots, anchor_colours(len(spots)), strict=True)):
        x, y = spot
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=colour, outline=RIM_COLOUR)
        draw.text(spot, str(k), fill=PAPER_COLOUR, stroke_fill=RIM_COLOUR, stroke_width=1, font=font, anchor="mm")
    return picture


def _occlusion_pictures(moment: Moment) -> list[Image.Image]:
    scale, transfer = cell_scale(moment.driving), moment.transfer
    frames = [image_from(image[0], scale=scale) for image in (moment.driving, transfer.warped, transfer.image)]
    occlusion = image_from(transfer.motion.occlusion[0]).resize(frames[0].size, Image.Resampling.BILINEAR)
    return [*frames[:2], occlusion, frames[2]]


OCCLUSION_VIEW = View(_occlusion_pictures, ("driving", "warped source", "occlusion", "result"))
"""White may be taken from the warped source, black is painted."""
