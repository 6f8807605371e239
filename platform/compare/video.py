"""Source, driving and every model's result side by side: a video that browsers play, and a few moments of it."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hdam.pipelines.clips import Clip
from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import Pixels
from hdam.pipelines.shards import find_clips, read_clip
from hdam.pipelines.video_writer import open_writer
from hdam.platform.compare.entrants import shorten
from hdam.platform.evaluation.metrics import Protocol
from hdam.platform.evaluation.painting import Frames
from hdam.platform.figures import GAP, PAPER_COLOUR, RIM_COLOUR
from hdam.platform.model_folder import LoadedModel

Painter = Callable[[LoadedModel, Protocol, Pixels, Frames], Frames]
"""Paints the source, as the protocol wants it, moving like the driving frames."""

LEAST_CELL = 192
"""Pixels that a frame is at least wide; smaller ones are enlarged by a whole number."""
MOST_ABREAST = 5
"""More cells than so many make a second row."""
MOST_FRAMES = 300
"""Of a clip that are shown: twelve seconds of 25 frames."""
MOMENTS = (0.25, 0.5, 0.75, 1.0)
"""Of the strip, as shares of the clip's length; at 0 a reconstruction shows the source."""
LETTERS = 20
"""Of a label that fit over a cell."""
JPEG_QUALITY = 88


class Footage(NamedTuple):
    """What was written of a clip."""

    video: Path
    strip: Path
    num_frames: int
    """Shown ones."""
    num_clip_frames: int
    width: int
    """Of the pictures, in pixels."""


def read_clips(dataset: str, split: str, clip_ids: Sequence[str]) -> dict[str, Clip]:
    """These clips by their ids. Raises InputError where one is not there."""
    places = {place.clip_id: place for place in find_clips(dataset, split)}
    for clip_id in clip_ids:
        if clip_id not in places:
            raise InputError(f"{dataset}: no clip {clip_id} in split '{split}', though it was evaluated")
    return {clip_id: read_clip(dataset, places[clip_id]) for clip_id in clip_ids}


def film(
    models: Sequence[LoadedModel],
    labels: Sequence[str],
    *,
    protocol: Protocol,
    source: Clip,
    driving: Clip,
    paint: Painter,
    target: Path,
) -> Footage:
    """Write `target`, an mp4, and beside it a JPEG with a few moments."""
    still = source.frame(0)
    num_frames = min(driving.num_frames, MOST_FRAMES)
    frames = np.stack([driving.frame(number) for number in range(num_frames)])
    shown = [frames, *(paint(model, protocol, still, frames) for model in models)]
    board = Board(("source", "driving", *labels), size=still.shape[:2])
    with open_writer(target, fps=driving.fps, size=board.size) as writer:
        for moment in zip(*shown, strict=True):
            writer.write(board.show([still, *moment]))
    numbers = sorted({round(share * (num_frames - 1)) for share in MOMENTS})
    pictures = [board.show([still, *(each[number] for each in shown)]) for number in numbers]
    strip = target.with_suffix(".jpg")
    first, *others = pictures
    joined = np.concatenate([first, *(board.without_labels(picture) for picture in others)])
    Image.fromarray(joined).save(strip, quality=JPEG_QUALITY)
    return Footage(target, strip, num_frames, driving.num_frames, joined.shape[1])


class Board:
    """Cells side by side, each with its label above, in as many rows as it takes."""

    def __init__(self, labels: Sequence[str], *, size: tuple[int, ...]) -> None:
        """`size`: height and width of the frames."""
        height, width = size
        self._scale = max(1, math.ceil(LEAST_CELL / width))
        self._cell = (height * self._scale, width * self._scale)
        num_rows = math.ceil(len(labels) / MOST_ABREAST)
        self._columns = math.ceil(len(labels) / num_rows)
        self._font_size = max(11, round(self._cell[1] / 12))
        self._head = round(1.7 * self._font_size)
        self._paper = self._draw_labels(labels, num_rows)
        self.size = (self._paper.shape[0], self._paper.shape[1])
        """Height and width of the pictures."""

    def show(self, frames: Sequence[Pixels]) -> Pixels:
        """One picture with one frame under each label."""
        picture = self._paper.copy()
        height, width = self._cell
        for number, frame in enumerate(frames):
            top, left = self._corner(number)
            picture[top : top + height, left : left + width] = self._enlarged(frame)
        return picture

    def without_labels(self, picture: Pixels) -> Pixels:
        """A picture to stand below another one, where the labels are known; of several rows it is left whole."""
        return picture[self._head :] if self._columns == self._count else picture

    def _draw_labels(self, labels: Sequence[str], num_rows: int) -> Pixels:
        self._count = len(labels)
        height, width = self._cell
        size = (self._columns * (width + GAP) - GAP, num_rows * (self._head + height + GAP))
        sheet = Image.new("RGB", size, PAPER_COLOUR)
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(self._font_size)
        for number, label in enumerate(labels):
            top, left = self._corner(number)
            spot = (left + width / 2, top - self._head / 2)
            draw.text(spot, shorten(label, LETTERS), fill=RIM_COLOUR, font=font, anchor="mm")
        return np.asarray(sheet)

    def _corner(self, number: int) -> tuple[int, int]:
        """Top and left of a frame."""
        row, column = divmod(number, self._columns)
        height, width = self._cell
        return row * (self._head + height + GAP) + self._head, column * (width + GAP)

    def _enlarged(self, frame: Pixels) -> Pixels:
        if self._scale == 1:
            return frame
        return np.asarray(Image.fromarray(frame).resize(self._cell[::-1], Image.Resampling.BICUBIC))
