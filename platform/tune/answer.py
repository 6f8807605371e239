"""What a sweep answers to its question, in a few sentences that the record bears out."""

import math

from hdam.platform.tune.differences import FEWEST_CLEAR, Difference, paired_differences, pooled_spread
from hdam.platform.tune.records import count_statuses
from hdam.platform.tune.report import Row, SweepReport, describe, rounded, short_names

SURE = 2.0
"""Standard errors that a distance has to be above, to be more than a hint."""


def answer(report: SweepReport) -> list[str]:
    """A few paragraphs: what is missing, the best combination and how sure that is, and setting by setting."""
    rows = [row for row in report.rows if row.values]
    if not rows:
        return [*_missing(report), f"No trial was finished with a {report.sweep.metric}: there is no answer."]
    return [*_missing(report), " ".join([_best(report, rows[0]), _distance(report, rows)]), *_by_setting(report)]


def combination(report: SweepReport, row: Row) -> str:
    """The settings that a row stands for."""
    return describe({name: row.settings[name] for name in report.searched})


def _missing(report: SweepReport) -> list[str]:
    """Where not all trials have ended."""
    not_begun = report.num_planned - len(report.trials)
    if not not_begun and all(trial.has_ended for trial in report.trials):
        return []
    told = [count_statuses(report.trials)] if report.trials else []
    told += [f"{not_begun} not begun"] if not_begun else []
    return [f"The sweep is not done ({', '.join(told)}): what follows may change."]


def _best(report: SweepReport, best: Row) -> str:
    return f"The best is {combination(report, best)}: {report.sweep.metric} {_score(best)} ({report.good} is good)."


def _score(row: Row) -> str:
    return rounded(row.mean) + (f" ± {row.spread:.2g} over {len(row.values)} seeds" if len(row.values) > 1 else "")


def _distance(report: SweepReport, rows: list[Row]) -> str:
    if len(rows) == 1:
        return "No other combination was finished, so that there is nothing to compare it with."
    best, second = rows[:2]
    distance, spread = abs(best.mean - second.mean), pooled_spread(rows)
    lead = f"The next, {combination(report, second)}, has {_score(second)}: a distance of {distance:.2g}"
    if math.isnan(spread):
        return f"{lead}. Every combination was finished with one seed, which tells no difference from chance."
    seeds = f"the spread over seeds, {spread:.2g} (standard deviation, all combinations together)"
    if distance <= spread:
        return f"{lead}, no larger than {seeds}: this sweep does not tell the two apart."
    error = spread * math.sqrt(1 / len(best.values) + 1 / len(second.values))
    if distance <= SURE * error:
        return f"{lead}, larger than {seeds}; with so few seeds that is a hint and no proof."
    return f"{lead}, larger than {seeds}."


def _by_setting(report: SweepReport) -> list[str]:
    """What trials say in pairs that differ in one setting alone."""
    differences = paired_differences(report)
    if not differences:
        return []
    lead = "Setting by setting, in pairs of trials that agree in all else and the seed"
    clear = [_told(report, each) for each in differences if each.is_clear]
    if clear:
        return [f"{lead}: {'; '.join(clear)}."]
    if max(len(each.pairs) for each in differences) < FEWEST_CLEAR:
        return [f"{lead}: no value has the {FEWEST_CLEAR} pairs that it takes to tell a difference from chance."]
    return [f"{lead}: no value is clearly better or worse than another one."]


def _told(report: SweepReport, each: Difference) -> str:
    name = dict(zip(report.searched, short_names(report.searched), strict=True))[each.setting]
    word = "better" if each.num_better > each.num_worse else "worse"
    count, equal = max(each.num_better, each.num_worse), len(each.pairs) - each.num_better - each.num_worse
    ties = f", equal in {equal}" if equal else ""
    return (
        f"{name} {rounded(each.value)} is {word} than {rounded(each.reference)} in {count} of {len(each.pairs)}{ties} "
        f"(by {abs(each.mean):.2g} ± {each.spread:.2g})"
    )
