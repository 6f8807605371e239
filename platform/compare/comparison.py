"""A comparison from finished evaluations: tables, page and videos in a folder that appears when it is whole.

results/comparisons/DATASET-KEY/
  index.html            everything in one file
  table.md, table.csv   the tables
  comparison.json       all numbers, with the differences of every pair
  videos/PROTOCOL/CLIP.mp4, CLIP.jpg
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hdam.pipelines.errors import InputError
from hdam.pipelines.seeds import stable_hash
from hdam.platform.compare.bootstrap import CONFIDENCE, LEAST_CLIPS, RESAMPLES, SEED
from hdam.platform.compare.clips import by_clip, choose_clips, choose_metric
from hdam.platform.compare.content import Findings, Shot, compose, verdict
from hdam.platform.compare.entrants import Entrant, read_entrants
from hdam.platform.compare.scores import MetricScore, score_all
from hdam.platform.compare.table import records_of, to_csv, to_markdown
from hdam.platform.compare.video import Painter, film, read_clips
from hdam.platform.model_folder import LoadedModel
from hdam.platform.pages.page import made_now, render
from hdam.platform.runs import write_json

COMPARISON = "hdam comparison, version 1"
"""Another way to compare gets another version."""
COMPARISONS_DIR = "comparisons"
PAGE_NAME = "index.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonReport:
    """What was made."""

    folder: Path
    page: Path
    verdict: str
    entrants: tuple[Entrant, ...]
    scores: tuple[MetricScore, ...]


def compare(
    folders: Sequence[Path],
    models: Sequence[LoadedModel],
    dataset: str,
    *,
    paint: Painter,
    by: str | None,
    parent: Path,
    on_film: Callable[[int, int | None], None] = lambda done, total: None,  # noqa: ARG005
) -> ComparisonReport:
    """Compare the finished evaluations in `folders`, of `models` in the same order, in a new folder below `parent`.

    Clips are chosen by the metric `by`, None: the usual one; `on_film` hears how many are drawn, and of how many. A
    folder of the same comparison is replaced. Raises InputError for evaluations that are not comparable.
    """
    entrants = read_entrants(folders)
    choice = choose_metric(entrants, by)
    scores, values = score_all(entrants), by_clip(entrants, choice.protocol, choice.metric.name)
    target = parent / f"{entrants[0].record.dataset['name']}-{_key(entrants, choice.metric.name)}"
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    findings = Findings(
        entrants=entrants, scores=scores, choice=choice, by_clip=values, shots=(), facts=[made_now()], name=target.name
    )
    try:
        partial.mkdir(parents=True)
        shots = _shoot(findings, models, dataset, partial, paint, on_film)
        findings = replace(findings, shots=shots)
        _write(partial, findings)
        _move(partial, target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ComparisonReport(
        folder=target, page=target / PAGE_NAME, verdict=verdict(findings), entrants=entrants, scores=scores
    )


def _shoot(
    findings: Findings,
    models: Sequence[LoadedModel],
    dataset: str,
    folder: Path,
    paint: Painter,
    on_film: Callable[[int, int | None], None],
) -> list[Shot]:
    """Film the chosen clips by every protocol that has them."""
    entrants = findings.entrants
    chosen = choose_clips(findings.by_clip, findings.choice.metric)
    planned = [
        (number, shown, protocol, clip)
        for number, shown in enumerate(chosen, start=1)
        for protocol in entrants[0].clips
        if (clip := entrants[0].clips.get(protocol, {}).get(shown.clip_id)) is not None
    ]
    wanted = [clip_id for _, shown, _, clip in planned for clip_id in (shown.clip_id, clip.source_clip)]
    clips = read_clips(dataset, entrants[0].record.dataset["split"], list(dict.fromkeys(wanted)))
    shots: list[Shot] = []
    for number, shown, protocol, clip in planned:
        on_film(len(shots), len(planned))
        footage = film(
            models,
            [each.label for each in entrants],
            protocol=protocol,
            source=clips[clip.source_clip],
            driving=clips[shown.clip_id],
            paint=paint,
            target=folder / "videos" / protocol / f"{shown.clip_id}.mp4",
        )
        shots.append(Shot(number=number, shown=shown, protocol=protocol, source_clip=clip.source_clip, footage=footage))
    on_film(len(shots), len(planned))
    return shots


def _write(folder: Path, findings: Findings) -> None:
    (folder / "table.md").write_text(to_markdown(findings.entrants, findings.scores), encoding="utf-8")
    (folder / "table.csv").write_text(to_csv(findings.entrants, findings.scores), encoding="utf-8")
    write_json(folder / "comparison.json", _to_json(findings, folder))
    (folder / PAGE_NAME).write_text(render(compose(findings, folder=folder)), encoding="utf-8")


def _to_json(findings: Findings, folder: Path) -> dict[str, Any]:
    entrants = findings.entrants
    first = entrants[0].record
    return {
        "comparison": COMPARISON,
        "dataset": first.dataset,
        "settings": {
            **first.settings,
            "by": findings.choice.metric.name,
            "resamples": RESAMPLES,
            "bootstrap_seed": SEED,
            "confidence": CONFIDENCE,
            "least_clips": LEAST_CLIPS,
        },
        "models": [
            {**each.record.model, "label": each.label, "evaluation": str(each.folder), "missing": _missing(each)}
            for each in entrants
        ],
        "scores": [record for score in findings.scores for record in records_of(entrants, score)],
        "differences": [record for score in findings.scores for record in _pairs(entrants, score)],
        "clips": [
            {
                "clip_id": shot.shown.clip_id,
                "protocol": shot.protocol,
                "source_clip": shot.source_clip,
                "reason": shot.shown.reason,
                "video": str(shot.footage.video.relative_to(folder)),
            }
            for shot in findings.shots
        ],
    }


def _missing(entrant: Entrant) -> dict[str, str]:
    return {each.metric: each.reason for each in entrant.record.missing}


def _pairs(entrants: Sequence[Entrant], score: MetricScore) -> list[dict[str, Any]]:
    return [
        {
            "protocol": score.protocol,
            "metric": score.metric.name,
            "first": entrants[pair.first].label,
            "second": entrants[pair.second].label,
            "value": pair.value,
            "low": pair.interval.low if pair.interval else None,
            "high": pair.interval.high if pair.interval else None,
            "num_clips": pair.num_clips,
            "is_clear": pair.is_clear,
        }
        for pair in score.differences
    ]


def _key(entrants: Sequence[Entrant], by: str) -> str:
    """Eight letters that name what is compared, and how."""
    first = entrants[0].record
    models = [each.record.model["weights"] + each.folder.name for each in entrants]
    settings = json.dumps(first.settings, sort_keys=True)
    return f"{stable_hash(COMPARISON, first.dataset['fingerprint'], settings, by, *models):032x}"[:8]


def _move(partial: Path, target: Path) -> None:
    """Give the finished folder its name; an earlier one of that name goes."""
    if target.exists():
        old = target.with_name(f".{target.name}.old-{os.getpid()}")
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        partial.rename(target)
