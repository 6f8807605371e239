"""Which differences between trials may be more than chance: the spread over seeds, and trials in pairs."""

import json
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from hdam.platform.tune.records import TrialRecord
from hdam.platform.tune.report import Row, SweepReport

CLEAR = 0.05
"""A difference is called clear where chance alone gives so one-sided a count of pairs less often than that."""
FEWEST_CLEAR = 6
"""Pairs of which none may disagree, so that a difference is clear; fewer can never be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Between two values of one setting, over pairs of finished trials that agree in all else and in the seed."""

    setting: str
    value: Any
    reference: Any
    """The value that the sweep lists first."""
    pairs: tuple[float, ...]
    """The metric with `value`, minus that with `reference`."""
    mode: Literal["min", "max"]

    @property
    def mean(self) -> float:
        """Over all pairs."""
        return statistics.fmean(self.pairs)

    @property
    def spread(self) -> float:
        """Standard deviation over pairs; no number for fewer than two."""
        return statistics.stdev(self.pairs) if len(self.pairs) > 1 else math.nan

    @property
    def num_better(self) -> int:
        """Pairs in which `value` is the better one."""
        return sum(pair < 0 if self.mode == "min" else pair > 0 for pair in self.pairs)

    @property
    def num_worse(self) -> int:
        """Pairs in which the reference is; equal pairs are neither."""
        return sum(pair != 0 for pair in self.pairs) - self.num_better

    @property
    def is_clear(self) -> bool:
        """By the two-sided sign test, which asks nothing of how the metric is distributed; equal pairs do not count."""
        count, fewer = self.num_better + self.num_worse, min(self.num_better, self.num_worse)
        return 2 * sum(math.comb(count, k) for k in range(fewer + 1)) / 2**count < CLEAR


def paired_differences(report: SweepReport) -> list[Difference]:
    """Of every setting, each value against the first; none where the sweep is no grid, or settings change."""
    sweep = report.sweep
    if sweep.algorithm != "grid" or sweep.scheduler == "pbt":
        return []
    return [difference for name in report.searched for difference in _of_setting(report, name)]


def pooled_spread(rows: Iterable[Row]) -> float:
    """Standard deviation over seeds, of all combinations together; no number where none has two finished seeds."""
    repeated = [row.values for row in rows if len(row.values) > 1]
    freedom = sum(len(values) - 1 for values in repeated)
    if not freedom:
        return math.nan
    return math.sqrt(sum(statistics.variance(values) * (len(values) - 1) for values in repeated) / freedom)


def _of_setting(report: SweepReport, name: str) -> Iterator[Difference]:
    first, *others = report.space[name].values or ()
    by_value = [(trial.settings[name], _rest(trial, name), trial.value(report.sweep.metric)) for trial in report.trials]
    known = {rest: metric for value, rest, metric in by_value if value == first and metric is not None}
    for other in others:
        pairs = tuple(
            metric - known[rest]
            for value, rest, metric in by_value
            if value == other and metric is not None and rest in known
        )
        if pairs:
            yield Difference(setting=name, value=other, reference=first, pairs=pairs, mode=report.sweep.mode)


def _rest(trial: TrialRecord, name: str) -> str:
    """All but one setting."""
    others = {other: value for other, value in trial.settings.items() if other != name}
    return json.dumps([trial.seed, others], sort_keys=True)
