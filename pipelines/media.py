"""Read videos, animations, folders of frames and images: one frame at a time, always RGB, always upright."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.frame_codec import Pixels
from hdam.pipelines.video_reader import read_video, video_facts

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi"})
ANIMATION_SUFFIXES = frozenset({".gif", ".webp"})
FRAME_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

FOLDER_FPS = 25.0
"""Frames per second of a folder of frames, which says nothing about it itself."""
UNSAID_FRAME_MS = 100.0
"""How long a frame of duration 0 is shown: what browsers do."""

WHITE = (255, 255, 255)
_BROKEN_IMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on damaged files (SyntaxError: a broken PNG chunk; IndexError: a GIF cut within a header)."""


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
    """Look at a video, GIF, animated WebP or folder of frames; decodes its first frame.

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
    names = frame_paths(path)
    height, width = read_image(names[0]).shape[:2]
    return Media(path=path, fps=FOLDER_FPS, size=(height, width), num_frames=len(names))


def read_frames(path: Path, *, background: tuple[int, int, int] = WHITE) -> Iterator[Pixels]:
    """The frames of a video, GIF, animated WebP or folder, as uint8 [height, width, 3] RGB, one in memory at a time.

    Transparent pixels show `background`. Raises InputError when it cannot be read, ends before its stated length, or
    changes its size on the way; what was yielded before is then sound but not the whole clip.
    """
    kind = _kind(path)
    if kind == "video":
        frames = read_video(path)
    elif kind == "animation":
        frames = _read_animation(path, background)
    else:
        frames = (read_image(name, background=background) for name in frame_paths(path))
    return _of_one_size(path, frames)


def read_image(path: Path, *, background: tuple[int, int, int] = WHITE) -> Pixels:
    """An image as uint8 [height, width, 3] RGB: EXIF orientation applied, transparent pixels over `background`.

    Raises InputError when the file is missing or no image.
    """
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not an image' if path.is_dir() else 'no such file'}")
    try:
        with Image.open(path) as image:
            return _over(ImageOps.exif_transpose(image), background)
    except _BROKEN_IMAGE as error:
        raise InputError(f"{path}: no image that can be read ({first_line(error)})") from error


def frame_paths(folder: Path) -> list[Path]:
    """The frames of a folder in natural order (`f2.png` before `f10.png`); InputError when there are none."""
    found = [entry for entry in folder.iterdir() if is_frame(entry)]
    if not found:
        raise InputError(
            f"{folder}: no frames found; expected {', '.join(sorted(FRAME_SUFFIXES))} files whose names end in a number"
        )
    return sorted(found, key=lambda entry: natural_key(entry.name))


def is_frame(path: Path) -> bool:
    """Whether a file's name is that of a frame: a PNG or JPEG whose name ends in a number."""
    return path.suffix.lower() in FRAME_SUFFIXES and path.stem[-1:].isdigit() and not path.name.startswith(".")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that reads runs of digits as numbers; equal numbers keep the order of their spelling."""
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def _kind(path: Path) -> str:
    if path.is_dir():
        return "folder"
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix in ANIMATION_SUFFIXES:
        return "animation"
    known = ", ".join(sorted(VIDEO_SUFFIXES | ANIMATION_SUFFIXES))
    raise InputError(f"{path}: not a video; expected one of {known}, or a folder of PNG or JPEG frames")


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
    except _BROKEN_IMAGE as error:
        raise InputError(f"{path}: no animation that can be read ({first_line(error)})") from error


def _read_animation(path: Path, background: tuple[int, int, int]) -> Iterator[Pixels]:
    try:
        with Image.open(path) as image:
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                yield _over(image, background)
    except _BROKEN_IMAGE as error:
        raise InputError(f"{path}: damaged or cut short ({first_line(error)})") from error


def _over(image: Image.Image, background: tuple[int, int, int]) -> Pixels:
    """`image` over a plain background, as RGB."""
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    rgba = image.convert("RGBA")
    canvas = Image.new("RGBA", rgba.size, (*background, 255))
    return np.array(Image.alpha_composite(canvas, rgba).convert("RGB"))


def _of_one_size(path: Path, frames: Iterator[Pixels]) -> Iterator[Pixels]:
    shape: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        if shape is not None and frame.shape != shape:
            raise InputError(
                f"{path}: frame {index} is {frame.shape[1]}x{frame.shape[0]} pixels, the first {shape[1]}x{shape[0]}; "
                "all frames of a clip must have one size"
            )
        shape = frame.shape
        yield frame
    if shape is None:
        raise InputError(f"{path}: holds no frame")
