"""Shards: Parquet files of interleaved chunks, written row by row and read back by row or by clip.

    clip of 150 frames, at most 64 a chunk
      chunk 0: frames 0, 3, 6, …      chunk 1: frames 1, 4, 7, …      chunk 2: frames 2, 5, 8, …

One row is one chunk, and one row group is one row: a reader fetches the row it wants and nothing else.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from hdam.pipelines.clips import Clip
from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.manifest import Manifest, load_manifest, locate

Row = dict[str, Any]
"""One row of a shard: column name to value."""

_POINTS = pa.list_(pa.list_(pa.float32()))

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


def interleave(num_frames: int, *, max_chunk_frames: int) -> list[range]:
    """Frame indices of each chunk: as few chunks as hold `num_frames`, each spanning the whole clip."""
    num_chunks = -(-num_frames // max_chunk_frames)
    return [range(chunk, num_frames, num_chunks) for chunk in range(num_chunks)]


def write_shard(path: Path, rows: Iterable[Row], *, schema: pa.Schema = SCHEMA) -> int:
    """Write `rows` to `path` through a temporary name, one row group each; returns their count."""
    partial = path.with_name(f".{path.name}.partial")
    count = 0
    try:
        # JPEG and PNG don't shrink any further, and nobody searches shards by value.
        with pq.ParquetWriter(partial, schema, compression="NONE", use_dictionary=False, write_statistics=False) as out:
            for row in rows:
                out.write_table(pa.Table.from_pylist([row], schema=schema))
                count += 1
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
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
    with _open_shard(str(path), filesystem) as shard:
        groups = range(shard.num_row_groups) if rows is None else rows
        names = None if columns is None else list(columns)
        for batch in shard.iter_batches(batch_size=batch_rows, row_groups=list(groups), columns=names):
            yield from batch.to_pylist()


def iter_clips(dataset: str | Path, split: str | None = None, *, only: Collection[str] | None = None) -> Iterator[Clip]:
    """The clips of a dataset (of one split, or all) in the order of their ids, frames back in the order of time.

    `only`: just these clip ids. Two passes: the small columns say where the chunks lie, then one clip at a time is
    read. Raises InputError when the dataset has no such split, or a clip lacks a chunk.
    """
    manifest = load_manifest(dataset)
    filesystem, root = locate(str(dataset))
    for clip_id, places in sorted(_chunk_places(manifest, split, filesystem, root).items()):
        if only is not None and clip_id not in only:
            continue
        chunks: list[Row] = []
        for path, row in places:
            chunks.extend(read_rows(path, filesystem=filesystem, rows=[row]))
        yield _join(clip_id, chunks)


def _chunk_places(
    manifest: Manifest, split: str | None, filesystem: fs.FileSystem, root: str
) -> dict[str, list[tuple[str, int]]]:
    """Where each clip's chunks lie: clip id to (shard path, row number)."""
    places: dict[str, list[tuple[str, int]]] = {}
    for shard in manifest.shards_of(split):
        path = f"{root}/{shard.path}"
        small = read_rows(path, filesystem=filesystem, columns=["clip_id"], batch_rows=1024)
        for number, row in enumerate(small):
            places.setdefault(row["clip_id"], []).append((path, number))
    return places


def _open_shard(path: str, filesystem: fs.FileSystem) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, filesystem=filesystem)
    except FileNotFoundError as error:
        raise InputError(f"shard {path} is missing; prepare the dataset again") from error
    except pa.ArrowInvalid as error:
        raise InputError(f"shard {path} is damaged ({first_line(error)}); prepare it again") from error


def _join(clip_id: str, chunks: list[Row]) -> Clip:
    """Interleaved chunks as one clip."""
    first = chunks[0]
    if sorted(chunk["chunk"] for chunk in chunks) != list(range(first["num_chunks"])):
        raise InputError(
            f"clip {clip_id}: {len(chunks)} of its {first['num_chunks']} chunks found; prepare the dataset again"
        )
    order = np.argsort(np.concatenate([chunk["frame_index"] for chunk in chunks]))

    def joined(column: str) -> list[Any] | None:
        if first[column] is None:
            return None
        values = [value for chunk in chunks for value in chunk[column]]
        return [values[index] for index in order]

    def points(column: str) -> NDArray[np.float32] | None:
        values = joined(column)
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
