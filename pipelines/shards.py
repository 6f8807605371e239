"""Shards: Parquet files of interleaved chunks, written row by row and read back by row or by clip.

    clip of 150 frames, at most 64 a chunk
      chunk 0: frames 0, 3, 6, …      chunk 1: frames 1, 4, 7, …      chunk 2: frames 2, 5, 8, …

One row is one chunk, and one row group is one row: a reader fetches the row it wants and nothing else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from hdam.pipelines.clips import Clip
from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import arriving, reason_of
from hdam.pipelines.manifest import AGAIN, load_manifest, locate

Row = dict[str, Any]
"""One row of a shard: column name to value."""

UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)
"""What Arrow raises on damaged Parquet files (ValueError: text that is no UTF-8)."""

_POINTS = pa.list_(pa.list_(pa.float32()))
_PER_FRAME = ("frames", "keypoints", "centroid", "part_masks")

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("chunk", pa.int32(), nullable=False),
        pa.field("num_chunks", pa.int32(), nullable=False),
        pa.field("chunk_rank", pa.int32(), nullable=False),
        pa.field("num_identity_chunks", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("frame_index", pa.list_(pa.int32()), nullable=False),
        pa.field("frames", pa.list_(pa.binary()), nullable=False),
        pa.field("keypoints", _POINTS),
        pa.field("centroid", _POINTS),
        pa.field("part_masks", pa.list_(pa.binary())),
        pa.field("source", pa.string(), nullable=False),
        pa.field("crop", pa.string(), nullable=False),
    ]
)
"""`keypoints`: per frame x, y of every joint in a row; `centroid`: per frame x, y; `part_masks`: PNG label maps;
`crop`: 'x y width height' of what is seen of the source's frame."""


class ClipPlace(NamedTuple):
    """Where a clip lies in its dataset."""

    clip_id: str
    identity: str
    num_frames: int
    rows: tuple[tuple[str, int], ...]
    """Shard, relative to the dataset, and row number of each chunk."""


def interleave(num_frames: int, *, max_chunk_frames: int) -> list[range]:
    """Frame indices of each chunk: as few chunks as hold `num_frames`, each spanning the whole clip."""
    num_chunks = -(-num_frames // max_chunk_frames)
    return [range(chunk, num_frames, num_chunks) for chunk in range(num_chunks)]


def write_shard(path: Path, rows: Iterable[Row], *, schema: pa.Schema = SCHEMA) -> int:
    """Write `rows` to the local `path`, whole or not at all; returns their count."""
    with arriving(fs.LocalFileSystem(), str(path)) as partial:
        return write_rows(partial, rows, schema=schema)


def write_rows(
    path: Path,
    rows: Iterable[Row],
    *,
    schema: pa.Schema = SCHEMA,
    notes: Callable[[], Mapping[str, str]] | None = None,
) -> int:
    """Write `rows` to the new file `path`, one row group each; returns their count.

    `notes` is asked after the last row, for texts that go into the footer.
    """
    count = 0
    # JPEG and PNG don't shrink any further, and nobody searches shards by value.
    with pq.ParquetWriter(path, schema, compression="NONE", use_dictionary=False, write_statistics=False) as out:
        for row in rows:
            out.write_table(pa.Table.from_pylist([row], schema=schema))
            count += 1
        if notes is not None:
            out.add_key_value_metadata(dict(notes()))
    return count


def read_rows(
    path: str | Path,
    *,
    filesystem: fs.FileSystem | None = None,
    columns: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
    batch_rows: int = 8,
) -> Iterator[Row]:
    """The rows of a shard one by one, `batch_rows` in memory at a time.

    `path` is a local path or a URI, or a path within `filesystem`. `columns` None: all of them; `rows`: only these
    row numbers, in this order. Raises InputError when the shard is missing or no Parquet file.
    """
    if filesystem is None:
        filesystem, path = locate(str(path))
    names = None if columns is None else list(columns)
    try:
        with pq.ParquetFile(str(path), filesystem=filesystem) as shard:
            _check_columns(shard, str(path), names)
            groups = range(shard.num_row_groups) if rows is None else rows
            count = 0
            for batch in shard.iter_batches(batch_size=batch_rows, row_groups=list(groups), columns=names):
                _check_values(batch, str(path))
                count += batch.num_rows
                yield from batch.to_pylist()
            if count != len(groups):
                raise InputError(f"shard {path} has {count} of the {len(groups)} rows that it states; {AGAIN}")
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"shard {path} is missing; prepare the dataset again") from error
    except UNREADABLE as error:
        raise InputError(f"shard {path} is damaged or cannot be read ({reason_of(error)}); {AGAIN}") from error


def iter_clips(dataset: str | Path, split: str | None = None) -> Iterator[Clip]:
    """The clips of a dataset (of one split, or all) in the order of their ids, frames back in the order of time.

    Two passes: the small columns say where the chunks lie, then one clip at a time is read. Raises InputError when the
    dataset has no such split, or a clip lacks a chunk.
    """
    for place in find_clips(dataset, split):
        yield read_clip(dataset, place)


def find_clips(dataset: str | Path, split: str | None = None) -> list[ClipPlace]:
    """Where the clips of a dataset (of one split, or all) lie, in the order of their ids; frames are not read.

    Raises InputError when the dataset has no such split.
    """
    manifest = load_manifest(dataset)
    filesystem, root = locate(str(dataset))
    places: dict[str, ClipPlace] = {}
    for shard in manifest.shards_of(split):
        small = read_rows(
            f"{root}/{shard.path}",
            filesystem=filesystem,
            columns=["clip_id", "identity", "frame_index"],
            batch_rows=1024,
        )
        for number, row in enumerate(small):
            place = places.get(row["clip_id"], ClipPlace(row["clip_id"], row["identity"], 0, ()))
            places[place.clip_id] = place._replace(
                num_frames=place.num_frames + len(row["frame_index"]), rows=(*place.rows, (shard.path, number))
            )
    return [places[clip_id] for clip_id in sorted(places)]


def read_clip(dataset: str | Path, place: ClipPlace) -> Clip:
    """The clip at `place`, frames in the order of time. InputError when a chunk is missing or a shard damaged."""
    filesystem, root = locate(str(dataset))
    chunks: list[Row] = []
    for path, row in place.rows:
        chunks.extend(read_rows(f"{root}/{path}", filesystem=filesystem, columns=SCHEMA.names, rows=[row]))
    return _join(place.clip_id, chunks)


def _check_columns(shard: pq.ParquetFile, path: str, names: Sequence[str] | None) -> None:
    """InputError unless the columns that are read are those of `SCHEMA`, and every row is a group."""
    found = shard.schema_arrow
    for name in names or found.names:
        if name not in found.names:
            raise InputError(f"shard {path} has no column '{name}'; {AGAIN}")
        if name in SCHEMA.names and found.field(name).type != SCHEMA.field(name).type:
            types = f"{found.field(name).type}, expected {SCHEMA.field(name).type}"
            raise InputError(f"shard {path}: column '{name}' is {types}; {AGAIN}")
    if shard.num_row_groups != shard.metadata.num_rows:
        raise InputError(f"shard {path} has {shard.metadata.num_rows} rows in {shard.num_row_groups} groups; {AGAIN}")


def _check_values(batch: pa.RecordBatch, path: str) -> None:
    """InputError where a value is missing that every row has."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        is_required = name in SCHEMA.names and not SCHEMA.field(name).nullable
        lacks_one = is_required and column.null_count > 0
        if lacks_one or (pa.types.is_list(column.type) and column.flatten().null_count):
            raise InputError(f"shard {path}: column '{name}' lacks a value; {AGAIN}")


def _join(clip_id: str, chunks: list[Row]) -> Clip:
    """Interleaved chunks as one clip."""
    first = chunks[0]
    num_chunks = first["num_chunks"]
    if len(chunks) != num_chunks or sorted(chunk["chunk"] for chunk in chunks) != list(range(num_chunks)):
        raise InputError(f"clip {clip_id}: {len(chunks)} of its {num_chunks} chunks found; prepare the dataset again")
    for column in _PER_FRAME:
        lengths = [len(chunk["frame_index"]) if first[column] is not None else None for chunk in chunks]
        if lengths != [None if chunk[column] is None else len(chunk[column]) for chunk in chunks]:
            raise InputError(f"clip {clip_id}: its {column} are not as many as its frames; prepare the dataset again")
    order = np.argsort(np.concatenate([chunk["frame_index"] for chunk in chunks]))

    def joined(column: str) -> list[Any] | None:
        if first[column] is None:
            return None
        values = [value for chunk in chunks for value in chunk[column]]
        return [values[index] for index in order]

    def points(column: str) -> NDArray[np.float32] | None:
        values = joined(column)
        lengths = {len(point) for point in values or ()}
        if len(lengths) > 1 or any(length % 2 for length in lengths):
            raise InputError(f"clip {clip_id}: its {column} are no pairs of numbers, or not equally many; {AGAIN}")
        return None if values is None else np.array(values, np.float32)

    keypoints = points("keypoints")
    return Clip(
        clip_id=clip_id,
        identity=first["identity"],
        split=first["split"],
        fps=first["fps"],
        source=first["source"],
        frames=joined("frames") or [],
        keypoints=None if keypoints is None else keypoints.reshape(len(keypoints), -1, 2),
        centroid=points("centroid"),
        part_masks=joined("part_masks"),
    )
