"""What decides, while trials train, which of them go on: Ray Tune's schedulers with the settings that a sweep needs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, PopulationBasedTraining, TrialScheduler

from hdam.experiments.sweep import Range, Sweep
from hdam.platform.tune.records import ENDED, TrialRecord

REDUCTION = 3
"""ASHA lets the best third go on."""
NEVER = 10**9
"""A step that no training comes to: trials end by themselves."""
OTHERS = 2
"""Trials that have come as far, before median stopping compares another one with them: the third may be stopped."""


class MedianRule(MedianStoppingRule):
    """Tune's rule, which stumbles over a trial that ends without what is watched (as where MLflow was away)."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Take the last figures as those of any checkpoint."""
        if self._metric in result and self._time_attr in result:
            super().on_trial_complete(tune_controller, trial, result)


def make_scheduler(sweep: Sweep, *, steps: int, known: Iterable[TrialRecord] = ()) -> TrialScheduler | None:
    """Of trainings of so many steps; None where every trial goes on to its end.

    Trials among `known` that ended in an earlier start count as those of this one do.
    """
    grace = max(1, round(sweep.grace * steps))
    watched: Mapping[str, Any] = {"time_attr": "step", "metric": sweep.watched, "mode": sweep.mode}
    if sweep.scheduler == "pbt":
        mutations = {name: _mutation(values) for name, values in sweep.search.items()}
        return PopulationBasedTraining(
            **watched, perturbation_interval=grace, hyperparam_mutations=mutations, require_attrs=False
        )
    if sweep.scheduler == "none":
        return None
    scheduler: TrialScheduler
    if sweep.scheduler == "asha":
        scheduler = AsyncHyperBandScheduler(**watched, grace_period=grace, max_t=NEVER, reduction_factor=REDUCTION)
    else:
        # Without a slice of time, a trial with nothing to be compared with would be paused for the next one's sake.
        slice_of_time: Any = math.inf
        scheduler = MedianRule(**watched, grace_period=grace, min_samples_required=OTHERS, min_time_slice=slice_of_time)
    _tell(scheduler, known, watched=sweep.watched)
    return scheduler


@dataclass(frozen=True)
class _Past:
    """As much of a trial as schedulers look at."""

    trial_id: str


def _tell(scheduler: TrialScheduler, known: Iterable[TrialRecord], *, watched: str) -> None:
    for trial in known:
        if trial.status in ENDED:
            past: Any = _Past(f"{trial.name} of an earlier start")
            scheduler.on_trial_add(None, past)  # type: ignore[arg-type]
            for step, value in trial.history:
                scheduler.on_trial_result(None, past, {"step": step, watched: value})  # type: ignore[arg-type]


def _mutation(values: Range) -> Any:
    if values.values is not None:
        return list(values.values)
    if values.integer is not None:
        low, high = values.integer
        return tune.randint(low, high + 1)
    if values.loguniform is not None:
        return tune.loguniform(*values.loguniform)
    assert values.uniform is not None, "a range has one of its keys"
    return tune.uniform(*values.uniform)
