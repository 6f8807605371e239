"""From stored clips to a dataset: their chunks are dealt out to shards and counted.

The second of two passes, because a row says how many chunks its identity has, and a shard mixes identities: both are
known only when the last clip has been read. One row at a time is in memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from pyarrow import fs

from hdam.pipelines.clips import Split
from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import arriving, is_local, locate
from hdam.pipelines.manifest import SCHEMA_VERSION, Counts, Manifest, Shard, fingerprint_of, sha256_of
from hdam.pipelines.shards import Row, write_rows
from hdam.pipelines.splits import StoredChunk, chunk_ranks, plan_shards
from hdam.pipelines.stored import STORE_SCHEMA
from hdam.pipelines.tasks import Lost, RunTasks, in_turn

__all__ = ["STORE_SCHEMA", "ShardTask", "assemble", "write_dealt"]

OPEN_CLIPS = 16
"""Stored clips that a shard keeps open: the footer of a long one takes a while to read."""


class _Dealt(NamedTuple):
    chunk: StoredChunk
    rank: int
    num_identity_chunks: int


class ShardTask(NamedTuple):
    """One shard to write."""

    dataset: str
    path: str
    """Relative to the dataset."""
    split: Split
    dealt: list[_Dealt]

    @property
    def num_bytes(self) -> int:
        """How much there is to copy."""
        return sum(entry.chunk.num_bytes for entry in self.dealt)


def assemble(
    dataset: str | Path,
    chunks: Sequence[StoredChunk],
    *,
    splits: Mapping[str, Split],
    name: str,
    options: Mapping[str, Any],
    seed: int,
    inputs: str | None = None,
    run_tasks: RunTasks = in_turn,
    on_shard: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Deal the stored chunks out to shards in `dataset`/shards; `splits` says where each identity belongs.

    `on_shard` takes how many shards are written, and of how many. The manifest is not written.
    """
    filesystem, root = locate(str(dataset))
    if is_local(filesystem):
        filesystem.create_dir(f"{root}/shards", recursive=True)
    tasks = _shard_tasks(str(dataset), chunks, splits, seed)
    written: dict[str, Shard] = {}
    for result in run_tasks(write_dealt, tasks):
        if isinstance(result, Lost):
            raise InputError(f"{dataset}: {tasks[result.number].path} could not be written; {result.reason}")
        written[result.path] = result
        if on_shard is not None:
            on_shard(len(written), len(tasks))
    shards = tuple(written[task.path] for task in tasks)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        fingerprint=fingerprint_of(options, shards),
        options=dict(options),
        counts=_counts(chunks, shards),
        splits={
            split: _counts(
                [chunk for chunk in chunks if splits[chunk.identity] == split],
                [shard for shard in shards if shard.split == split],
            )
            for split in sorted({task.split for task in tasks})
        },
        shards=shards,
        inputs=inputs,
    )


def write_dealt(task: ShardTask) -> Shard:
    """Write one shard to its place."""
    filesystem, root = locate(task.dataset)
    with arriving(filesystem, f"{root}/{task.path}") as partial:
        write_rows(partial, _complete(task))
        return Shard(
            path=task.path,
            split=task.split,
            rows=len(task.dealt),
            num_bytes=partial.stat().st_size,
            sha256=sha256_of(str(partial), filesystem=fs.LocalFileSystem()),
        )


def _shard_tasks(
    dataset: str, chunks: Sequence[StoredChunk], splits: Mapping[str, Split], seed: int
) -> list[ShardTask]:
    ranks = chunk_ranks(chunks)
    tasks = []
    for split in sorted({splits[chunk.identity] for chunk in chunks}):
        plan = plan_shards([chunk for chunk in chunks if splits[chunk.identity] == split], seed=seed)
        for number, own in enumerate(plan):
            dealt = [_Dealt(chunk, *ranks[chunk.clip_id, chunk.chunk]) for chunk in own]
            path = f"shards/{split}-{number:05d}-of-{len(plan):05d}.parquet"
            tasks.append(ShardTask(dataset, path, split, dealt))
    return tasks


def _complete(task: ShardTask) -> Iterator[Row]:
    """The rows of a shard, with the columns that were still missing."""

    @lru_cache(maxsize=OPEN_CLIPS)
    def opened(address: str) -> pq.ParquetFile:
        filesystem, path = locate(address)
        return pq.ParquetFile(path, filesystem=filesystem)

    for chunk, rank, num_identity_chunks in task.dealt:
        (row,) = opened(str(chunk.path)).read_row_group(chunk.chunk).to_pylist()
        yield {**row, "split": task.split, "chunk_rank": rank, "num_identity_chunks": num_identity_chunks}


def _counts(chunks: Sequence[StoredChunk], shards: Sequence[Shard]) -> Counts:
    return Counts(
        clips=len({chunk.clip_id for chunk in chunks}),
        identities=len({chunk.identity for chunk in chunks}),
        rows=len(chunks),
        frames=sum(chunk.num_frames for chunk in chunks),
        num_bytes=sum(shard.num_bytes for shard in shards),
    )
