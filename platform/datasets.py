"""The training data: one Ray Data stream for all that is left of a training, without a break between epochs.

One task makes the batches of some consecutive steps: it reads the rows they need, decodes the drawn frames, and yields
one row of the stream per worker and step. That row IS the worker's batch. With order kept, row i of a step always goes
to worker i: no pair is seen twice, and every worker takes the same number of steps.
"""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
import ray.data
import ray.train
from numpy.typing import NDArray

from hdam.experiments.experiment import DataConfig
from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import decode_frame
from hdam.pipelines.manifest import Manifest, load_manifest, locate, verify_shards
from hdam.pipelines.pairs import draw_pairs, pair_rng
from hdam.pipelines.shards import read_rows
from hdam.platform.pair_plan import PairPlan, rows_of

PAIRS_PER_TASK = 512
"""A task reads up to a group of rows, so it should be worth it; the first batches come before it ends."""

MAX_TASKS = 4000

CHECKSUM_BYTES = 4 << 30
"""Datasets up to this size are read once and held against their checksums; of larger ones only the sizes are."""

Batch = dict[str, NDArray[Any]]
"""`source` and `driving`, uint8 [1, pair, height, width, 3] RGB, and the `step` that they are for."""


def open_dataset(data: DataConfig) -> Manifest:
    """The manifest of the dataset to train on.

    Raises InputError when no dataset is named, it is missing or has another size, it has nothing to train on, or a
    shard does not match the manifest.
    """
    if not data.path:
        raise InputError("no dataset given; set data.path: --set data.path=DATASET")
    manifest = load_manifest(data.path)
    size = manifest.options.get("size")
    if size != data.size:
        raise InputError(f"{data.path} was prepared at size {size}, but data.size={data.size}; make them agree")
    if not manifest.shards_of("train"):
        raise InputError(f"{data.path} has no clips to train on; prepare it with more identities")
    is_small = sum(shard.num_bytes for shard in manifest.shards) <= CHECKSUM_BYTES
    verify_shards(data.path, manifest, depth="checksums" if is_small else "sizes")
    return manifest


def stream(plan: PairPlan, *, first_step: int, last_step: int, workers: int, data_cpus: float) -> ray.data.Dataset:
    """The batches of steps `first_step` to `last_step` (left out), for all workers."""
    num_steps = last_step - first_step
    steps_per_task = max(1, PAIRS_PER_TASK // plan.batch_size, -(-num_steps // MAX_TASKS))
    num_tasks = -(-num_steps // steps_per_task)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # One byte: every row of the stream is a block of its own, so that rows go round the workers one by one.
    context.target_max_block_size = 1

    def make_batches(tasks: dict[str, Any]) -> Iterator[Batch]:
        for task in tasks["id"]:
            start = first_step + int(task) * steps_per_task
            yield from read_batches(plan, range(start, min(start + steps_per_task, last_step)), workers=workers)

    numbers = ray.data.range(num_tasks, override_num_blocks=num_tasks)
    return numbers.map_batches(make_batches, batch_size=1, num_cpus=min(1.0, data_cpus))


def ingest_config() -> ray.train.DataConfig:
    """How the stream is split over the workers: in order."""
    return ray.train.DataConfig(execution_options=ray.data.ExecutionOptions(preserve_order=True))


def read_batches(plan: PairPlan, steps: range, *, workers: int) -> Iterator[Batch]:
    """The batches of some steps: for each step, one per worker."""
    planned = [plan.step_pairs(step) for step in steps]
    frames = _read_frames(plan, rows_of([pairs for _, pairs in planned]))

    @functools.cache
    def drawn(row: int, epoch: int) -> NDArray[np.int64]:
        place = plan.rows[row]
        rng = pair_rng(plan.seed, epoch, place.clip_id, place.chunk)
        return draw_pairs(len(frames[row]), num_pairs=plan.num_pairs(row, epoch), rng=rng)

    for step, (epoch, pairs) in zip(steps, planned, strict=True):
        for share in np.split(pairs, workers):
            places = [(int(row), drawn(int(row), epoch)[number]) for row, number in share]
            yield {
                "step": np.array([step]),
                "source": _decode(plan.size, [frames[row][pair[0]] for row, pair in places]),
                "driving": _decode(plan.size, [frames[row][pair[1]] for row, pair in places]),
            }


def _read_frames(plan: PairPlan, rows: list[int]) -> dict[int, list[bytes]]:
    """The encoded frames of some rows, by row."""
    filesystem, root = locate(plan.dataset)
    frames: dict[int, list[bytes]] = {}
    for shard, path in enumerate(plan.shards):
        wanted = [row for row in rows if plan.rows[row].shard == shard]
        if wanted:
            numbers = [plan.rows[row].number for row in wanted]
            found = read_rows(f"{root}/{path}", filesystem=filesystem, columns=["frames"], rows=numbers)
            frames.update({row: content["frames"] for row, content in zip(wanted, found, strict=True)})
    return frames


def _decode(size: int, encoded: list[bytes]) -> NDArray[np.uint8]:
    batch = np.empty((1, len(encoded), size, size, 3), np.uint8)
    for place, data in zip(batch[0], encoded, strict=True):
        place[:] = decode_frame(data)
    return batch


def batches_of_worker(*, first_step: int, prefetch_batches: int) -> Iterator[dict[str, Any]]:
    """This worker's batches as torch tensors, uint8 [pair, height, width, 3]; to be called inside a worker.

    The stream may have been begun a little before `first_step`, where a checkpoint appeared meanwhile.
    """
    shard = ray.train.get_dataset_shard("train")
    for batch in shard.iter_torch_batches(batch_size=1, prefetch_batches=prefetch_batches):
        if batch.pop("step").item() >= first_step:
            yield {name: pixels[0] for name, pixels in batch.items()}
