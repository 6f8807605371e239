"""Which pairs are trained on, in which order: the whole training as one sequence of steps, known before it begins.

    epoch    the rows of all shards, in an order of its own
      group  rows that fit into memory together; their pairs are shuffled among each other
        step   the next `batch_size` pairs

Everything follows from (seed, epoch), so that any step can be made anywhere and again: a training that goes on from a
checkpoint sees the very pairs that it would have seen.
"""

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hdam.experiments.experiment import DataConfig
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import Manifest, Shard, locate
from hdam.pipelines.pairs import is_chosen, num_pairs_of_chunk
from hdam.pipelines.seeds import stable_hash
from hdam.pipelines.shards import read_rows

GROUP_BYTES = 128 << 20
"""Encoded frames that are shuffled together. A task reads one or two groups, and keeps of them what it needs."""

READERS = 16
"""Shards that are opened at once: each waits for its filesystem, which may be far away."""

INDEX_COLUMNS = ("clip_id", "identity", "chunk", "num_chunks", "chunk_rank", "num_identity_chunks")


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRow:
    """One row of a shard without its frames."""

    shard: int
    number: int
    """Within the shard."""
    num_bytes: float
    clip_id: str
    identity: str
    chunk: int
    num_chunks: int
    chunk_rank: int
    num_identity_chunks: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PairPlan:
    """The order of all pairs of a training."""

    dataset: str
    """Path or URI."""
    shards: tuple[str, ...]
    rows: tuple[IndexRow, ...]
    size: int
    repeats: int
    is_by_identity: bool
    batch_size: int
    seed: int

    @property
    def pairs_per_epoch(self) -> int:
        """`repeats` pairs from every clip, or from every identity."""
        seen = {row.identity if self.is_by_identity else row.clip_id for row in self.rows}
        return self.repeats * len(seen)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.pairs_per_epoch // self.batch_size

    def num_pairs(self, row: int, epoch: int) -> int:
        """Pairs drawn from a row in an epoch; 0 where the epoch leaves it out."""
        place = self.rows[row]
        if not self.is_by_identity:
            return num_pairs_of_chunk(self.repeats, place.chunk, place.num_chunks, epoch=epoch)
        is_seen = is_chosen(place.identity, epoch, self.seed, place.chunk_rank, place.num_identity_chunks)
        return self.repeats if is_seen else 0

    def step_pairs(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """Epoch of a step, and its pairs: [batch_size, 2] of (row, number of the pair among that row's)."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        start = batch * self.batch_size
        return epoch, epoch_pairs(self, epoch)[start : start + self.batch_size]


@functools.lru_cache(maxsize=2)
def epoch_pairs(plan: PairPlan, epoch: int) -> NDArray[np.int64]:
    """All pairs of an epoch in the order of training: [pair, 2] of (row, number of the pair among that row's)."""
    rng = np.random.default_rng(stable_hash("order", plan.seed, epoch))
    shard_of_row = np.array([row.shard for row in plan.rows])
    num_pairs = np.array([plan.num_pairs(row, epoch) for row in range(len(plan.rows))])
    # Shard by shard, so that a group reads from few files; inside a shard in any order.
    order = np.lexsort((rng.random(len(plan.rows)), rng.random(len(plan.shards))[shard_of_row]))
    order = order[num_pairs[order] > 0]
    counts = num_pairs[order]
    group = np.cumsum([plan.rows[row].num_bytes for row in order]) // GROUP_BYTES
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    pairs = np.stack([np.repeat(order, counts), number], axis=1)
    return pairs[np.lexsort((rng.random(len(pairs)), np.repeat(group, counts)))]


def make_plan(data: DataConfig, manifest: Manifest, *, batch_size: int, seed: int) -> PairPlan:
    """Read the small columns of all training shards. Raises InputError when an epoch has less than one batch."""
    filesystem, root = locate(data.path)
    shards = manifest.shards_of("train")

    def index_of(index: int, shard: Shard) -> list[IndexRow]:
        small = read_rows(f"{root}/{shard.path}", filesystem=filesystem, columns=INDEX_COLUMNS, batch_rows=1024)
        num_bytes = shard.num_bytes / max(1, shard.rows)
        return [IndexRow(shard=index, number=number, num_bytes=num_bytes, **row) for number, row in enumerate(small)]

    with ThreadPoolExecutor(READERS) as readers:
        rows = [row for part in readers.map(index_of, range(len(shards)), shards) for row in part]
    plan = PairPlan(
        dataset=data.path,
        shards=tuple(shard.path for shard in shards),
        rows=tuple(rows),
        size=data.size,
        repeats=data.repeats,
        is_by_identity=data.identity,
        batch_size=batch_size,
        seed=seed,
    )
    if plan.steps_per_epoch < 1:
        raise InputError(
            f"an epoch has {plan.pairs_per_epoch} pairs, less than optim.batch_size={batch_size}; "
            "raise data.repeats or lower optim.batch_size"
        )
    return plan
