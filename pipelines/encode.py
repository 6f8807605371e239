"""One clip from its file to encoded chunks: read, trim, cut, resize, encode, interleave; the truth along with it."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from hdam.pipelines.clips import SourceClip, Truth
from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.frame_codec import Codec, Pixels, encode_frame, encode_mask
from hdam.pipelines.listing import fetched
from hdam.pipelines.media import TRUTH_NAME, open_media, read_frames
from hdam.pipelines.shards import Row, interleave
from hdam.pipelines.transform import Fit, Window, clip_in_file, cut, cut_mask, frame_span, move_points, square_window

WAITING_BYTES = 32 << 20
"""Encoded frames of a clip that wait in memory: most clips never touch the disk before they are whole."""


class EncodeOptions(NamedTuple):
    """What shapes the encoded frames."""

    size: int
    fit: Fit
    background: tuple[int, int, int]
    codec: Codec
    max_chunk_frames: int
    min_frames: int
    max_frames: int | None


class _EncodedTruth(NamedTuple):
    keypoints: list[list[float]] | None
    centroid: list[list[float]] | None
    part_masks: list[bytes] | None


def encode_clip(clip: SourceClip, options: EncodeOptions, *, waiting_dir: Path | None = None) -> Iterator[Row]:
    """The chunks of one clip as rows of a shard, one at a time, without the columns that only the whole dataset knows
    (`split`, `chunk_rank`, `num_identity_chunks`).

    Frames are encoded as they are read. Since chunks are interleaved, the first is known when the last frame is; until
    then the frames wait in a file of `waiting_dir` (None: the system's folder for such), which nobody else sees.

    Raises InputError, before the first row, when the clip cannot be read, its crop does not fit, or it is too short.
    """
    with fetched(clip) as path, WaitingFrames(waiting_dir) as frames:
        media = open_media(path)
        crop, trim = clip_in_file(clip, frame_size=media.size, fps=media.fps)
        window = square_window(media.size, crop=crop, fit=options.fit)
        start, stop = frame_span(trim, options.max_frames)
        for frame in read_frames(path, background=options.background, size=media.size, start=start, stop=stop):
            square = cut(frame, window, size=options.size, background=options.background)
            frames.append(encode_frame(square, options.codec))
        if len(frames) < options.min_frames:
            trimmed = f" after trimming to {trim}" if trim else ""
            raise InputError(f"{path}: {len(frames)} frame(s){trimmed}, at least {options.min_frames} are needed")
        truth = _encoded_truth(path, slice(start, start + len(frames)), window, media.size, options.size)
        chunks = interleave(len(frames), max_chunk_frames=options.max_chunk_frames)
        for number, indices in enumerate(chunks):
            yield {
                "clip_id": clip.clip_id,
                "identity": clip.identity,
                "chunk": number,
                "num_chunks": len(chunks),
                "fps": clip.fps or media.fps,
                "height": options.size,
                "width": options.size,
                "frame_index": list(indices),
                "frames": [frames[index] for index in indices],
                **{name: _picked(values, indices) for name, values in truth._asdict().items()},
                "source": clip.source,
                "crop": str(window.box),
            }


class WaitingFrames:
    """Encoded frames of one clip, in memory up to `WAITING_BYTES` and beyond that in a file without a name.

    The system removes the file when it is closed, however the process ends.
    """

    def __init__(self, folder: Path | None) -> None:
        place = None if folder is None else str(folder)
        self._file = SpooledTemporaryFile(max_size=WAITING_BYTES, dir=place)  # noqa: SIM115 - closed by __exit__
        self._ends = [0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, frame: bytes) -> None:
        """Add the next frame; all of them before the first is read back."""
        self._file.write(frame)
        self._ends.append(self._ends[-1] + len(frame))

    def __getitem__(self, index: int) -> bytes:
        start, end = self._ends[index], self._ends[index + 1]
        self._file.seek(start)
        return self._file.read(end - start)


def read_truth(folder: Path) -> Truth | None:
    """The ground truth beside the frames of a synthetic clip, or None where there is none.

    Raises InputError when the file is damaged, or an array has not the shape that `Truth` says.
    """
    path = folder / TRUTH_NAME
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            joints, centroid, masks = (arrays.get(name) for name in ("joints", "centroid", "part_masks"))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no ground truth that can be read ({first_line(error)})") from error
    for name, array, num_axes in (("joints", joints, 3), ("centroid", centroid, 2), ("part_masks", masks, 3)):
        if array is not None and (array.ndim != num_axes or (name != "part_masks" and array.shape[-1] != 2)):
            raise InputError(f"{path}: {name} has shape {array.shape}; see hdam.pipelines.clips.Truth")
    return Truth(_float32(joints), _float32(centroid), None if masks is None else masks.astype(np.uint8))


def _encoded_truth(path: Path, span: slice, window: Window, frame_size: tuple[int, int], size: int) -> _EncodedTruth:
    """The truth of the frames in `span`, moved along with them."""
    truth = read_truth(path) if path.is_dir() else None
    if truth is None:
        return _EncodedTruth(None, None, None)
    for name, array in truth._asdict().items():
        if array is not None and len(array) < span.stop:
            raise InputError(f"{path}/{TRUTH_NAME}: {name} covers {len(array)} frames, the clip has {span.stop}")
    if truth.part_masks is not None and truth.part_masks.shape[1:] != frame_size:
        raise InputError(f"{path}/{TRUTH_NAME}: part_masks are {truth.part_masks.shape[1:]}, the frames {frame_size}")

    def points(array: NDArray[np.float32] | None) -> list[list[float]] | None:
        if array is None:
            return None
        moved = move_points(array[span], window, frame_size=frame_size, size=size)
        return moved.reshape(len(moved), -1).tolist()

    masks: Pixels | None = truth.part_masks
    encoded = None if masks is None else [encode_mask(cut_mask(mask, window, size=size)) for mask in masks[span]]
    return _EncodedTruth(points(truth.joints), points(truth.centroid), encoded)


def _float32(array: NDArray[np.float64] | None) -> NDArray[np.float32] | None:
    return None if array is None else array.astype(np.float32)


def _picked(values: list[Any] | None, indices: range) -> list[Any] | None:
    return None if values is None else [values[index] for index in indices]
