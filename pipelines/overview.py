"""What a dataset holds, told from its manifest and the small columns of its shards, and one picture of it."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pyarrow import fs

from hdam.pipelines.contact_sheet import MAX_CLIPS, NUM_FRAMES, SheetClip, contact_sheet, spread
from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.frame_codec import decode_frame
from hdam.pipelines.manifest import Counts, Manifest, load_manifest, locate
from hdam.pipelines.prepare import REJECTED_NAME, SHEET_NAME
from hdam.pipelines.shards import Row, read_rows

NUM_BINS = 8
READERS = 8
"""Shards that are opened side by side: in a store, opening one is mostly waiting."""
_SMALL_COLUMNS = ("clip_id", "identity", "split", "chunk", "fps", "frame_index")


class Summary(NamedTuple):
    """Lowest, middle and highest of some numbers; all 0 where there are none."""

    lowest: float
    median: float
    highest: float


class Bin(NamedTuple):
    """How many clips have `first` to `last` frames, both included."""

    first: int
    last: int
    clips: int


class ClipPlace(NamedTuple):
    """One clip as the small columns tell it, and where the first of its chunks lies."""

    clip_id: str
    identity: str
    split: str
    fps: float
    num_frames: int
    shard: str
    row: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """What `hdam data show` says."""

    dataset: str
    name: str
    fingerprint: str
    schema_version: int
    counts: Counts
    splits: dict[str, Counts]
    num_shards: int
    clips_per_identity: Summary
    clip_frames: Summary
    clip_seconds: Summary
    total_seconds: float
    histogram: tuple[Bin, ...]
    """Clips by their number of frames."""
    fps: Summary
    """Frames per second of the clips."""
    bytes_per_frame: float
    """Of the shards, all columns counted."""
    options: dict[str, Any]
    """How the dataset was prepared."""
    num_rejected: int
    """Files that were left out, by `rejected.csv`."""


def describe(dataset: str) -> Overview:
    """Read the manifest and the small columns of all shards of `dataset` (path or URI); no frame is read.

    Raises InputError when the dataset, its manifest or a shard is missing or damaged.
    """
    manifest = load_manifest(dataset)
    clips = clip_places(dataset, manifest)
    frames = [clip.num_frames for clip in clips]
    seconds = [clip.num_frames / clip.fps for clip in clips if clip.fps > 0]
    counts = manifest.counts
    return Overview(
        dataset=dataset,
        name=manifest.name,
        fingerprint=manifest.fingerprint,
        schema_version=manifest.schema_version,
        counts=counts,
        splits=manifest.splits,
        num_shards=len(manifest.shards),
        clips_per_identity=summary(Counter(clip.identity for clip in clips).values()),
        clip_frames=summary(frames),
        clip_seconds=summary(seconds),
        total_seconds=math.fsum(seconds),
        histogram=histogram(frames),
        fps=summary(clip.fps for clip in clips),
        bytes_per_frame=counts.num_bytes / counts.frames if counts.frames else 0.0,
        options=manifest.options,
        num_rejected=_num_rejected(dataset),
    )


def clip_places(dataset: str, manifest: Manifest) -> list[ClipPlace]:
    """Every clip of the dataset, sorted by its id."""
    filesystem, root = locate(dataset)

    def small_rows(shard: str) -> list[dict[str, Any]]:
        rows = read_rows(f"{root}/{shard}", filesystem=filesystem, columns=_SMALL_COLUMNS, batch_rows=1024)
        return [{**row, "frame_index": len(row["frame_index"] or ())} for row in rows]

    clips: dict[str, ClipPlace] = {}
    shards = [shard.path for shard in manifest.shards]
    with ThreadPoolExecutor(READERS) as pool:
        for shard, rows in zip(shards, pool.map(small_rows, shards), strict=True):
            for number, row in enumerate(rows):
                place = ClipPlace(
                    clip_id=row["clip_id"],
                    identity=row["identity"],
                    split=row["split"],
                    fps=row["fps"],
                    num_frames=row["frame_index"],
                    shard=shard,
                    row=number,
                )
                known = clips.get(place.clip_id, place._replace(num_frames=0))
                # Chunk 0 is the one to look at; the others only lengthen the clip.
                shown = place if row["chunk"] == 0 else known
                clips[place.clip_id] = shown._replace(num_frames=known.num_frames + place.num_frames)
    return sorted(clips.values())


def summary(numbers: Iterable[float]) -> Summary:
    """Lowest, middle and highest of `numbers`."""
    known = sorted(numbers)
    return Summary(known[0], median(known), known[-1]) if known else Summary(0, 0, 0)


def histogram(lengths: Sequence[int], *, num_bins: int = NUM_BINS) -> tuple[Bin, ...]:
    """At most `num_bins` bins of equal width from the shortest to the longest; empty where there are no lengths."""
    if not lengths:
        return ()
    shortest, longest = min(lengths), max(lengths)
    width = -(-(longest - shortest + 1) // num_bins)
    found = Counter((length - shortest) // width for length in lengths)
    num_used = (longest - shortest) // width + 1
    firsts = [shortest + number * width for number in range(num_used)]
    return tuple(Bin(first, min(first + width - 1, longest), found[number]) for number, first in enumerate(firsts))


def place_sheet(dataset: str, out: Path | None) -> Path:
    """Where the contact sheet of `dataset` lies on this machine; it is copied or made where it does not yet.

    Written to `out` where that is given; else the one in a local dataset is taken; else, for a dataset in a store or
    one that cannot be written, a file in the current folder. Raises InputError where `out` cannot be written.
    """
    filesystem, root = locate(dataset)
    inside = Path(root, SHEET_NAME) if isinstance(filesystem, fs.LocalFileSystem) else None
    if out is None and inside is not None and inside.is_file():
        return inside
    data = _sheet_bytes(dataset, filesystem, root)
    beside = Path(f"{load_manifest(dataset).name}_{SHEET_NAME}")
    candidates = [path for path in (inside, beside) if path] if out is None else [out]
    for number, path in enumerate(candidates, start=1):
        try:
            _write(path, data)
        except OSError as error:
            if number == len(candidates):
                raise InputError(f"{path}: cannot be written ({first_line(error)}); name a file by --out") from error
        else:
            return path
    raise AssertionError("there is always a candidate")


def make_sheet(dataset: str) -> Image.Image:
    """A row of frames for each of some clips, spread over the dataset. Reads one row of each of them, no more."""
    manifest = load_manifest(dataset)
    clips = clip_places(dataset, manifest)
    shown = [clips[index] for index in spread(len(clips), MAX_CLIPS)]
    return contact_sheet(list(_strips(dataset, shown)))


def _strips(dataset: str, clips: Sequence[ClipPlace]) -> Iterator[SheetClip]:
    filesystem, root = locate(dataset)
    for clip in clips:
        path = f"{root}/{clip.shard}"
        (row,) = read_rows(path, filesystem=filesystem, columns=("frames", "keypoints"), rows=[clip.row])
        # A chunk spans its whole clip, so one row is enough, however long the clip.
        indices = spread(len(row["frames"]), NUM_FRAMES)
        yield SheetClip(
            label=f"{clip.clip_id}  [{clip.identity}]  {clip.split}  {clip.num_frames} frames  {clip.fps:.2f} fps",
            frames=[decode_frame(row["frames"][index]) for index in indices],
            points=_points(clip.clip_id, row, indices) if row["keypoints"] else [],
        )


def _points(clip_id: str, row: Row, indices: Sequence[int]) -> list[NDArray[np.float32]]:
    """[point, 2] of each frame, those that are no numbers left out."""
    found = row["keypoints"]
    if len(found) != len(row["frames"]) or any(len(found[index]) % 2 for index in indices):
        raise InputError(f"clip {clip_id}: its keypoints don't fit its frames; 'hdam data verify' says more")
    points = [np.array(found[index], np.float32).reshape(-1, 2) for index in indices]
    return [part[np.isfinite(part).all(axis=1)] for part in points]


def _sheet_bytes(dataset: str, filesystem: fs.FileSystem, root: str) -> bytes:
    """The sheet that lies in the dataset, or a new one where none does."""
    path = f"{root}/{SHEET_NAME}"
    if filesystem.get_file_info(path).type == fs.FileType.File:
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())
    buffer = io.BytesIO()
    make_sheet(dataset).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _num_rejected(dataset: str) -> int:
    filesystem, root = locate(dataset)
    path = f"{root}/{REJECTED_NAME}"
    if filesystem.get_file_info(path).type != fs.FileType.File:
        return 0
    with filesystem.open_input_stream(path) as stream:
        text = stream.read().decode("utf-8", errors="replace")
    return max(0, sum(1 for row in csv.reader(io.StringIO(text, newline="")) if row) - 1)
