"""The comparison as a table: for people in a terminal and in Markdown, for programs as CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from hdam.platform.compare.bootstrap import LEAST_CLIPS, Interval
from hdam.platform.compare.entrants import Entrant
from hdam.platform.compare.scores import MetricScore
from hdam.platform.evaluation.metrics import METRICS, Metric, Protocol
from hdam.platform.evaluation.report import HEADINGS
from hdam.platform.reports import plain_table


class Row(NamedTuple):
    """A metric as the tables show it."""

    title: str
    """With an arrow that says which way is better."""
    means: tuple[str, ...]
    intervals: tuple[str, ...]
    """Empty where there is none."""
    best: int | None
    num_clips: str
    num_frames: str


def rows_of(scores: Sequence[MetricScore], protocol: Protocol) -> list[Row]:
    """The rows of one protocol's table."""
    return [_row(score) for score in scores if score.protocol == protocol]


def show_table(entrants: Sequence[Entrant], scores: Sequence[MetricScore], console: Console) -> None:
    """Print a table for each protocol, with notes."""
    for protocol in dict.fromkeys(score.protocol for score in scores):
        console.print(Text(HEADINGS[protocol], style="bold"), soft_wrap=True)
        labels = [each.label for each in entrants]
        table = plain_table(
            "Metric", *map(escape, labels), "Clips", "Frames", right=("Clips", "Frames"), whole=("Metric",)
        )
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows_of(scores, protocol):
            cells = [
                Text(f"{mean}\n{interval}".strip(), style="bold" if place == row.best else "")
                for place, (mean, interval) in enumerate(zip(row.means, row.intervals, strict=True))
            ]
            table.add_row(Text(row.title), *cells, Text(row.num_clips), Text(row.num_frames))
        console.print(table)
    for note in notes_of(entrants, scores):
        console.print(Text(note), soft_wrap=True)


def to_markdown(entrants: Sequence[Entrant], scores: Sequence[MetricScore]) -> str:
    """The tables and their notes as Markdown."""
    lines = [f"# {headline(entrants)}", ""]
    for protocol in dict.fromkeys(score.protocol for score in scores):
        header = ["Metric", *(_escaped(each.label) for each in entrants), "Clips", "Frames"]
        lines += [f"## {HEADINGS[protocol]}", "", _line(header), _line(["---", *["---:"] * (len(header) - 1)])]
        for row in rows_of(scores, protocol):
            cells = [
                f"{f'**{mean}**' if place == row.best else mean} {interval}".strip()
                for place, (mean, interval) in enumerate(zip(row.means, row.intervals, strict=True))
            ]
            lines.append(_line([row.title, *cells, row.num_clips, row.num_frames]))
        lines.append("")
    return "\n".join([*lines, *(f"* {note}" for note in notes_of(entrants, scores)), ""])


def to_csv(entrants: Sequence[Entrant], scores: Sequence[MetricScore]) -> str:
    """One line for each protocol, metric and model."""
    text = io.StringIO()
    rows = [record for score in scores for record in records_of(entrants, score)]
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def records_of(entrants: Sequence[Entrant], score: MetricScore) -> list[dict[str, Any]]:
    """A metric's numbers, unrounded, for each model."""
    return [
        {
            "protocol": score.protocol,
            "metric": score.metric.name,
            "better": score.metric.better,
            "model": each.record.model["name"],
            "version": each.record.model["version"],
            "uri": each.record.model["uri"],
            "mean": found.mean,
            "low": found.interval.low if found.interval else None,
            "high": found.interval.high if found.interval else None,
            "num_clips": found.num_clips,
            "num_frames": found.num_frames,
            "num_unmeasured": found.num_unmeasured,
            "is_best": place == score.best,
            "instrument": each.version_of(score.metric),
            "reason": found.reason,
        }
        for place, (each, found) in enumerate(zip(entrants, score.models, strict=True))
    ]


def headline(entrants: Sequence[Entrant]) -> str:
    """What is compared on what."""
    dataset = entrants[0].record.dataset
    labels = [each.label for each in entrants]
    return f"{', '.join(labels[:-1])} and {labels[-1]} on {dataset['name']}"


def notes_of(entrants: Sequence[Entrant], scores: Sequence[MetricScore]) -> list[str]:
    """What stands below the tables: what bold means, what was looked through, and what is missing and why."""
    notes = [
        "In brackets the 95 % interval. Bold: better than every other model by more than chance, since the interval "
        "of the difference on the same clips excludes 0."
    ]
    if any(pair.num_clips < LEAST_CLIPS for score in scores for pair in score.differences):
        notes.append(f"Fewer than {LEAST_CLIPS} clips are too few to tell models apart: nothing is bold there.")
    return [*notes, *_instruments(entrants, scores), *_gaps(entrants, scores), *_missing(entrants, scores)]


def title_of(metric: Metric) -> str:
    """The metric's title and unit, and which way is better."""
    return f"{metric.title}{f', {metric.unit}' if metric.unit else ''} {metric.arrow}"


def number(value: float, metric: Metric) -> str:
    """A value with the metric's own number of decimals."""
    return f"{value:.{metric.decimals}f}"


def bracketed(interval: Interval | None, metric: Metric) -> str:
    """An interval; empty where there is none."""
    return f"[{number(interval.low, metric)}, {number(interval.high, metric)}]" if interval else ""


def _row(score: MetricScore) -> Row:
    metric = score.metric
    measured = [each for each in score.models if each.mean is not None]
    return Row(
        title=title_of(metric),
        means=tuple("–" if each.mean is None else number(each.mean, metric) for each in score.models),
        intervals=tuple(bracketed(each.interval, metric) for each in score.models),
        best=score.best,
        num_clips=_range([each.num_clips for each in measured]),
        num_frames=_range([each.num_frames for each in measured]),
    )


def _range(counts: Sequence[int]) -> str:
    if not counts:
        return "0"
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)}–{max(counts)}"


def _instruments(entrants: Sequence[Entrant], scores: Sequence[MetricScore]) -> list[str]:
    """What metrics were looked through."""
    found: dict[str, list[str]] = {}
    for metric in dict.fromkeys(score.metric for score in scores):
        if version := next(filter(None, (each.version_of(metric) for each in entrants)), ""):
            found.setdefault(version, []).append(metric.title)
    return [f"{'; '.join(titles)}: measured by {version}." for version, titles in found.items()]


def _gaps(entrants: Sequence[Entrant], scores: Sequence[MetricScore]) -> list[str]:
    """Models that lack a mean, an interval or some frames."""
    notes = []
    for score in scores:
        reasons: dict[str, list[str]] = {}
        for each, found in zip(entrants, score.models, strict=True):
            if found.reason:
                reasons.setdefault(found.reason, []).append(each.label)
        notes += [f"{_name(score)}, {' and '.join(labels)}: {reason}." for reason, labels in reasons.items()]
        if any(found.num_unmeasured and found.mean is not None for found in score.models):
            counts = zip(entrants, score.models, strict=True)
            told = ", ".join(f"{found.num_unmeasured} of {each.label}" for each, found in counts)
            notes.append(f"{_name(score)}: without the frames that have none ({told}).")
    return notes


def _name(score: MetricScore) -> str:
    return f"{score.metric.title}{' across identities' if score.protocol == 'cross' else ''}"


def _missing(entrants: Sequence[Entrant], scores: Sequence[MetricScore]) -> list[str]:
    """Metrics that no model has, gathered by what they lack."""
    there = {score.metric.name for score in scores}
    reasons: dict[tuple[str, str], list[str]] = {}
    for lack in [each for entrant in entrants for each in entrant.record.missing if each.metric not in there]:
        title = METRICS[lack.metric].title if lack.metric in METRICS else lack.metric
        titles = reasons.setdefault((lack.reason, lack.remedy), [])
        titles += [title] if title not in titles else []
    return [
        f"Missing: {', '.join(titles)} ({'; '.join(filter(None, (reason, remedy)))})."
        for (reason, remedy), titles in reasons.items()
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
