"""The training data: one Ray Data stream for all that is left of a training, without a break between epochs.

One task makes the batches of some consecutive steps: it reads the rows they need and decodes the drawn frames. What it
yields, a bundle, is one row of the stream and holds one worker's batches of a few steps:

    bundle 0: worker 0, steps 0…3    bundle 1: worker 1, steps 0…3    bundle 2: worker 0, steps 4…7    …

With order kept, bundles go round the workers: no pair is seen twice, and every worker takes the same number of steps.
"""

import functools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
import ray.data
import ray.train
from numpy.typing import NDArray
from ray.data._internal.execution.execution_callback import ExecutionCallback

from hdam.experiments.experiment import DataConfig, Experiment
from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import decode_frame
from hdam.pipelines.manifest import Manifest, load_manifest, locate, verify_shards
from hdam.pipelines.pairs import draw_pairs, pair_rng
from hdam.pipelines.shards import read_rows
from hdam.platform.pair_plan import PairPlan, rows_of

PAIRS_PER_TASK = 2048
"""A task reads up to a group of rows, so it should be worth it; the first batches come before it ends."""

BUNDLE_BYTES = 32 << 20
MAX_BUNDLE_STEPS = 32
"""Ray Data takes some ten blocks a second from a task, whatever their size: small batches have to go together."""

MAX_TASKS = 4000

REST_SECONDS = 0.05

CHECKSUM_BYTES = 4 << 30
"""Datasets up to this size are read once and held against their checksums; of larger ones only the sizes are."""

Bundle = dict[str, NDArray[Any]]
"""`source` and `driving`, uint8 [1, step, pair, height, width, 3] RGB, and the number of the first `step`."""


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
    bundle_steps = steps_per_bundle(plan.batch_size // workers, plan.size)
    bundles_per_task = max(PAIRS_PER_TASK // (bundle_steps * plan.batch_size), num_steps // (bundle_steps * MAX_TASKS))
    steps_per_task = bundle_steps * (1 + bundles_per_task)
    num_tasks = max(1, -(-num_steps // steps_per_task))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # One byte: every bundle is a block of its own, so that bundles go round the workers one by one.
    context.target_max_block_size = 1
    context.custom_execution_callback_classes = [Rest]

    def run_task(tasks: dict[str, Any]) -> Iterator[Bundle]:
        for task in tasks["id"]:
            start = first_step + int(task) * steps_per_task
            steps = range(start, min(start + steps_per_task, last_step))
            yield from make_bundles(plan, steps, workers=workers, bundle_steps=bundle_steps)

    # Not `range`: its read tasks want a whole CPU each, which never gets free where `data_cpus` is less.
    numbers = ray.data.from_items([{"id": task} for task in range(num_tasks)], override_num_blocks=num_tasks)
    return numbers.map_batches(run_task, batch_size=1, num_cpus=min(1.0, data_cpus))


class Rest(ExecutionCallback):
    """A pause between two turns of Ray Data's control loop, which spins on full buffers: it took 0.7 of a core."""

    def on_execution_step(self, executor: Any) -> None:  # noqa: ARG002 - Ray's signature
        """Called by Ray at the end of every turn."""
        time.sleep(REST_SECONDS)


def ingest_config() -> ray.train.DataConfig:
    """How the stream is split over the workers: in order."""
    return ray.train.DataConfig(execution_options=ray.data.ExecutionOptions(preserve_order=True))


def steps_per_bundle(pairs: int, size: int) -> int:
    """How many of a worker's batches, of so many pairs of so many pixels squared, make a bundle."""
    batch_bytes = pairs * 2 * size**2 * 3
    return min(MAX_BUNDLE_STEPS, max(1, BUNDLE_BYTES // batch_bytes))


def make_bundles(plan: PairPlan, steps: range, *, workers: int, bundle_steps: int) -> Iterator[Bundle]:
    """The bundles of some steps: for each `bundle_steps` of them, the last ones perhaps fewer, one per worker."""
    planned = {step: plan.step_pairs(step) for step in steps}
    frames = _read_frames(plan, rows_of([pairs for _, pairs in planned.values()]))

    @functools.cache
    def drawn(row: int, epoch: int) -> NDArray[np.int64]:
        place = plan.rows[row]
        rng = pair_rng(plan.seed, epoch, place.clip_id, place.chunk)
        return draw_pairs(len(frames[row]), num_pairs=plan.num_pairs(row, epoch), rng=rng)

    def encoded(step: int, worker: int) -> list[tuple[bytes, bytes]]:
        epoch, pairs = planned[step]
        share = [(int(row), drawn(int(row), epoch)[number]) for row, number in np.split(pairs, workers)[worker]]
        return [(frames[row][source], frames[row][driving]) for row, (source, driving) in share]

    for start in range(0, len(steps), bundle_steps):
        part = steps[start : start + bundle_steps]
        for worker in range(workers):
            batches = [encoded(step, worker) for step in part]
            yield {
                "step": np.array([part[0]]),
                "source": _decode(plan.size, [[source for source, _ in batch] for batch in batches]),
                "driving": _decode(plan.size, [[driving for _, driving in batch] for batch in batches]),
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


def _decode(size: int, batches: list[list[bytes]]) -> NDArray[np.uint8]:
    """[1, batch, frame, size, size, 3]"""
    pixels = np.empty((1, len(batches), len(batches[0]), size, size, 3), np.uint8)
    for place, batch in zip(pixels[0], batches, strict=True):
        for image, data in zip(place, batch, strict=True):
            image[:] = decode_frame(data)
    return pixels


def batches_of_worker(experiment: Experiment, *, first_step: int) -> Iterator[dict[str, Any]]:
    """This worker's batches as torch tensors, uint8 [pair, height, width, 3]; to be called inside a worker.

    The stream may have been begun a little before `first_step`, where a checkpoint appeared meanwhile.
    """
    pairs = experiment.optim.batch_size // experiment.resources.workers
    bundle_steps = steps_per_bundle(pairs, experiment.data.size)
    shard = ray.train.get_dataset_shard("train")
    prefetched = -(-experiment.resources.prefetch_batches // bundle_steps)
    for bundle in shard.iter_torch_batches(batch_size=1, prefetch_batches=prefetched):
        skipped = max(0, first_step - bundle["step"].item())
        for source, driving in zip(bundle["source"][0][skipped:], bundle["driving"][0][skipped:], strict=True):
            yield {"source": source, "driving": driving}
