"""From a frame of any size to a square of the dataset's size: crop box, square, resize; and the same for the truth."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdam.pipelines.clips import CropBox, SourceClip, Trim
from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import Pixels

Fit = Literal["crop", "pad"]
"""How a rectangle becomes a square: `crop` keeps the middle, `pad` keeps everything and adds background."""


class Window(NamedTuple):
    """A square laid over a frame: the box that is cut out, and where it lies in the square."""

    box: CropBox
    """What is seen of the frame, in its pixels."""
    side: int
    """Side of the square, in pixels of the frame."""
    offset_left: int
    """Background on the left of the box."""
    offset_top: int
    """Background above the box."""


def clip_in_file(clip: SourceClip, *, frame_size: tuple[int, int], fps: float) -> tuple[CropBox | None, Trim | None]:
    """The crop and trim of a clip in the pixels and frames of its file, with frames of `frame_size` (height, width).

    Where `crop_frame` is told, the corners scale and are rounded down, and what then lies outside is left out.
    Where `trim_fps` is told, frame i is taken when start · fps <= i · trim_fps < stop · fps, rates rounded to a
    hundredth: all as the published preprocessing of VoxCeleb and TaiChi does.
    """
    crop, trim = clip.crop, clip.trim
    if crop is not None and clip.crop_frame is not None:
        scales = [there / here for there, here in zip(frame_size, clip.crop_frame, strict=True)]
        crop = _scaled(crop, scales, frame_size)
    if trim is not None and clip.trim_fps is not None:
        ratio = _hundredths(fps) / _hundredths(clip.trim_fps)
        trim = Trim(ceil(trim.start * ratio), None if trim.stop is None else ceil(trim.stop * ratio))
    return crop, trim


def square_window(frame_size: tuple[int, int], *, crop: CropBox | None, fit: Fit) -> Window:
    """The square to cut out of frames of `frame_size` (height, width).

    Raises InputError when the crop box is empty or reaches beyond the frame.
    """
    height, width = frame_size
    box = crop or CropBox(0, 0, width, height)
    if min(box.width, box.height) < 1 or min(box.left, box.top) < 0:
        raise InputError(f"crop '{box}' is no box inside the frame; expected 'x y width height' with width, height > 0")
    if box.left + box.width > width or box.top + box.height > height:
        raise InputError(f"crop '{box}' reaches beyond the frame of {width}x{height} pixels")
    if fit == "crop":
        side = min(box.width, box.height)
        left, top = box.left + (box.width - side) // 2, box.top + (box.height - side) // 2
        return Window(CropBox(left, top, side, side), side, 0, 0)
    side = max(box.width, box.height)
    return Window(box, side, (side - box.width) // 2, (side - box.height) // 2)


def cut(frame: Pixels, window: Window, *, size: int, background: tuple[int, int, int]) -> Pixels:
    """What `window` shows of `frame` (uint8 [height, width, 3]), resized to [size, size, 3] with antialiasing."""
    square = _square(frame, window, np.array(background, np.uint8))
    if window.side == size:
        return square
    image = Image.fromarray(square).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)


def cut_mask(mask: Pixels, window: Window, *, size: int) -> Pixels:
    """The same for a label map uint8 [height, width]: nearest label, 0 in the padding."""
    square = _square(mask, window, np.array(0, np.uint8))
    if window.side == size:
        return square
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.NEAREST))


def move_points(
    points: NDArray[np.float32], window: Window, *, frame_size: tuple[int, int], size: int
) -> NDArray[np.float32]:
    """Points [..., 2] in -1…1 of the frame, in -1…1 of the resized square; outside it they leave that range.

    -1 and 1 are the centres of the border pixels on both sides, while resizing keeps the pixels' outer edges.
    """
    height, width = frame_size
    corner = np.array([window.box.left - window.offset_left, window.box.top - window.offset_top], np.float64)
    pixel = (points.astype(np.float64) + 1) / 2 * np.array([width - 1, height - 1])
    resized = (pixel - corner + 0.5) * (size / window.side) - 0.5
    return np.asarray(resized / (size - 1) * 2 - 1, np.float32)


def frame_span(trim: Trim | None, max_frames: int | None) -> tuple[int, int | None]:
    """First frame and end (exclusive; None: no end) after trimming and limiting."""
    start, stop = trim or Trim(0, None)
    if max_frames is None:
        return start, stop
    return start, start + max_frames if stop is None else min(stop, start + max_frames)


def _scaled(crop: CropBox, scales: Sequence[float], frame_size: tuple[int, int]) -> CropBox:
    (down, across), (height, width) = scales, frame_size
    left, top = int(crop.left * across), int(crop.top * down)
    right = min(int((crop.left + crop.width) * across), width)
    bottom = min(int((crop.top + crop.height) * down), height)
    return CropBox(left, top, right - left, bottom - top)


def _hundredths(fps: float) -> Fraction:
    return max(Fraction(round(100 * fps), 100), Fraction(1, 100))


def _square(pixels: Pixels, window: Window, fill: NDArray[np.uint8]) -> Pixels:
    """The box of `pixels` in the middle of a square of `fill`."""
    left, top, width, height = window.box
    seen = pixels[top : top + height, left : left + width]
    if width == height == window.side:
        return np.ascontiguousarray(seen)
    square = np.empty((window.side, window.side, *pixels.shape[2:]), np.uint8)
    square[:] = fill
    square[window.offset_top : window.offset_top + height, window.offset_left : window.offset_left + width] = seen
    return square
