"""What a sweep found, by its record alone: a row for every combination, with its spread over seeds."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hdam.experiments.sweep import Range, Sweep
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.tune.points import search_space
from hdam.platform.tune.records import Ledger, TrialRecord, count_statuses

CSV_NAME = "trials.csv"
MARKDOWN_NAME = "report.md"
PAGE_NAME = "report.html"


class Row(NamedTuple):
    """Trials that differ by their seed alone."""

    trials: tuple[TrialRecord, ...]
    values: tuple[float, ...]
    """Of the metric, in those that are finished and have it."""

    @property
    def settings(self) -> dict[str, Any]:
        """What all of them were trained with."""
        return self.trials[0].settings

    @property
    def mean(self) -> float:
        """No number where none is finished."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; no number for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepReport:
    """What a sweep found."""

    name: str
    folder: Path
    mlflow_run_id: str
    sweep: Sweep
    space: Mapping[str, Range]
    """The settings that differ, by name, and the values that they may take."""
    num_planned: int
    """Trials that were to be done."""
    rows: tuple[Row, ...]
    """The best first; those without a finished trial last."""
    best: TrialRecord | None
    model_uri: str
    seconds: float
    """Of the last attempt."""
    was_known: bool

    @property
    def searched(self) -> tuple[str, ...]:
        """Names of the settings that differ."""
        return tuple(self.space)

    @property
    def good(self) -> str:
        """Which values of the metric are: low or high ones."""
        return "low" if self.sweep.mode == "min" else "high"

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All, by number."""
        return tuple(sorted((trial for row in self.rows for trial in row.trials), key=lambda trial: trial.number))


def make_report(plan: SweepPlan, ledger: Ledger, *, seconds: float = 0.0, was_known: bool = False) -> SweepReport:
    """What the record says."""
    record = ledger.record
    return SweepReport(
        name=plan.name,
        folder=ledger.folder,
        mlflow_run_id=record.mlflow_run_id,
        sweep=plan.loaded.sweep,
        space=search_space(plan.loaded),
        num_planned=max(plan.num_trials, len(record.trials)),
        rows=rows_of(plan, record.trials),
        best=ledger.trial(record.best) if record.best else None,
        model_uri=f"models:/{record.model_name}/{record.model_version}" if record.model_name else "",
        seconds=seconds,
        was_known=was_known,
    )


def rows_of(plan: SweepPlan, trials: Sequence[TrialRecord]) -> tuple[Row, ...]:
    """The best first, by the mean over seeds."""
    sweep = plan.loaded.sweep
    points: dict[int, list[TrialRecord]] = {}
    for trial in trials:
        points.setdefault(trial.point, []).append(trial)
    rows = [Row(tuple(same), tuple(values_of(same, sweep.metric))) for same in points.values()]
    sign = 1 if sweep.mode == "min" else -1
    return tuple(sorted(rows, key=lambda row: sign * row.mean if row.values else math.inf))


def best_trial(plan: SweepPlan, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Of the best combination the best seed; None where no finished trial has the metric."""
    rows, sweep = rows_of(plan, trials), plan.loaded.sweep
    if not rows or not rows[0].values:
        return None
    best = (min if sweep.mode == "min" else max)(rows[0].values)
    return next(trial for trial in rows[0].trials if trial.value(sweep.metric) == best)


def columns_of(plan: SweepPlan, trials: Sequence[TrialRecord]) -> dict[str, list[Any]]:
    """A row for every trial, its columns by name."""
    columns: dict[str, list[Any]] = {
        "trial": [trial.number for trial in trials],
        **{name: [trial.settings[name] for trial in trials] for name in search_space(plan.loaded)},
        "seed": [trial.seed for trial in trials],
        "status": [trial.status for trial in trials],
    }
    for metric in sorted({metric for trial in trials for metric in trial.metrics}):
        columns[metric] = [trial.metrics.get(metric, "") for trial in trials]
    columns |= {
        "seconds": [round(trial.seconds, 1) for trial in trials],
        "mlflow_run": [trial.mlflow_run_id for trial in trials],
        "reason": [trial.reason for trial in trials],
    }
    return columns


def cells(row: Row) -> list[str]:
    """Trials, how they ended, mean and spread of the metric, lowest and highest."""
    ends = f"{min(row.values):.4g} … {max(row.values):.4g}" if len(row.values) > 1 else ""
    return [
        ", ".join(str(trial.number) for trial in row.trials),
        count_statuses(row.trials),
        rounded(row.mean),
        rounded(row.spread),
        ends,
    ]


def rounded(value: Any) -> str:
    """A setting or a figure in a table."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def values_of(trials: Iterable[TrialRecord], metric: str) -> list[float]:
    """Of the metric, in those that are finished and have it."""
    return [value for trial in trials if (value := trial.value(metric)) is not None]


def describe(settings: Mapping[str, Any]) -> str:
    """In words: `num_intermediate 3, delta 0.3`."""
    return ", ".join(
        f"{name} {rounded(value)}" for name, value in zip(short_names([*settings]), settings.values(), strict=True)
    )


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of dotted names, where they tell them apart."""
    short = [name.rpartition(".")[2] for name in names]
    return [last if short.count(last) == 1 else name for name, last in zip(names, short, strict=True)]
