"""Read videos, animations, folders of frames and images: one frame at a time, always RGB, always upright."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from hdam.pipelines.clips import MediaKind
from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.frame_codec import BROKEN_IMAGE, Pixels
from hdam.pipelines.video_reader import read_video, video_facts

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi"})
ANIMATION_SUFFIXES = frozenset({".gif", ".webp"})
FRAME_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
TRUTH_NAME = "truth.npz"
"""Ground truth beside the frames of a synthetic clip."""

FOLDER_FPS = 25.0
"""Frames per second of a folder of frames, which says nothing about it itself."""
UNSAID_FRAME_MS = 100.0
"""How long a frame of duration 0 is shown: what browsers do."""

WHITE = (255, 255, 255)


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """What a file or folder of frames says about itself."""

    path: Path
    fps: float
    size: tuple[int, int]
    """Height and width in pixels, after rotation."""
    num_frames: int | None
    """None where the container does not say; never more than a promise."""


def open_media(path: Path) -> Media:
    """Look at a video, GIF, animated WebP, folder of frames or strip; decodes its first frame.

    Raises InputError in one line when it is missing, of no known kind, or cannot be read.
    """
    kind = _kind(path)
    if kind == "video":
        facts = video_facts(path)
        return Media(path=path, fps=facts.fps, size=facts.size, num_frames=facts.num_frames)
    if kind == "animation":
        durations, size = _animation_facts(path)
        fps = 1000.0 * len(durations) / sum(durations)
        return Media(path=path, fps=fps, size=size, num_frames=len(durations))
    if kind == "strip":
        height, width = _read_strip(path, WHITE).shape[:2]
        return Media(path=path, fps=FOLDER_FPS, size=(height, height), num_frames=width // height)
    names = frame_paths(path)
    height, width = read_image(names[0]).shape[:2]
    return Media(path=path, fps=FOLDER_FPS, size=(height, width), num_frames=len(names))


def read_frames(
    path: Path,
    *,
    background: tuple[int, int, int] = WHITE,
    size: tuple[int, int] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Pixels]:
    """Frames `start` to `stop` (left out; None: the end) of a video, GIF, animated WebP, folder or strip, as uint8
    [height, width, 3] RGB, one in memory at a time (a strip as a whole).

    Transparent pixels show `background`. Raises InputError when it cannot be read, ends before its stated length, or
    has a frame of another size than `size` (height, width; None: that of the first); what was yielded before is then
    sound but not the whole clip.
    """
    kind = _kind(path)
    if kind == "video":
        frames = read_video(path, start=start, stop=stop)
    elif kind == "animation":
        frames = islice(_read_animation(path, background), start, stop)
    elif kind == "strip":
        frames = iter(_split(_read_strip(path, background))[start:stop])
    else:
        frames = (read_image(name, background=background) for name in frame_paths(path)[start:stop])
    return _of_one_size(path, frames, size=size, start=start)


def read_image(path: Path, *, background: tuple[int, int, int] = WHITE) -> Pixels:
    """An image as uint8 [height, width, 3] RGB: EXIF orientation applied, transparent pixels over `background`.

    Raises InputError when the file is missing or no image.
    """
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not an image' if path.is_dir() else 'no such file'}")
    try:
        with Image.open(path) as image:
            return _over(ImageOps.exif_transpose(image), background)
    except BROKEN_IMAGE as error:
        raise InputError(f"{path}: no image that can be read ({first_line(error)})") from error


def frame_paths(folder: Path) -> list[Path]:
    """The frames of a folder in natural order (`f2.png` before `f10.png`); InputError when there are none."""
    found = [entry for entry in folder.iterdir() if is_frame(entry.name)]
    if not found:
        raise InputError(
            f"{folder}: no frames found; expected {', '.join(sorted(FRAME_SUFFIXES))} files whose names end in a number"
        )
    return sorted(found, key=lambda entry: natural_key(entry.name))


def is_frame(name: str) -> bool:
    """Whether a file's name is that of a frame: a PNG or JPEG whose name ends in a number."""
    stem, _, suffix = name.rpartition(".")
    return f".{suffix.lower()}" in FRAME_SUFFIXES and stem[-1:].isdigit() and not name.startswith(".")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that reads runs of digits as numbers; equal numbers keep the order of their spelling."""
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def _kind(path: Path) -> MediaKind:
    if path.is_dir():
        return "frames"
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix in ANIMATION_SUFFIXES:
        return "animation"
    if suffix in FRAME_SUFFIXES:
        return "strip"
    known = ", ".join(sorted(VIDEO_SUFFIXES | ANIMATION_SUFFIXES))
    raise InputError(f"{path}: not a video; expected one of {known}, or a folder of PNG or JPEG frames")


def _read_strip(path: Path, background: tuple[int, int, int]) -> Pixels:
    """An image of square frames side by side, as the readers of FOMM and Monkey-Net split it."""
    image = read_image(path, background=background)
    height, width = image.shape[:2]
    if width % height or width < 2 * height:
        raise InputError(
            f"{path}: not a video; an image of {width}x{height} pixels is no strip of square frames side by side, "
            "whose width would be 2, 3, … times its height"
        )
    return image


def _split(strip: Pixels) -> list[Pixels]:
    side, width = strip.shape[:2]
    return [np.ascontiguousarray(strip[:, left : left + side]) for left in range(0, width, side)]


def _animation_facts(path: Path) -> tuple[list[float], tuple[int, int]]:
    """How long each frame is shown in milliseconds, and height and width."""
    try:
        with Image.open(path) as image:
            durations = []
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                image.load()  # a WebP tells a frame's duration only once it is decoded
                durations.append(float(image.info.get("duration") or UNSAID_FRAME_MS))
            return durations, (image.height, image.width)
    except BROKEN_IMAGE as error:
        raise InputError(f"{path}: no animation that can be read ({first_line(error)})") from error


def _read_animation(path: Path, background: tuple[int, int, int]) -> Iterator[Pixels]:
    try:
        with Image.open(path) as image:
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                yield _over(image, background)
    except BROKEN_IMAGE as error:
        raise InputError(f"{path}: damaged or cut short ({first_line(error)})") from error


def _over(image: Image.Image, background: tuple[int, int, int]) -> Pixels:
    """`image` over a plain background, as RGB."""
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    rgba = image.convert("RGBA")
    canvas = Image.new("RGBA", rgba.size, (*background, 255))
    return np.array(Image.alpha_composite(canvas, rgba).convert("RGB"))


def _of_one_size(path: Path, frames: Iterator[Pixels], *, size: tuple[int, int] | None, start: int) -> Iterator[Pixels]:
    count = 0
    for frame in frames:
        size = size or (frame.shape[0], frame.shape[1])
        if frame.shape[:2] != size:
            raise InputError(
                f"{path}: frame {start + count} is {frame.shape[1]}x{frame.shape[0]} pixels, the first "
                f"{size[1]}x{size[0]}; all frames of a clip must have one size"
            )
        count += 1
        yield frame
    if not start + count:
        raise InputError(f"{path}: holds no frame")
