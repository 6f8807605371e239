"""An evaluation as people read it: Markdown, CSV, and a table on the screen."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from hdam.platform.evaluation.metrics import METRICS, Metric
from hdam.platform.evaluation.results import EvaluationRecord, Mean
from hdam.platform.reports import plain_table
from hdam.platform.runs import write_text

TABLE_NAMES = ("table.md", "table.csv")
HEADINGS = {
    "reconstruction": "Reconstruction: frame 0 of each clip follows its own clip",
    "cross": "Across identities: frame 0 of another identity follows each clip",
}
COLUMNS = ("Metric", "Mean", "Frames", "Measured by")


class Row(NamedTuple):
    """One line of a table."""

    metric: str
    mean: str
    frames: str
    """With a number, of all."""
    instrument: str


def write_tables(folder: Path, record: EvaluationRecord) -> None:
    """Write `table.md` and `table.csv`. Raises InputError where the disk does not take them."""
    for name, text in zip(TABLE_NAMES, (markdown(record), comma_separated(record)), strict=True):
        write_text(folder / name, text)


def markdown(record: EvaluationRecord) -> str:
    """The tables of all protocols, and what is missing."""
    lines = [f"# {title_of(record)}", "", describe(record), ""]
    for protocol in measured_protocols(record):
        lines += [f"## {HEADINGS[protocol]}", "", f"| {' | '.join(COLUMNS)} |", "|---|---:|---:|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows_of(record, protocol)] + [""]
    lines += [f"* {line}" for line in notes_of(record)]
    return "\n".join(lines).rstrip() + "\n"


def comma_separated(record: EvaluationRecord) -> str:
    """One row per protocol and metric, numbers in full."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["model", "version", "dataset", "protocol", "metric", "mean", "count", "unmeasured", "instrument"])
    for protocol, means in record.means.items():
        for name, mean in means.items():
            table.writerow(
                [
                    record.model["name"],
                    record.model["version"],
                    record.dataset["name"],
                    protocol,
                    name,
                    "" if mean.value is None else repr(mean.value),
                    mean.count,
                    mean.num_unmeasured,
                    record.instruments.get(name, ""),
                ]
            )
    return text.getvalue()


def show_evaluation(record: EvaluationRecord, folder: Path, console: Console) -> None:
    """The tables, what is missing, and where everything lies."""
    console.print(Text(f"{title_of(record)}: {describe(record)}"), soft_wrap=True)
    for protocol in measured_protocols(record):
        console.print()
        table = plain_table(*COLUMNS, right=("Mean", "Frames"), whole=("Metric",))
        for row in rows_of(record, protocol):
            table.add_row(*(Text(cell) for cell in row))
        console.print(Text(HEADINGS[protocol], style="bold"), soft_wrap=True)
        console.print(table)
    for line in notes_of(record):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(f"Videos, tables and the numbers of every frame: {folder}"), soft_wrap=True)


def title_of(record: EvaluationRecord) -> str:
    """The model, on the dataset."""
    version = record.model["version"] and f" {record.model['version']}"
    return f"{record.model['name']}{version} on {record.dataset['name']}"


def describe(record: EvaluationRecord) -> str:
    """What was measured on."""
    variant, split = record.model["variant"], record.dataset["split"]
    return f"{variant}, split '{split}', {record.num_clips} clips, {record.num_frames} frames"


def measured_protocols(record: EvaluationRecord) -> list[str]:
    """Those that have a metric; without instruments, results across identities are videos alone."""
    return [protocol for protocol, means in record.means.items() if means]


def rows_of(record: EvaluationRecord, protocol: str) -> list[Row]:
    """One line for each metric, and L1 in units of that of repeating the source."""
    means = record.means[protocol]
    rows = [_row(METRICS[name], mean, record.instruments.get(name, "")) for name, mean in means.items()]
    ratio = ratio_of(record) if protocol == "reconstruction" else None
    if ratio is not None:
        rows.insert(2, Row("L1 / L1 of repeating ↓", f"{ratio:.3f}", "", ""))
    return rows


def ratio_of(record: EvaluationRecord) -> float | None:
    """L1 in units of that of repeating the source; below 1 the model does better than standing still."""
    means = record.means.get("reconstruction", {})
    own, still = (means.get(name) for name in ("l1", "repeat_l1"))
    if own is None or still is None or own.value is None or not still.value:
        return None
    return own.value / still.value


def notes_of(record: EvaluationRecord) -> Iterator[str]:
    """What is missing, and what has to be known of the numbers."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for lack in record.missing:
        reasons.setdefault((lack.reason, lack.remedy), []).append(METRICS[lack.metric].title)
    for (reason, remedy), titles in reasons.items():
        yield f"Missing: {', '.join(titles)} ({reason}; {remedy})"
    if "cross" in record.settings["protocols"] and "cross" not in record.means:
        yield f"Missing: across identities (split '{record.dataset['split']}' shows one identity alone)"
    for protocol, means in record.means.items():
        for name, mean in means.items():
            if mean.num_broken:
                yield f"{METRICS[name].title}, {protocol}: {mean.num_broken} frames are no number"


def _row(metric: Metric, mean: Mean, instrument: str) -> Row:
    total = mean.count + mean.num_unmeasured + mean.num_broken
    frames = str(total) if mean.count == total else f"{mean.count} of {total}"
    unit = metric.unit and f" {metric.unit}"
    value = "–" if mean.value is None else f"{mean.value:.{metric.decimals}f}{unit}"
    return Row(f"{metric.title} {metric.arrow}", value, frames, instrument)
