"""What can be wrong with one shard: its bytes, its schema, its rows and every frame in them."""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.frame_codec import Pixels, decode_frame, decode_mask, why_broken
from hdam.pipelines.manifest import Shard, locate
from hdam.pipelines.shards import SCHEMA, UNREADABLE, Row

_PER_FRAME = ("frames", "keypoints", "centroid", "part_masks")


class Fault(NamedTuple):
    """Something that is wrong, and where."""

    shard: str
    what: str
    row: int | None = None
    """Number of the row in the shard."""
    clip: str | None = None
    frame: int | None = None
    """Number of the frame in the clip."""

    def __str__(self) -> str:
        places = (("row", self.row), ("clip", self.clip), ("frame", self.frame))
        return ", ".join([self.shard, *(f"{word} {place}" for word, place in places if place is not None)]) + (
            f": {self.what}"
        )


class RowFacts(NamedTuple):
    """A row without what its frames show: enough to hold rows against each other."""

    number: int
    clip_id: str
    identity: str
    split: str
    fps: float
    source: str
    chunk: int
    num_chunks: int
    chunk_rank: int
    num_identity_chunks: int
    num_frames: int


class ShardFindings(NamedTuple):
    """What was found in one shard."""

    shard: str
    faults: list[Fault]
    rows: list[RowFacts]
    """Only rows whose small columns are sound."""
    num_frames: int
    """Frames that were decoded, or tried."""


def examine_shard(dataset: str, shard: Shard, *, size: object) -> ShardFindings:
    """Look at every byte, row and frame of a shard of `dataset` (path or URI); `size`: side of the frames, if known.

    Holds the shard in memory: some 32 MiB. Never raises for what is wrong with the shard.
    """
    findings = ShardFindings(shard.path, [], [], 0)
    data = _read(dataset, shard, findings.faults)
    if data is None:
        return findings
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        differences = list(_schema_differences(file.schema_arrow))
        num_rows = file.metadata.num_rows
    except UNREADABLE as error:
        findings.faults.append(Fault(shard.path, f"no Parquet file that can be read ({first_line(error)})"))
        return findings
    if num_rows != shard.rows:
        findings.faults.append(Fault(shard.path, f"has {num_rows} rows, the manifest expects {shard.rows}"))
    if differences:
        findings.faults.extend(Fault(shard.path, what) for what in differences)
        return findings
    first = num_frames = 0
    for group in range(file.num_row_groups):
        num_frames += _examine_group(file, group, first, shard=shard, size=size, findings=findings)
        first += file.metadata.row_group(group).num_rows
    return findings._replace(num_frames=num_frames)


def _read(dataset: str, shard: Shard, faults: list[Fault]) -> bytes | None:
    """All bytes of a shard, or None where they are not to be had; says what differs from the manifest."""
    filesystem, root = locate(dataset)
    path = f"{root}/{shard.path}"
    try:
        info = filesystem.get_file_info(path)
        if info.type != fs.FileType.File:
            faults.append(Fault(shard.path, f"is missing, the manifest expects {shard.num_bytes} bytes"))
            return None
        if info.size != shard.num_bytes:
            faults.append(Fault(shard.path, f"has {info.size} bytes, the manifest expects {shard.num_bytes}"))
            return None
        with filesystem.open_input_stream(path) as stream:
            data = bytes(stream.read())
    except OSError as error:
        faults.append(Fault(shard.path, f"cannot be read ({first_line(error)})"))
        return None
    found = hashlib.sha256(data).hexdigest()
    if found != shard.sha256:
        what = f"has checksum {found[:12]}…, the manifest expects {shard.sha256[:12]}…: its content has changed"
        faults.append(Fault(shard.path, what))
    return data


def _schema_differences(schema: pa.Schema) -> Iterator[str]:
    """What a shard's columns lack of `SCHEMA`."""
    for field in SCHEMA:
        if field.name not in schema.names:
            yield f"has no column '{field.name}'"
        elif (found := schema.field(field.name).type) != field.type:
            yield f"column '{field.name}' is {found}, expected {field.type}"


def _examine_group(
    file: pq.ParquetFile, group: int, first: int, *, shard: Shard, size: object, findings: ShardFindings
) -> int:
    """Look at the rows of one row group, from row `first` on, and put down what is found; the number of frames."""
    try:
        rows = file.read_row_group(group, columns=SCHEMA.names).to_pylist()
    except UNREADABLE as error:
        findings.faults.append(Fault(shard.path, f"cannot be read ({first_line(error)})", row=first))
        return 0
    num_frames = 0
    for number, row in enumerate(rows, start=first):
        clip = row["clip_id"]
        faults = [Fault(shard.path, what, row=number, clip=clip) for what in _row_faults(row, shard.split, size)]
        findings.faults.extend(faults)
        if any(row[field.name] is None for field in SCHEMA if not field.nullable):
            continue
        num_frames += len(row["frames"])
        if not faults:
            small = {name: row[name] for name in RowFacts._fields if name in row}
            findings.rows.append(RowFacts(number=number, num_frames=len(row["frames"]), **small))
        for frame, what in _frame_faults(row):
            findings.faults.append(Fault(shard.path, what, row=number, clip=clip, frame=frame))
    return num_frames


def _row_faults(row: Row, split: str, size: object) -> Iterator[str]:
    """How the columns of a row contradict themselves, each other or the manifest."""
    empty = [field.name for field in SCHEMA if not field.nullable and row[field.name] is None]
    if empty:
        yield f"no value in {', '.join(empty)}"
        return
    for name in ("clip_id", "identity"):
        if not row[name]:
            yield f"{name} is empty"
    if row["split"] != split:
        yield f"split is '{row['split']}', the manifest puts its shard into '{split}'"
    if not (math.isfinite(row["fps"]) and row["fps"] > 0):
        yield f"fps is {row['fps']}, expected more than 0"
    if row["height"] < 1 or row["height"] != row["width"] or (isinstance(size, int) and row["height"] != size):
        expected = f"{size}x{size} as the whole dataset" if isinstance(size, int) else "a square"
        yield f"its frames are said to be {row['width']}x{row['height']}, expected {expected}"
    for number, count in (("chunk", "num_chunks"), ("chunk_rank", "num_identity_chunks")):
        if not 0 <= row[number] < row[count]:
            yield f"{number} is {row[number]}, expected 0 to {row[count] - 1} ({count} is {row[count]})"
    yield from _list_faults(row)


def _list_faults(row: Row) -> Iterator[str]:
    indices = row["frame_index"]
    if not indices:
        yield "holds no frame"
    for name in _PER_FRAME:
        if row[name] is not None and len(row[name]) != len(indices):
            yield f"{name} has {len(row[name])} entries, frame_index has {len(indices)}"
    if indices != [row["chunk"] + place * row["num_chunks"] for place in range(len(indices))]:
        first, step = row["chunk"], row["num_chunks"]
        yield f"frame_index is not {first}, {first + step}, {first + 2 * step}, … as of chunk {first} of {step}"
    joints = {len(points) for points in row["keypoints"] or () if points is not None}
    if len(joints) > 1:
        yield f"keypoints has {' and '.join(map(str, sorted(joints)))} numbers in a frame; expected equally many"


def _frame_faults(row: Row) -> Iterator[tuple[int | None, str]]:
    """Number in the clip of every faulty frame, and what is wrong with it."""
    height, width = row["height"], row["width"]
    for place, data in enumerate(row["frames"]):
        if what := _picture_fault(data, decode_frame, (height, width, 3)):
            yield _frame_number(row, place), what
    for place, data in enumerate(row["part_masks"] or ()):
        if what := _picture_fault(data, decode_mask, (height, width)):
            yield _frame_number(row, place), f"its part mask {what}"
    for name in ("keypoints", "centroid"):
        for place, points in enumerate(row[name] or ()):
            is_whole = points is not None and len(points) % 2 == 0 and (name != "centroid" or len(points) == 2)
            if not is_whole or not all(value is not None and math.isfinite(value) for value in points):
                yield _frame_number(row, place), f"{name} is {str(points)[:60]}, expected finite x, y"


def _picture_fault(data: bytes | None, decode: Callable[[bytes], Pixels], shape: tuple[int, ...]) -> str | None:
    """What is wrong with an encoded frame or mask, None where nothing is."""
    if data is None:
        return "is empty"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is worth a word becomes a fault
            found = decode(data)
    except InputError as error:
        # Without what the codec says to others: how to find out what is said here.
        return f"cannot be decoded ({why_broken(error.__cause__ or error)})"
    if found.shape != shape:
        return f"has shape {found.shape}, expected {shape}"
    return None


def _frame_number(row: dict[str, Any], place: int) -> int | None:
    return row["frame_index"][place] if place < len(row["frame_index"]) else None
