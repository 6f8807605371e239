"""From encoded clips to a dataset: chunks wait in one file per clip, then are dealt out to shards and counted.

Two passes, because a row says how many chunks its identity has, and a shard mixes identities: both are known only when
the last clip has been read. Either pass holds one clip or one row in memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from hdam.pipelines.clips import SourceClip, Split
from hdam.pipelines.encode import EncodeOptions, encode_clip
from hdam.pipelines.manifest import SCHEMA_VERSION, Counts, Manifest, Shard, fingerprint_of, sha256_of
from hdam.pipelines.shards import SCHEMA, Row, read_rows, write_shard
from hdam.pipelines.splits import StoredChunk, chunk_ranks, plan_shards

_LATE_COLUMNS = frozenset({"split", "chunk_rank", "num_identity_chunks"})
STORE_SCHEMA = pa.schema([field for field in SCHEMA if field.name not in _LATE_COLUMNS])
"""A row before the whole dataset is known."""


def store_clip(clip: SourceClip, path: Path, *, options: EncodeOptions) -> list[StoredChunk]:
    """Encode one clip into the file `path`, one row per chunk. Raises InputError when the clip is unusable."""
    rows = encode_clip(clip, options)
    write_shard(path, rows, schema=STORE_SCHEMA)
    return [
        StoredChunk(
            path=path,
            clip_id=clip.clip_id,
            identity=clip.identity,
            chunk=row["chunk"],
            num_frames=len(row["frames"]),
            num_bytes=sum(map(len, row["frames"])),
        )
        for row in rows
    ]


def assemble(
    folder: Path,
    chunks: Sequence[StoredChunk],
    *,
    splits: Mapping[str, Split],
    name: str,
    options: Mapping[str, Any],
    seed: int,
) -> Manifest:
    """Deal the stored chunks out to shards in `folder/shards`; `splits` says where each identity belongs."""
    (folder / "shards").mkdir()
    ranks = chunk_ranks(chunks)
    shards: list[Shard] = []
    counts: dict[str, Counts] = {}
    for split in sorted({splits[chunk.identity] for chunk in chunks}):
        own = [chunk for chunk in chunks if splits[chunk.identity] == split]
        plan = plan_shards(own, seed=seed)
        for number, dealt in enumerate(plan):
            path = folder / "shards" / f"{split}-{number:05d}-of-{len(plan):05d}.parquet"
            write_shard(path, _complete(dealt, split, ranks))
            shards.append(_shard(folder, path, split, len(dealt)))
        counts[split] = _counts(own, [shard for shard in shards if shard.split == split])
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        fingerprint=fingerprint_of(options, shards),
        options=dict(options),
        counts=_counts(chunks, shards),
        splits=counts,
        shards=tuple(shards),
    )


def _complete(
    dealt: Sequence[StoredChunk], split: Split, ranks: Mapping[tuple[str, int], tuple[int, int]]
) -> Iterator[Row]:
    """The rows of a shard, with the columns that were still missing."""
    for chunk in dealt:
        rank, num_identity_chunks = ranks[chunk.clip_id, chunk.chunk]
        for row in read_rows(chunk.path, rows=[chunk.chunk]):
            yield {**row, "split": split, "chunk_rank": rank, "num_identity_chunks": num_identity_chunks}


def _shard(folder: Path, path: Path, split: Split, num_rows: int) -> Shard:
    return Shard(
        path=path.relative_to(folder).as_posix(),
        split=split,
        rows=num_rows,
        num_bytes=path.stat().st_size,
        sha256=sha256_of(str(path), filesystem=fs.LocalFileSystem()),
    )


def _counts(chunks: Sequence[StoredChunk], shards: Sequence[Shard]) -> Counts:
    return Counts(
        clips=len({chunk.clip_id for chunk in chunks}),
        identities=len({chunk.identity for chunk in chunks}),
        rows=len(chunks),
        frames=sum(chunk.num_frames for chunk in chunks),
        num_bytes=sum(shard.num_bytes for shard in shards),
    )
