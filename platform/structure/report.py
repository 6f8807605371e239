"""The structure scores of several models: as a table, as JSON and as CSV."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from hdam.models.structure_scores import RIDGE, Score
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import load_manifest
from hdam.platform.model_folder import LoadedModel
from hdam.platform.reports import plain_table
from hdam.platform.runs import write_json, write_text
from hdam.platform.structure.score import LOOK_TIMES, ScoreSettings, StructureScore

BENCHMARK = "hdam structure score, version 1"
"""Another definition gets another version."""

TITLES = {
    "joints": "joints from motion anchors",
    "joints_all": "joints from all anchors",
    "root": "root to centroid",
    "anchor_mean": "mean motion anchor to centroid",
    "parts_ari": "parts, Rand index ↑",
    "pixels_ari": "parts and background, Rand index ↑",
    "parts_iou": "parts, best IoU ↑",
    "looks": "motion anchors under other looks",
    "looks_all": "all anchors under other looks",
}
"""Of the table's rows; what has no arrow is a distance, and better when lower."""


class ScoredModel(NamedTuple):
    """A model and its scores."""

    loaded: LoadedModel
    score: StructureScore


def show_scores(models: Sequence[ScoredModel], console: Console) -> None:
    """One column per model: distances in % of the image's side, and in brackets relative to knowing nothing."""
    names = [f"{each.loaded.name} {each.loaded.version}".strip() for each in models]
    table = plain_table("Score", *(f"{n} ({v})" for n, v in zip(names, map(_variant, models), strict=True)))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, title in TITLES.items():
        table.add_row(Text(title), *(Text(_cell(getattr(each.score, name))) for each in models))
    console.print(table)
    note = "Distances in % of the image's side; in brackets, of what knows nothing of the image (0 perfect, 1 useless)."
    console.print(Text(note), soft_wrap=True)


def save_scores(models: Sequence[ScoredModel], dataset: str, settings: ScoreSettings, path: Path) -> tuple[Path, Path]:
    """Write the JSON file `path`, and beside it the same as CSV; returns both. Raises InputError for another suffix."""
    manifest = load_manifest(dataset)
    content = {
        "benchmark": BENCHMARK,
        "dataset": {
            "name": manifest.name,
            "fingerprint": manifest.fingerprint,
            "clips": {split: counts.clips for split, counts in manifest.splits.items()},
        },
        "settings": {**dataclasses.asdict(settings), "look_times": list(LOOK_TIMES), "ridge": RIDGE},
        "models": [{**describe(each.loaded), "scores": flat_scores(each.score)} for each in models],
    }
    rows = [{**describe(each.loaded), **flat_scores(each.score)} for each in models]
    return save_table(content, rows, path)


def save_table(content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], path: Path) -> tuple[Path, Path]:
    """`content` as the JSON file `path`, `rows` as the CSV file beside it; returns both."""
    check_json(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    target = path.with_suffix(".csv")
    write_text(target, text.getvalue())
    return path, target


def check_json(path: Path) -> None:
    """InputError unless results can be named `path`."""
    if path.suffix != ".json":
        raise InputError(f"--out {path}: expected a name that ends in .json; the CSV is written beside it")


def describe(loaded: LoadedModel) -> dict[str, Any]:
    """Which model it is."""
    return {
        "model": loaded.name,
        "version": loaded.version,
        "uri": loaded.uri,
        "variant": loaded.experiment.model.variant,
    }


def flat_scores(score: StructureScore) -> dict[str, float | None]:
    """By name: `joints.error`, `joints.relative`, …, `parts_ari`; None for what there is not."""
    flat: dict[str, float | None] = {}
    for name, value in score._asdict().items():
        if isinstance(value, float):
            flat[name] = number_or_none(value)
        else:
            flat[f"{name}.error"] = None if value is None else number_or_none(value.error)
            flat[f"{name}.relative"] = None if value is None else number_or_none(value.relative)
    return flat


def number_or_none(value: float) -> float | None:
    """The number; None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value


def _variant(each: ScoredModel) -> str:
    return each.loaded.experiment.model.variant


def _cell(value: Score | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{100 * value.error:.2f} ({value.relative:.2f})"
