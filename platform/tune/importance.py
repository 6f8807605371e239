"""How much each setting matters, as Optuna's PED-ANOVA sees it, and what it sees where nothing matters."""

import random
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hdam.experiments.sweep import Range
from hdam.platform.tune.points import distribution_of, place_of
from hdam.platform.tune.report import SweepReport

if TYPE_CHECKING:
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.study import Study

LEAST_TRIALS = 10
"""Finished trials below which an importance would be that of their luck."""
LEAST_GOOD = 5
"""Trials that count as good ones, as Optuna advises."""
GOOD = 0.25
"""Share of them among many trials."""
NUM_SHUFFLES = 100
CHANCE = 0.95
"""Share of the shuffles whose importance lies below the mark of chance."""


class Importance(NamedTuple):
    """Of one setting."""

    share: float
    """Of the importance of all settings, which is 1."""
    chance: float
    """In the same units: what as many trials seldom reach where the metric is dealt out to them at random."""


def why_no_importance(report: SweepReport) -> str:
    """Why none can be told; empty where one can."""
    count = len([value for row in report.rows for value in row.values])
    if report.sweep.scheduler == "pbt":
        return "No importances are given: the settings have changed on the way."
    if len(_varied(report)) < 2:
        return "With a single setting there is no other one that it could be more important than."
    if count < LEAST_TRIALS:
        return (
            f"No importances are given: of {count} finished trials they would mean little; {LEAST_TRIALS} are needed."
        )
    return ""


def importances(report: SweepReport) -> dict[str, Importance]:
    """By setting, the most important first; only where `why_no_importance` has nothing to say.

    PED-ANOVA (Watanabe et al., IJCAI 2023) compares how the good trials spread over a setting's values with how all do.
    """
    import optuna

    sign = 1 if report.sweep.mode == "min" else -1
    study, values = _study(report), [sign * value for row in report.rows for value in row.values]
    quantile = max(GOOD, LEAST_GOOD / len(values))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
    found = _evaluate(evaluator, study, values)
    rng = random.Random(0)
    shuffled = [_evaluate(evaluator, study, rng.sample(values, len(values))) for _ in range(NUM_SHUFFLES)]
    total = sum(found.values()) or 1.0
    by_chance = {name: sorted(each[name] for each in shuffled)[round(CHANCE * NUM_SHUFFLES)] for name in found}
    order = sorted(found, key=lambda name: -found[name])
    return {name: Importance(found[name] / total, by_chance[name] / total) for name in order}


def _varied(report: SweepReport) -> dict[str, Range]:
    """Without settings that have a single value."""
    return {name: values for name, values in report.space.items() if values.values is None or len(values.values) > 1}


def _study(report: SweepReport) -> "Study":
    """Of finished trials, in the order of the rows; numbers stand for values that are listed."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    space = _varied(report)
    distributions = {name: distribution_of(values) for name, values in space.items()}
    for row in report.rows:
        params = {name: place_of(values, row.settings[name]) for name, values in space.items()}
        for value in row.values:
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    return study


def _evaluate(evaluator: "PedAnovaImportanceEvaluator", study: "Study", values: Sequence[float]) -> Mapping[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that low values are taken as good, which they are here
        return evaluator.evaluate(study, target=lambda trial: values[trial.number])
