"""What `hdam data` prints: a dataset in tables, and what is wrong with it in lines."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from hdam.platform.reports import MIB, plain_table

if TYPE_CHECKING:
    from hdam.pipelines.overview import Bin, Overview, Summary
    from hdam.pipelines.verify import VerifyReport

BAR_WIDTH = 40


def overview_json(overview: "Overview", sheet: Path) -> str:
    """The overview as JSON, with the same names, and `contact_sheet`."""
    content = asdict(overview)
    for name, value in content.items():
        if hasattr(value, "_asdict"):
            content[name] = value._asdict()
    content["histogram"] = [part._asdict() for part in overview.histogram]
    content["contact_sheet"] = str(sheet)
    return json.dumps(content, indent=2, ensure_ascii=False)


def show_overview(overview: "Overview", sheet: Path, console: Console) -> None:
    """Counts per split, lengths, and how the dataset was made."""
    _say(console, f"{overview.dataset}: dataset {overview.name}", style="bold")
    numbers = ("Clips", "Identities", "Rows", "Frames", "MiB")
    table = plain_table("Split", *numbers, right=numbers)
    for split, counts in [*sorted(overview.splits.items(), reverse=True), ("all", overview.counts)]:
        amounts = (counts.clips, counts.identities, counts.rows, counts.frames)
        table.add_row(Text(split), *(f"{amount:,}" for amount in amounts), f"{counts.num_bytes / MIB:,.1f}")
    console.print(table)
    columns = ("Lowest", "Median", "Highest")
    table = plain_table("", *columns, right=columns)
    for what, found in (
        ("clips of an identity", overview.clips_per_identity),
        ("frames of a clip", overview.clip_frames),
        ("seconds of a clip", overview.clip_seconds),
        ("frames per second", overview.fps),
    ):
        table.add_row(what, *_numbers(found))
    console.print(table)
    _show_histogram(overview.histogram, console)
    options = overview.options
    size, codec = options.get("size", "?"), options.get("codec", "?")
    _say(
        console,
        f"{size}x{size} pixels, {codec}, {overview.bytes_per_frame:,.0f} bytes a frame, "
        f"{overview.total_seconds / 60:,.1f} minutes in {overview.num_shards} shards",
    )
    _say(console, "Prepared with " + ", ".join(f"{name} {_worded(value)}" for name, value in options.items()))
    if overview.num_rejected:
        _say(console, f"{overview.num_rejected} file(s) were left out, see its rejected.csv", style="yellow")
    _say(console, f"Fingerprint {overview.fingerprint}")
    _say(console, f"Look at {sheet}")


def show_verified(report: "VerifyReport", console: Console) -> None:
    """One line where all is well, else one for each fault."""
    for fault in report.faults:
        _say(console, " ".join(str(fault).split()), style="red")
    speed = report.num_frames / report.seconds if report.seconds else 0.0
    verdict = f"{len(report.faults)} fault(s) found" if report.faults else "all is well"
    num_shards = len(report.manifest.shards)
    _say(console, f"{verdict}: {report.num_frames:,} frames in {num_shards} shards checked at {speed:,.0f} frames/s")


def _show_histogram(histogram: "tuple[Bin, ...]", console: Console) -> None:
    """One line per bin, the longest bar for the fullest."""
    fullest = max((part.clips for part in histogram), default=0)
    table = plain_table("Frames", "Clips", "", right=("Frames", "Clips"))
    for part in histogram:
        bar = "█" * -(-part.clips * BAR_WIDTH // fullest)
        table.add_row(str(part.first) if part.first == part.last else f"{part.first}–{part.last}", str(part.clips), bar)
    if histogram:
        console.print(table)


def _numbers(found: "Summary") -> tuple[str, ...]:
    return tuple(f"{value:,.2f}".rstrip("0").rstrip(".") for value in found)


def _worded(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _say(console: Console, line: str, *, style: str = "") -> None:
    """A line that is not wrapped, and in which nothing is markup."""
    console.print(Text(line, style=style), soft_wrap=True)
