"""What a sweep would cost, from the speed at which earlier trainings saw their pairs."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from hdam.platform import tracking
from hdam.platform.checkpoints import newest_checkpoint, read_seal
from hdam.platform.runs import PROGRESS_NAME, STAGES_DIR
from hdam.platform.stages import Stage
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.tune.shared import is_finished


class Speed(NamedTuple):
    """How fast a training was."""

    pairs_per_second: float
    """Of all workers together."""
    workers: int
    folder: Path
    """The stage that it was measured in."""


class Cost(NamedTuple):
    """An estimate, of the trainings alone."""

    shared_seconds: float
    trials_seconds: float
    """Of all trials, as many at a time as there will be."""
    measured_in: tuple[Path, ...]
    unknown: tuple[str, ...]
    """Kinds of stages of which nothing was measured, and which are not in the estimate."""


def estimate(plan: SweepPlan) -> Cost:
    """From the newest training of the same kind at the same image size; finished stages cost nothing."""
    shared = {stage.name for each in plan.shared for stage in each.stages}
    stages = {stage.name: stage for trial in plan.trials for stage in trial.stages}
    stages = {name: stage for name, stage in stages.items() if stage.is_training and not is_finished(stage)}
    ours = [stage for stage in stages.values() if stage.name in shared]
    theirs = [stage for stage in stages.values() if stage.name not in shared]
    speeds = {stage.kind: measured_speed(stage) for stage in stages.values()}
    # Of a search that learns, the trials here are samples, each with one of the trainings that a trial will have.
    times = plan.num_trials / len(plan.trials) if plan.is_learning else 1.0
    return Cost(
        shared_seconds=sum(_seconds(ours, plan, speeds)),
        trials_seconds=times * sum(_seconds(theirs, plan, speeds)) / plan.loaded.sweep.concurrency,
        measured_in=tuple(dict.fromkeys(speed.folder for speed in speeds.values() if speed)),
        unknown=tuple(sorted(kind for kind, speed in speeds.items() if speed is None)),
    )


def measured_speed(stage: Stage) -> Speed | None:
    """Of the newest training of this kind at this size; None where there is none."""
    found = sorted(
        (tracking.results_dir() / STAGES_DIR).glob(f"{stage.kind}-*/{PROGRESS_NAME}"),
        key=lambda path: -path.stat().st_mtime,
    )
    for path in found:
        try:
            speed = json.loads(path.read_text(encoding="utf-8"))["pairs_per_second"]
        except (OSError, ValueError, KeyError):
            continue
        newest = newest_checkpoint(path.parent)
        seal = read_seal(newest) if newest else None
        settings = (seal["experiment"] if seal else None) or {}
        if speed > 0 and settings.get("data", {}).get("size") == stage.experiment.data.size:
            return Speed(speed, settings["resources"]["workers"], path.parent)
    return None


def _seconds(stages: Iterable[Stage], plan: SweepPlan, speeds: dict[str, Speed | None]) -> Iterator[float]:
    for stage in stages:
        if (speed := speeds[stage.kind]) is not None:
            yield plan.prepared.num_steps(stage) * stage.experiment.optim.batch_size / speed.pairs_per_second
