"""What this machine does in a second: training steps without Ray, decoded pairs, and written checkpoints."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from hdam.experiments.experiment import Experiment
from hdam.models.objective import build_objective
from hdam.platform.animate import best_device
from hdam.platform.checkpoints import write_checkpoint
from hdam.platform.datasets import make_bundles, steps_per_bundle, steps_per_portion
from hdam.platform.memory import keep_freed_memory
from hdam.platform.pair_plan import PairPlan
from hdam.platform.step import TrainStep

ROUNDS = 3
"""Timed steps for every share; their median counts."""
ENOUGH_SECONDS = 20.0
"""After so long no larger share is tried, where two are known."""
FITTED_SHARES = 3
"""The line goes through the largest ones, which come nearest to those of a training."""
WRITTEN_BYTES = 64 << 20


class StepTime(NamedTuple):
    """Seconds of a training step in one process, as a line over the pairs that it sees."""

    fixed_seconds: float
    pair_seconds: float
    by_share: dict[int, float]
    """What was measured: seconds by pairs."""
    device: str


def measure_steps(experiment: Experiment) -> StepTime:
    """Time whole steps on random frames: augmentation, losses, backward pass and update.

    Raises WeightsError where the perceptual network's weights are not there, and torch.OutOfMemoryError where there is
    not the memory for a single pair.
    """
    device = best_device()
    torch.set_num_threads(experiment.resources.threads_per_worker)
    keep_freed_memory()
    objective = build_objective(experiment.model, experiment.losses).to(device)
    trainer = TrainStep(experiment, objective, steps_per_epoch=1, device=device)
    shares = _affordable_shares(trainer)
    seconds: dict[int, list[float]] = {share: [] for share in shares}
    for _ in range(ROUNDS):  # by turns, so that what else goes on meets all of them
        for share in shares:
            seconds[share].append(_step_seconds(trainer, share))
    by_share = {share: statistics.median(each) for share, each in seconds.items()}
    return StepTime(*fit_line(by_share), by_share, str(device))


def fit_line(by_share: dict[int, float]) -> tuple[float, float]:
    """Fixed seconds and seconds per pair, by least squares and none below 0; of one share nothing is fixed."""
    if len(by_share) < 2:
        [(share, seconds)] = by_share.items()
        return 0.0, seconds / share
    slope, fixed = statistics.linear_regression(list(by_share), list(by_share.values()))
    if slope < 0:
        return statistics.fmean(by_share.values()), 0.0
    if fixed < 0:
        return 0.0, sum(share * each for share, each in by_share.items()) / sum(share**2 for share in by_share)
    return fixed, slope


def measure_decoding(plan: PairPlan, experiment: Experiment) -> float:
    """CPU seconds of a data task for a pair, from shard to batch, without what Ray takes to pass it on."""
    steps, bundle_steps = _portion(plan, experiment), _bundle_steps(plan, experiment)
    micro_batches = experiment.resources.workers
    next(make_bundles(plan, range(1), micro_batches=micro_batches, bundle_steps=1))  # imports, and the epoch's order
    started = time.process_time()
    for _ in make_bundles(plan, steps, micro_batches=micro_batches, bundle_steps=bundle_steps):
        pass
    return (time.process_time() - started) / (len(steps) * plan.batch_size)


def bytes_read(plan: PairPlan, experiment: Experiment) -> float:
    """Of shards, for a pair: a task reads whole rows, from which it may take few pairs."""
    steps = _portion(plan, experiment)
    rows = {int(row) for step in steps for row, _ in plan.step_pairs(step)[1]}
    return sum(plan.rows[row].num_bytes for row in rows) / (len(steps) * plan.batch_size)


def measure_writing(folder: Path) -> float:
    """Bytes in a second of a checkpoint in a new folder in `folder`, checksum and flush to disk included."""
    with tempfile.TemporaryDirectory(prefix=".hdam-plan-", dir=folder) as place:
        state = {"bytes": torch.zeros(WRITTEN_BYTES, dtype=torch.uint8)}
        started = time.perf_counter()
        write_checkpoint(Path(place), state, step=0, keep=1)
        return WRITTEN_BYTES / (time.perf_counter() - started)


def _affordable_shares(trainer: TrainStep) -> list[int]:
    """The largest of 1, 2, 4, … and the whole batch that are not too much for this device; each has been tried once."""
    whole = trainer.experiment.optim.batch_size
    shares: list[int] = []
    started = time.perf_counter()
    while not shares or (shares[-1] < whole and (len(shares) < 2 or time.perf_counter() - started < ENOUGH_SECONDS)):
        share = min(whole, 2 * shares[-1] if shares else 1)
        try:
            _step_seconds(trainer, share)
        except torch.OutOfMemoryError:
            if not shares:
                raise
            break
        shares.append(share)
    torch.cuda.empty_cache()  # of what a share that was too much has left
    return shares[-FITTED_SHARES:]


def _step_seconds(trainer: TrainStep, share: int) -> float:
    size = trainer.experiment.data.size
    batch = {name: torch.randint(256, (share, size, size, 3), dtype=torch.uint8) for name in ("source", "driving")}
    started = time.perf_counter()
    trainer(batch)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _bundle_steps(plan: PairPlan, experiment: Experiment) -> int:
    return steps_per_bundle(plan.batch_size // experiment.resources.workers, plan.size)


def _portion(plan: PairPlan, experiment: Experiment) -> range:
    """The steps that a data task makes from its first reading."""
    return range(steps_per_portion(plan, _bundle_steps(plan, experiment), experiment.resources))
