"""Write frames as they come: mp4 with the driving video's sound, GIF, or a folder of PNGs; whole or not at all."""

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from PIL import GifImagePlugin, Image

from hdam.pipelines.audio_track import open_audio
from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import Pixels

MP4_CRF = 18
"""Constant rate factor of H.264: visually close to lossless."""


class FrameWriter(Protocol):
    """Takes the frames of one video, in order."""

    def write(self, frame: Pixels) -> None:
        """Add a frame, uint8 [height, width, 3] RGB, of the size the writer was opened with."""


class _Sink(FrameWriter, Protocol):
    def close(self) -> None:
        """Write what is still held back."""

    def abort(self) -> None:
        """Let go of the file, whatever state it is in."""


@contextmanager
def open_writer(
    path: Path, *, fps: float, size: tuple[int, int], audio_from: Path | None = None
) -> Iterator[FrameWriter]:
    """A writer of frames of `size` (height, width), chosen by the suffix: `.mp4`, `.gif`, or none for a folder of PNGs.

    mp4 is H.264 in yuv420p: an odd side grows by one repeated row or column. The audio of `audio_from` goes into an
    mp4 up to the last frame. The result appears under its name when the block ends well; on an error nothing remains.
    Raises InputError for another suffix, and for a folder that is not empty.
    """
    _check_target(path)
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    sink: _Sink | None = None
    try:
        sink = _open_sink(partial, fps=fps, size=size, audio_from=audio_from)
        yield sink
        sink.close()
        if not path.suffix and path.exists():
            path.rmdir()
        partial.replace(path)
    except BaseException:
        if sink is not None:
            sink.abort()
        raise
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)


def _check_target(path: Path) -> None:
    """InputError unless a result may be written to `path`."""
    if path.suffix.lower() not in (".mp4", ".gif", ""):
        raise InputError(f"{path}: cannot write '{path.suffix}'; expected .mp4, .gif, or no suffix (a folder of PNGs)")
    if not path.suffix and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} exists already and is not an empty folder; choose another name")
    if path.suffix and path.is_dir():
        raise InputError(f"{path} is a folder; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: its folder cannot be made ({error.strerror})") from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: its folder is not writable")


def _open_sink(partial: Path, *, fps: float, size: tuple[int, int], audio_from: Path | None) -> "_Sink":
    rate = Fraction(fps).limit_denominator(1001)
    if partial.suffix.lower() == ".mp4":
        return _Checked(_Mp4Sink(partial, rate, size, audio_from), size)
    if partial.suffix.lower() == ".gif":
        return _Checked(_GifSink(partial, rate, size), size)
    return _Checked(_FolderSink(partial), size)


class _Checked:
    """Refuses frames of another shape, and a video without any."""

    def __init__(self, sink: "_Sink", size: tuple[int, int]) -> None:
        self._sink = sink
        self._shape = (*size, 3)
        self._count = 0
        self.abort = sink.abort

    def write(self, frame: Pixels) -> None:
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"frame {self._count} is {frame.dtype} {frame.shape}, expected uint8 {self._shape}")
        self._sink.write(frame)
        self._count += 1

    def close(self) -> None:
        if not self._count:
            raise InputError("no frame was written; the driving video holds none")
        self._sink.close()


class _Mp4Sink:
    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int], audio_from: Path | None) -> None:
        height, width = size
        self._rate = rate
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))
        self._count = 0
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": str(MP4_CRF)})
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"
        self._audio = open_audio(audio_from, self._container)

    def write(self, frame: Pixels) -> None:
        picture = av.VideoFrame.from_ndarray(np.pad(frame, self._padding, mode="edge"), format="rgb24")
        picture.pts, picture.time_base = self._count, 1 / self._rate
        self._container.mux(self._stream.encode(picture))
        self._count += 1
        self._advance_audio()

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._advance_audio()
        self.abort()

    def abort(self) -> None:
        if self._audio is not None:
            self._audio[0].close()
        self._container.close()

    def _advance_audio(self) -> None:
        if self._audio is not None:
            self._audio[1].advance(float(self._count / self._rate))


class _GifSink:
    """Frames are written one by one, each with its own palette; Pillow's own `save` would hold them all."""

    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int]) -> None:
        height, width = size
        self._centiseconds = 100 / rate
        self._count = 0
        self._file = path.open("wb")
        self._file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0))
        self._file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # play for ever

    def write(self, frame: Pixels) -> None:
        # GIF counts whole hundredths of a second: each frame ends where the clock says, so that errors don't add up.
        start, end = (round(index * self._centiseconds) for index in (self._count, self._count + 1))
        image = Image.fromarray(frame).quantize(
            256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG
        )
        milliseconds = 10 * max(end - start, 1)
        self._file.writelines(GifImagePlugin.getdata(image, duration=milliseconds, include_color_table=True))
        self._count += 1

    def close(self) -> None:
        self._file.write(b";")
        self._file.close()

    def abort(self) -> None:
        self._file.close()


class _FolderSink:
    def __init__(self, path: Path) -> None:
        self._folder = path
        self._count = 0
        path.mkdir()

    def write(self, frame: Pixels) -> None:
        Image.fromarray(frame).save(self._folder / f"frame_{self._count:05d}.png")
        self._count += 1

    def close(self) -> None:
        """Every frame is a file of its own already."""

    def abort(self) -> None:
        """The caller removes the folder."""
