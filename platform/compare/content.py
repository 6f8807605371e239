"""What the page of a comparison says; how it looks is the affair of `pages`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hdam.platform.compare.bootstrap import LEAST_CLIPS, RESAMPLES
from hdam.platform.compare.clips import ByClip, Choice, Shown
from hdam.platform.compare.entrants import Entrant
from hdam.platform.compare.plots import LEAST_SHARE, MOST_SCATTERED, plot_clips, plot_course, plot_means
from hdam.platform.compare.scores import MetricScore
from hdam.platform.compare.table import bracketed, headline, notes_of, number, rows_of, title_of
from hdam.platform.compare.video import Footage
from hdam.platform.evaluation.metrics import Protocol
from hdam.platform.evaluation.report import HEADINGS
from hdam.platform.pages.page import Block, Cell, Charts, Film, Page, Paragraphs, Section, Table, data_uri

MIB = 2**20
STILL = "repeat_l1"
"""What a model has to beat, the same for all of them."""
MOST_EMBEDDED = 40 * MIB
"""Bytes of videos that a page holds; if they are more, they stay beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """A clip that is shown, by one of the protocols."""

    number: int
    """Of the clip in the charts."""
    shown: Shown
    protocol: Protocol
    source_clip: str
    footage: Footage


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """All that a comparison has found."""

    entrants: Sequence[Entrant]
    scores: Sequence[MetricScore]
    choice: Choice
    by_clip: ByClip
    shots: Sequence[Shot]
    facts: Sequence[tuple[str, str]]
    """When and with what it was made."""
    name: str
    """Of the comparison's folder."""


def compose(findings: Findings, *, folder: Path) -> Page:
    """The page; the videos' places are told relative to `folder`."""
    sections = [
        *_tables(findings),
        Section("How to read this", [_reading_help(findings)]),
        _charts(findings),
        *_clips(findings, folder),
        Section("Differences between models", [_differences(findings)]),
        _models(findings),
    ]
    first = findings.entrants[0].record
    facts = [
        ("Dataset", f"{first.dataset['name']}, split {first.dataset['split']}"),
        ("Fingerprint", first.dataset["fingerprint"]),
        ("Evaluated", f"{first.num_clips} clips, {first.num_frames} frames"),
        *findings.facts,
    ]
    return Page(title=headline(findings.entrants), facts=facts, sections=sections)


def verdict(findings: Findings) -> str:
    """In how many metrics which model is clearly the best; that of repeating the source is no model's."""
    scores = [score for score in findings.scores if score.metric.name != STILL and score.differences]
    wins = [sum(score.best == place for score in scores) for place in range(len(findings.entrants))]
    open_ones = len(scores) - sum(wins)
    told = [f"{each.label} by {count}" for each, count in zip(findings.entrants, wins, strict=True) if count]
    if not told:
        return f"By none of the {len(scores)} metrics is one model clearly better than all others."
    rest = f"; by {open_ones} none is" if open_ones else ""
    return f"Clearly better than all others: {', '.join(told)} of {len(scores)} metrics{rest}."


def _tables(findings: Findings) -> list[Section]:
    sections: list[Section] = []
    labels = [Cell(text=each.label, series=place) for place, each in enumerate(findings.entrants)]
    header = [Cell(text="Metric"), *labels, Cell(text="Clips"), Cell(text="Frames")]
    for protocol in dict.fromkeys(score.protocol for score in findings.scores):
        rows = [
            [
                Cell(text=row.title),
                *(
                    Cell(text=mean, note=interval, is_bold=place == row.best)
                    for place, (mean, interval) in enumerate(zip(row.means, row.intervals, strict=True))
                ),
                Cell(text=row.num_clips),
                Cell(text=row.num_frames),
            ]
            for row in rows_of(findings.scores, protocol)
        ]
        lead: list[Block] = [] if sections else [Paragraphs(lines=[verdict(findings)])]
        table = Table(header=header, rows=rows, right=range(1, len(header)))
        sections.append(Section(HEADINGS[protocol], [*lead, table]))
    notes = Paragraphs(lines=notes_of(findings.entrants, findings.scores), look="note")
    return [*sections[:-1], Section(sections[-1].title, [*sections[-1].blocks, notes])]


def _reading_help(findings: Findings) -> Paragraphs:
    settings = findings.entrants[0].record.settings
    lines = [
        "A figure is the mean over the frames of all clips, so that long clips weigh more, as in the published "
        "protocol; ↓ lower is better, ↑ higher is better.",
        "The interval in brackets says how far the mean might be another one with other clips of the same kind: the "
        f"middle 95 % of {RESAMPLES} means, each over as many clips drawn from these with replacement (percentile "
        "bootstrap). Another training of the same model would vary as well; that is not in it.",
        "Bold is a model whose difference to every other one is larger than chance. Differences are taken on the same "
        "drawn clips, and so models whose own intervals overlap may yet differ clearly. With fewer than "
        f"{LEAST_CLIPS} clips nothing is bold. Of twenty comparisons of equal models, one is bold by chance.",
        "Where the detector finds nothing in the truth or in the result, a frame has no AKD and no AED, and the first "
        "frame of a clip has no warp error: such frames do not count.",
        "Clips of one identity are taken as independent of each other; where identities have several clips, intervals "
        "are too narrow.",
    ]
    if any(score.protocol == "cross" for score in findings.scores):
        mode = settings.get("cross_mode", "")
        lines.append(
            "Across identities there is no true video to compare with: the metrics say whether the object is still "
            f"found, is still itself and moves steadily{f' (mode {mode})' if mode else ''}."
        )
    return Paragraphs(lines=lines, look="list")


def _charts(findings: Findings) -> Section:
    labels = [each.label for each in findings.entrants]
    protocol, metric = findings.choice
    numbers = {shot.shown.clip_id: shot.number for shot in findings.shots}
    drawn = [
        score
        for score in findings.scores
        if score.metric.name != STILL and any(each.mean is not None for each in score.models)
    ]
    charts = [plot_means(score, labels) for score in drawn]
    blocks: list[Block] = [Charts(charts=charts, caption="Means and their 95 % intervals.")]
    if findings.by_clip:
        left_out = len(labels) - 1 - MOST_SCATTERED
        caption = (
            f"{metric.title} of every clip; on the line both models are equal, numbers are those of the clips below."
        )
        more = f" The first {MOST_SCATTERED} of {len(labels) - 1} other models." if left_out > 0 else ""
        charts = plot_clips(findings.by_clip, metric, labels, numbers)
        blocks.append(Charts(charts=charts, caption=caption + more))
    course = plot_course(findings.entrants, protocol, metric)
    if course is not None:
        caption = (
            f"Mean over clips by frame number, as far as {LEAST_SHARE:.0%} of the clips reach. A curve that rises away "
            "from frame 0 shows how a model drifts from its source."
        )
        blocks.append(Charts(charts=[course], caption=caption))
    return Section("Charts", blocks)


def _clips(findings: Findings, folder: Path) -> list[Section]:
    if not findings.shots:
        return []
    size = sum(shot.footage.video.stat().st_size for shot in findings.shots)
    is_embedded = size <= MOST_EMBEDDED
    told = f"Chosen by {findings.choice.metric.title}, mean over the models. The videos take {size / MIB:.1f} MiB"
    where = (
        " and are in this page."
        if is_embedded
        else f": too much for this page, they lie beside it, in {findings.name}/videos."
    )
    films = [_film(findings, shot, folder, is_embedded=is_embedded) for shot in findings.shots]
    return [Section("Clips", [Paragraphs(lines=[told + where]), *films])]


def _film(findings: Findings, shot: Shot, folder: Path, *, is_embedded: bool) -> Film:
    metric, footage = findings.choice.metric, shot.footage
    values = findings.by_clip[shot.shown.clip_id]
    labels = [each.label for each in findings.entrants]
    scores = ", ".join(f"{label} {number(value, metric)}" for label, value in zip(labels, values, strict=True))
    caption = f"{metric.title}: {scores}." if shot.protocol == findings.choice.protocol else ""
    if footage.num_frames < footage.num_clip_frames:
        caption += f" The first {footage.num_frames} of {footage.num_clip_frames} frames."
    across = "" if shot.protocol == "reconstruction" else f", followed by {shot.source_clip}"
    return Film(
        title=f"{shot.number}. {shot.shown.clip_id}{across}: {shot.shown.reason}",
        caption=caption.strip(),
        video=data_uri(footage.video) if is_embedded else "",
        place=str(footage.video.relative_to(folder)),
        strip=data_uri(footage.strip),
        width=footage.width,
        description=f"{shot.shown.clip_id}{across}: source, driving, {', '.join(labels)}, side by side",
    )


def _differences(findings: Findings) -> Table:
    labels = [each.label for each in findings.entrants]
    rows = [
        [
            Cell(text=title_of(score.metric), note=score.protocol),
            Cell(text=labels[pair.first], series=pair.first),
            Cell(text=labels[pair.second], series=pair.second),
            Cell(
                text=f"{pair.value:+.{score.metric.decimals}f}",
                note=bracketed(pair.interval, score.metric),
                is_bold=pair.is_clear,
            ),
            Cell(text=str(pair.num_clips)),
        ]
        for score in findings.scores
        for pair in score.differences
    ]
    header = [Cell(text=text) for text in ("Metric", "Model", "minus", "Difference", "Clips")]
    title = "Every pair of models, over the clips that both have; bold where the interval excludes 0"
    return Table(header=header, rows=rows, right=(3, 4), folded=title)


def _models(findings: Findings) -> Section:
    header = ["Model", "Variant", "Address", "MLflow run of the evaluation", "Weights, SHA-256", "Evaluation"]
    rows = [
        [
            Cell(text=each.label, series=place),
            Cell(text=each.record.model["variant"]),
            Cell(text=each.record.model["uri"]),
            Cell(text=each.record.mlflow_run_id or "–"),
            Cell(text=each.record.model["weights"][:16]),
            Cell(text=each.folder.name),
        ]
        for place, each in enumerate(findings.entrants)
    ]
    settings = findings.entrants[0].record.settings
    told = ", ".join(f"{name} {_told(value)}" for name, value in sorted(settings.items()) if value not in (None, []))
    lines = [f"Settings of the evaluations: {told}."] if told else []
    return Section("Models", [Table(header=[Cell(text=text) for text in header], rows=rows, notes=lines)])


def _told(value: object) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)
