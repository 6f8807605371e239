"""The training data: one Ray Data stream for all that is left of a training, without a break between epochs.

One task makes the batches of some consecutive steps: it reads the rows they need and decodes the drawn frames. What it
yields, a bundle, is one row of the stream and holds one micro-batch of each of a few steps:

    bundle 0: micro-batch 0, steps 0…3    bundle 1: micro-batch 1, steps 0…3    bundle 2: micro-batch 0, steps 4…7    …

A step has `resources.workers` of them, however many workers are left of these: with order kept, bundles go round the
workers, so that no pair is seen twice, and every worker takes the same number of micro-batches of every step.
"""

import functools
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray
import ray.data
import ray.train
from numpy.typing import NDArray
from ray.data._internal.execution.execution_callback import ExecutionCallback

from hdam.experiments.experiment import DataConfig, Experiment, ResourceConfig
from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import decode_into
from hdam.pipelines.manifest import Manifest, load_manifest, locate, verify_shard
from hdam.pipelines.pairs import draw_pairs, pair_rng
from hdam.pipelines.shards import read_rows
from hdam.platform.memory import keep_freed_memory
from hdam.platform.pair_plan import READERS, PairPlan

PORTION_BYTES = 256 << 20
"""Decoded frames that a task makes from one reading: it reads a group of rows, so that it should be worth it."""

BUNDLE_BYTES = 32 << 20
MAX_BUNDLE_STEPS = 32
"""Ray Data takes some ten blocks a second from a task, whatever their size: small batches have to go together."""

MAX_TASKS = 200_000
"""Ray remembers some thousand bytes for each."""

MIB = 1 << 20

REST_SECONDS = 0.05

CHECKSUM_BYTES = 4 << 30
"""Datasets up to this size are read once and held against their checksums; of larger ones only the sizes are."""

Bundle = dict[str, NDArray[Any]]
"""`source` and `driving`, uint8 [1, step, pair, height, width, 3] RGB, and the number of the first `step`."""

PairKey = tuple[int, int, int]
"""Epoch, row, and number of the pair among those drawn from the row."""
EncodedPair = tuple[bytes, bytes]
"""Source and driving as they are stored."""


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
    filesystem, root = locate(data.path)
    check = functools.partial(verify_shard, root, filesystem=filesystem, depth="checksums" if is_small else "sizes")
    with ThreadPoolExecutor(READERS) as readers:
        for _ in readers.map(check, manifest.shards):
            pass
    return manifest


def stream(plan: PairPlan, *, first_step: int, last_step: int, resources: ResourceConfig) -> ray.data.Dataset:
    """The batches of steps `first_step` to `last_step` (left out), for any number of workers that divides."""
    micro_batches = resources.workers
    bundle_steps = steps_per_bundle(plan.batch_size // micro_batches, plan.size)
    portion_steps = steps_per_portion(plan, bundle_steps, resources)
    portions_per_task = max(1, -(-(last_step - first_step) // (portion_steps * MAX_TASKS)))
    starts = range(first_step, last_step, portion_steps * portions_per_task)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # One byte: every bundle is a block of its own, so that bundles go round the workers one by one.
    context.target_max_block_size = 1
    context.custom_execution_callback_classes = [Rest]
    context.execution_no_progress_timeout_s = -1  # steps may be slow, and a store may be away
    stored_plan = ray.put(plan)

    def begin_tasks(_: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for start in starts:
            yield {"start": np.array([start])}

    def run_task(tasks: dict[str, Any]) -> Iterator[Bundle]:
        keep_freed_memory()
        fetched = _fetch_plan(stored_plan)
        for start in range(int(tasks["start"][0]), min(int(tasks["start"][0]) + starts.step, last_step), portion_steps):
            steps = range(start, min(start + portion_steps, last_step))
            yield from make_bundles(fetched, steps, micro_batches=micro_batches, bundle_steps=bundle_steps)

    # The tasks are begun by a task of their own: to list all of a long training at once takes Ray half a minute.
    beginning = ray.data.from_items([{"from": first_step}]).map_batches(begin_tasks, batch_size=1, num_cpus=0)
    return beginning.map_batches(run_task, batch_size=1, num_cpus=min(1.0, resources.data_cpus))


@functools.lru_cache(maxsize=1)
def _fetch_plan(stored: "ray.ObjectRef[PairPlan]") -> PairPlan:
    """The plan, once for all tasks of a process: it may be large, and remembers the order of an epoch."""
    return ray.get(stored)


class Rest(ExecutionCallback):
    """A pause between two turns of Ray Data's control loop, which spins on full buffers: it took 0.7 of a core."""

    def on_execution_step(self, executor: Any) -> None:  # noqa: ARG002 - Ray's signature
        """Called by Ray at the end of every turn."""
        time.sleep(REST_SECONDS)


def ingest_config(resources: ResourceConfig) -> ray.train.DataConfig:
    """How the stream is split over the workers: in order, and within the limits that `resources` sets."""
    limits = ray.data.ExecutionResources.for_limits(
        cpu=resources.data_cpus, object_store_memory=resources.data_memory_mib * MIB
    )
    options = ray.data.ExecutionOptions(preserve_order=True, resource_limits=limits)
    return ray.train.DataConfig(execution_options=options)


def steps_per_portion(plan: PairPlan, bundle_steps: int, resources: ResourceConfig) -> int:
    """How many steps a task makes from one reading: as many as fit when all tasks are as far, in whole bundles."""
    step_bytes = plan.batch_size * 2 * plan.size**2 * 3
    tasks = math.ceil(resources.data_cpus) + 1
    portion_bytes = min(PORTION_BYTES, resources.data_memory_mib * MIB // tasks)
    return bundle_steps * max(1, portion_bytes // (bundle_steps * step_bytes))


def steps_per_bundle(pairs: int, size: int) -> int:
    """How many micro-batches, of so many pairs of so many pixels squared, make a bundle."""
    batch_bytes = pairs * 2 * size**2 * 3
    return min(MAX_BUNDLE_STEPS, max(1, BUNDLE_BYTES // batch_bytes))


def make_bundles(plan: PairPlan, steps: range, *, micro_batches: int, bundle_steps: int) -> Iterator[Bundle]:
    """The bundles of some steps: for each `bundle_steps` of them, the last ones perhaps fewer, one per micro-batch."""
    planned = [plan.step_pairs(step) for step in steps]
    frames = _read_pairs(plan, planned)
    for start in range(0, len(steps), bundle_steps):
        part = planned[start : start + bundle_steps]
        for index in range(micro_batches):
            batches = [
                [frames[epoch, int(row), int(number)] for row, number in np.split(pairs, micro_batches)[index]]
                for epoch, pairs in part
            ]
            yield {
                "step": np.array([steps[start]]),
                "source": _decode(plan.size, [[source for source, _ in batch] for batch in batches]),
                "driving": _decode(plan.size, [[driving for _, driving in batch] for batch in batches]),
            }


def _read_pairs(plan: PairPlan, planned: Sequence[tuple[int, NDArray[np.int64]]]) -> dict[PairKey, EncodedPair]:
    """The encoded frames of all pairs of some steps. Of a row, nothing else is kept."""
    wanted: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for epoch, pairs in planned:
        for row, number in pairs.tolist():
            wanted[row].add((epoch, number))
    rows_of_shard: dict[int, list[int]] = defaultdict(list)
    for row in sorted(wanted):
        rows_of_shard[plan.rows[row].shard].append(row)
    filesystem, root = locate(plan.dataset)
    found: dict[PairKey, EncodedPair] = {}
    for shard, rows in rows_of_shard.items():
        numbers = [plan.rows[row].number for row in rows]
        path = f"{root}/{plan.shards[shard]}"
        contents = read_rows(path, filesystem=filesystem, columns=["frames"], rows=numbers, batch_rows=1)
        for row, content in zip(rows, contents, strict=True):
            frames = content["frames"]
            drawn = {epoch: _draw(plan, row, epoch, len(frames)) for epoch in {epoch for epoch, _ in wanted[row]}}
            for epoch, number in wanted[row]:
                source, driving = drawn[epoch][number]
                found[epoch, row, number] = frames[source], frames[driving]
    return found


def _draw(plan: PairPlan, row: int, epoch: int, num_frames: int) -> NDArray[np.int64]:
    """[pair, 2] frame indices of a row in an epoch."""
    place = plan.rows[row]
    rng = pair_rng(plan.seed, epoch, place.clip_id, place.chunk)
    return draw_pairs(num_frames, num_pairs=plan.num_pairs(row, epoch), rng=rng)


def _decode(size: int, batches: list[list[bytes]]) -> NDArray[np.uint8]:
    """[1, batch, frame, size, size, 3]"""
    pixels = np.empty((1, len(batches), len(batches[0]), size, size, 3), np.uint8)
    for place, batch in zip(pixels[0], batches, strict=True):
        for image, data in zip(place, batch, strict=True):
            decode_into(data, image)
    return pixels


def batches_of_worker(experiment: Experiment, *, first_step: int) -> Iterator[dict[str, Any]]:
    """This worker's shares of batches as torch tensors, uint8 [pair, height, width, 3]; to be called inside a worker.

    A share is one micro-batch after the other, see `TrainStep`. The stream may have been begun a little before
    `first_step`, where a checkpoint appeared meanwhile.
    """
    micro_batches = experiment.resources.workers
    pairs = experiment.optim.batch_size // micro_batches
    prefetched = -(-experiment.resources.prefetch_batches // steps_per_bundle(pairs, experiment.data.size))
    return unpack(
        ray.train.get_dataset_shard("train"),
        prefetch_bundles=prefetched,
        first_step=first_step,
        micro_batches=micro_batches // ray.train.get_context().get_world_size(),
    )


def unpack(
    share: ray.data.DataIterator, *, prefetch_bundles: int, first_step: int, micro_batches: int = 1
) -> Iterator[dict[str, Any]]:
    """What one worker takes of the batches from `first_step` on: so many micro-batches of each step.

    Raises RuntimeError where a step is missing, as where the stream was begun for a newer checkpoint than was found.
    """
    for bundles in share.iter_torch_batches(batch_size=micro_batches, prefetch_batches=prefetch_bundles):
        start = int(bundles["step"][0].item())
        if start > first_step or (bundles["step"] != start).any():
            raise RuntimeError(f"the stream of data is at step {start}, the training at {first_step}")
        skipped, first_step = first_step - start, max(first_step, start + bundles["source"].shape[1])
        for step in range(skipped, bundles["source"].shape[1]):
            yield {name: bundles[name][:, step].flatten(0, 1) for name in ("source", "driving")}
