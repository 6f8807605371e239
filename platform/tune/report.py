"""The report of a sweep, made of its record alone: a row for every combination, with its spread over seeds.

`write_report` is where other forms of it (pages, pictures) join: they are files in the sweep's folder, and all that it
returns is kept with the sweep's MLflow run.
"""

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hdam.experiments.sweep import Sweep
from hdam.platform.runs import write_text
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.tune.points import search_space
from hdam.platform.tune.records import Ledger, TrialRecord, count_statuses

CSV_NAME = "trials.csv"
MARKDOWN_NAME = "report.md"


class Row(NamedTuple):
    """Trials that differ by their seed alone."""

    trials: tuple[TrialRecord, ...]
    values: tuple[float, ...]
    """Of the metric, in those that are finished."""

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
    searched: tuple[str, ...]
    """Names of the settings that differ."""
    rows: tuple[Row, ...]
    """The best first; those without a finished trial last."""
    best: TrialRecord | None
    model_uri: str
    seconds: float
    """Of the last attempt."""
    was_known: bool

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
        searched=tuple(search_space(plan.loaded)),
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
    rows = [Row(tuple(same), tuple(_values(same, sweep.metric))) for same in points.values()]
    sign = 1 if sweep.mode == "min" else -1
    return tuple(sorted(rows, key=lambda row: sign * row.mean if row.values else math.inf))


def best_trial(plan: SweepPlan, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Of the best combination the best seed; None where no finished trial has the metric."""
    rows, metric = rows_of(plan, trials), plan.loaded.sweep.metric
    if not rows or not rows[0].values:
        return None
    choose = min if plan.loaded.sweep.mode == "min" else max
    finished = [trial for trial in rows[0].trials if trial.status == "finished" and metric in trial.metrics]
    return choose(finished, key=lambda trial: trial.metrics[metric])


def write_report(plan: SweepPlan, ledger: Ledger) -> list[Path]:
    """The report as files in the sweep's folder."""
    table, text = ledger.folder / CSV_NAME, ledger.folder / MARKDOWN_NAME
    columns = columns_of(plan, ledger.trials)
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_text(table, rows.getvalue())
    write_text(text, "\n".join(_markdown(make_report(plan, ledger))) + "\n")
    return [table, text]


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


def _values(trials: Sequence[TrialRecord], metric: str) -> list[float]:
    return [trial.metrics[metric] for trial in trials if trial.status == "finished" and metric in trial.metrics]


def _markdown(report: SweepReport) -> list[str]:
    sweep = report.sweep
    header = [*report.searched, "trials", "ended", f"{sweep.metric}, mean", "± over seeds", "lowest … highest"]
    lines = [f"# {report.name}", "", sweep.question, ""]
    lines += [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for row in report.rows:
        lines.append(f"| {' | '.join([*(rounded(row.settings[name]) for name in report.searched), *cells(row)])} |")
    good = "low" if sweep.mode == "min" else "high"
    seeds = f"{len(sweep.seeds)} seeds" if len(sweep.seeds) > 1 else "one seed, which tells no difference from chance"
    lines += ["", f"{sweep.metric}: {good} is good; {seeds}."]
    if report.best is not None:
        lines += [
            "",
            f"The best is trial {report.best.number} (MLflow run {report.best.mlflow_run_id}); its model is "
            f"{report.model_uri}.",
        ]
    told = [trial for trial in report.trials if trial.reason]
    if told:
        lines += ["", *(f"* Trial {trial.number} {trial.status}: {trial.reason}" for trial in told)]
    return lines
