"""What `hdam bench data` prints."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from hdam.platform.reports import plain_table

TITLES = {
    "stream": "our stream",
    "shard_loader": "torch DataLoader on our shards",
    "frame_folders": "PNG folders, as published",
}


def show_bench(report: Mapping[str, Any], console: Console) -> None:
    """A table of the contenders, and a line for every target."""
    numbers = ("Pairs/CPU s", "Pairs/s", "Peak MiB", "Start CPU s", "First batch s")
    table = plain_table("Contender", *numbers, right=numbers)
    for name, found in report["contenders"].items():
        table.add_row(
            TITLES[name],
            f"{found['pairs_per_cpu_second']:.1f}",
            f"{found['pairs_per_second']:.1f}",
            f"{found['peak_mib']:.0f}",
            f"{found['start_cpu_seconds']:.1f}",
            f"{found['first_batch_seconds']:.1f}",
        )
    console.print(table)
    for line in _targets(report):
        console.print(line, highlight=False, soft_wrap=True)


def _targets(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{_word(found)}  stream / {found['against']} per CPU second: {found['ratio']:.2f}, target {found['target']:g}"
        for found in report["comparisons"]
    ]
    if scale := report.get("scale"):
        memory, epochs, starts = scale["memory"], scale["epochs"], scale["starts"]
        lines += [
            f"{_word(memory)}  memory on a dataset ten times as large: {memory['growth']:+.0%}, "
            f"target {memory['target']:+.0%}",
            f"{_word(epochs)}  first batch of a later epoch: {max(epochs['first_batch_seconds']):.2f} s, "
            f"target {epochs['target']:g} s",
            f"{_word(starts)}  start with 1,000 shards later than with 10 by {starts['difference']:.2f} s, "
            f"target {starts['target']:g} s",
        ]
    return lines


def _word(found: Mapping[str, Any]) -> str:
    return "PASS" if found["is_met"] else "MISS"
