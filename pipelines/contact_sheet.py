"""One picture of a dataset: a row of frames per clip, for people, who look before they read."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hdam.pipelines.frame_codec import Pixels

NUM_FRAMES = 6
MAX_CLIPS = 24
CELL_PIXELS = 96
LABEL_PIXELS = 14
GAP_PIXELS = 2
COLUMNS = 2


class SheetClip(NamedTuple):
    """One strip of the sheet."""

    label: str
    frames: list[Pixels]
    """uint8 [height, width, 3] each."""
    points: list[NDArray[np.float32]]
    """[point, 2] in -1…1 per frame, drawn as dots; empty where there is no ground truth."""


def contact_sheet(clips: Sequence[SheetClip]) -> Image.Image:
    """The strips of `clips` in two columns, each with its label above it."""
    strip_width = NUM_FRAMES * (CELL_PIXELS + GAP_PIXELS) + 4 * GAP_PIXELS
    strip_height = LABEL_PIXELS + CELL_PIXELS + GAP_PIXELS
    num_rows = -(-len(clips) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * strip_width, max(num_rows, 1) * strip_height), (70, 70, 70))
    draw = ImageDraw.Draw(sheet)
    for number, clip in enumerate(clips):
        left, top = number // num_rows * strip_width, number % num_rows * strip_height
        draw.text((left + GAP_PIXELS, top), clip.label[:100], fill=(255, 255, 255))
        for index, frame in enumerate(clip.frames):
            corner = (left + GAP_PIXELS + index * (CELL_PIXELS + GAP_PIXELS), top + LABEL_PIXELS)
            resized = Image.fromarray(frame).resize((CELL_PIXELS, CELL_PIXELS), Image.Resampling.BICUBIC)
            sheet.paste(resized, corner)
            for x, y in clip.points[index] if clip.points else ():
                dot_x = corner[0] + (float(x) + 1) / 2 * (CELL_PIXELS - 1)
                dot_y = corner[1] + (float(y) + 1) / 2 * (CELL_PIXELS - 1)
                draw.ellipse((dot_x - 2, dot_y - 2, dot_x + 2, dot_y + 2), fill=(255, 40, 40), outline=(0, 0, 0))
    return sheet


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` indices, evenly spread, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, limit))}) if count else []
