"""What the page of a sweep says; how it looks is the affair of `pages`."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from hdam.experiments.sweep import Range
from hdam.platform import tracking
from hdam.platform.pages.page import Block, Cell, Charts, Page, Paragraphs, Picture, Section, Table, data_uri, made_now
from hdam.platform.runs import STAGES_DIR, RunRecord, read_record
from hdam.platform.stage_screening import SHEET_NAME
from hdam.platform.tune.answer import answer
from hdam.platform.tune.differences import CLEAR, Difference, paired_differences
from hdam.platform.tune.importance import CHANCE, NUM_SHUFFLES, importances, why_no_importance
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.tune.plots import plot_courses, plot_importances, plot_parallel, plot_setting, seeds_told_apart
from hdam.platform.tune.records import Ledger, TrialRecord, count_statuses
from hdam.platform.tune.report import SweepReport, best_trial, cells, describe, rounded, short_names
from hdam.platform.worker import PICTURES_DIR

MOST_ROWS = 24
"""Of a table that is not folded away."""


def compose(plan: SweepPlan, ledger: Ledger, report: SweepReport) -> Page:
    """The page, whatever has become of the trials."""
    best = best_trial(plan, ledger.trials)
    sections = [
        Section("Answer", [Paragraphs(lines=answer(report)), Paragraphs(lines=_reading_help(report), look="note")]),
        *([Section("Combinations", _combinations(report))] if report.rows else []),
        *([Section("Setting by setting", _settings(report))] if report.rows else []),
        *([Section("Importance", _importance(report))] if report.rows else []),
        *([Section("Trials", _trials(report))] if report.rows else []),
        *([Section(f"Pictures of trial {best.number}, the best", _pictures(ledger, best))] if best else []),
    ]
    return Page(title=report.sweep.question, facts=_facts(plan, report), sections=sections)


def _facts(plan: SweepPlan, report: SweepReport) -> list[tuple[str, str]]:
    sweep, manifest = report.sweep, plan.prepared.manifest
    how = [f"{sweep.algorithm} search", *([sweep.scheduler] if sweep.scheduler != "none" else [])]
    facts = [
        ("Sweep", report.name),
        ("Experiment", ", ".join(sweep.files)),
        ("Dataset", f"{manifest.name}, fingerprint {manifest.fingerprint}"),
        ("Searched", "; ".join(f"{name}: {_values(values)}" for name, values in report.space.items())),
        ("How", f"{', '.join(how)}; seeds {', '.join(map(str, sweep.seeds))}; {report.num_planned} trials"),
        ("Decided by", f"{sweep.metric}, {report.good} is good"),
        ("MLflow run", report.mlflow_run_id or "–"),
    ]
    return [*facts, *([("Model", f"{report.model_uri}, of the best trial")] if report.model_uri else []), made_now()]


def _values(values: Range) -> str:
    if values.values is not None:
        return ", ".join(map(rounded, values.values))
    low, high = values.bounds or (None, None)
    return f"{rounded(low)} … {rounded(high)}" + (" (logarithmic)" if values.loguniform else "")


def _reading_help(report: SweepReport) -> list[str]:
    """What is to be known of the figures."""
    lines = []
    if sum(bool(row.values) for row in report.rows) > 1:
        lines.append(
            "The best of many combinations looks better than it is: the luck of its seeds helped to choose it."
        )
    if any(trial.status == "stopped" for trial in report.trials):
        lines.append(
            f"Trials that {report.sweep.scheduler} stopped early have no {report.sweep.metric} and count in no mean: "
            "a combination of which some seeds were stopped is that of the better ones."
        )
    if any(trial.changes for trial in report.trials):
        lines.append(
            "Settings have changed on the way, as trials took over each other's weights: tables and charts show those "
            "at the end."
        )
    return lines


def _combinations(report: SweepReport) -> list[Block]:
    columns = ("trials", "ended", report.sweep.metric, "± over seeds", "lowest … highest")
    names = short_names(report.searched)
    header = [Cell(text=text) for text in (*names, *columns)]
    rows = [
        [*(_cell(rounded(row.settings[name])) for name in report.searched), *map(_cell, cells(row))]
        for row in report.rows
    ]
    right = range(len(names) + 2, len(header))
    blocks: list[Block] = [Table(header=header, rows=rows[:MOST_ROWS], right=right)]
    if len(rows) > MOST_ROWS:
        notes = Paragraphs(lines=[f"The best {MOST_ROWS} of {len(rows)} combinations."], look="note")
        blocks += [notes, Table(header=header, rows=rows, right=right, folded="All combinations")]
    return blocks


def _cell(text: str) -> Cell:
    """Not broken into lines."""
    return Cell(text=text.replace(" ", "\u00a0") or "–")


def _settings(report: SweepReport) -> list[Block]:
    blocks: list[Block] = []
    if any(row.values for row in report.rows):
        colours = " in the colours of their seeds" if len(seeds_told_apart(report)) > 1 else ""
        caption = f"Points are finished trials{colours}."
        if report.sweep.scheduler != "pbt":
            caption += " A bar is the mean over those of a value, with the standard deviation over seeds."
        if any(trial.value(report.sweep.metric) is None for trial in report.trials):
            caption += " Marks at the top are trials without a metric: □ stopped early, × failed, ◇ not ended."
        blocks.append(Charts(charts=[plot_setting(report, name) for name in report.searched], caption=caption))
    else:
        blocks.append(Paragraphs(lines=[f"No finished trial has {report.sweep.metric}."]))
    if differences := paired_differences(report):
        blocks += [_differences(report, differences)]
    return blocks


def _differences(report: SweepReport, differences: Sequence[Difference]) -> Table:
    header = ["Setting", "value", "minus", f"{report.sweep.metric}, mean difference", "± over pairs", "better in"]
    names = dict(zip(report.searched, short_names(report.searched), strict=True))
    rows = [
        [
            Cell(text=names[each.setting]),
            Cell(text=rounded(each.value)),
            Cell(text=rounded(each.reference)),
            Cell(text=f"{each.mean:+.3g}", is_bold=each.is_clear),
            _cell(rounded(each.spread)),
            Cell(text=f"{each.num_better} of {len(each.pairs)}"),
        ]
        for each in differences
    ]
    notes = [
        "Each value against the first one that the sweep lists, over all pairs of finished trials that agree in every "
        f"other setting and in the seed; {'below' if report.sweep.mode == 'min' else 'above'} 0 it is better. Bold "
        f"where chance alone gives so one-sided a count in fewer than {CLEAR:.0%} of cases (two-sided sign test; with "
        f"fewer than six pairs never). There are {len(differences)} comparisons here, and of twenty one is bold by "
        "chance.",
    ]
    return Table(header=[Cell(text=text) for text in header], rows=rows, right=(3, 4, 5), notes=notes)


def _importance(report: SweepReport) -> list[Block]:
    if reason := why_no_importance(report):
        return [Paragraphs(lines=[reason])]
    found, count = importances(report), sum(len(row.values) for row in report.rows)
    is_chance = [name for name, each in found.items() if each.share <= each.chance]
    told = f"By Optuna's PED-ANOVA, of {count} finished trials: how differently the good ones spread over the values."
    mark = (
        f"The mark is what chance reaches: {CHANCE:.0%} of {NUM_SHUFFLES} evaluations with the metric dealt out to the "
        "trials at random lie below it."
    )
    verdict = (
        f"Not told from chance: {', '.join(is_chance)}." if is_chance else "All are larger than chance would make them."
    )
    lines = [f"{told} {mark}", verdict]
    return [Paragraphs(lines=lines), Charts(charts=[plot_importances(found)])]


def _trials(report: SweepReport) -> list[Block]:
    charts = [plot_parallel(report), plot_courses(report)]
    blocks: list[Block] = [Charts(charts=[chart]) for chart in charts if chart is not None]
    lead = f"{count_statuses(report.trials)}."
    if any(row.values for row in report.rows):
        lead += (
            " Finished trials are coloured by their rank, from blue, the best, to orange; the best is the thick line."
        )
    blocks.insert(0, Paragraphs(lines=[lead]))
    if any(trial.history for trial in report.trials) and charts[-1] is None:
        told = (
            f"No trial has told its {report.sweep.watched} twice: a smaller log.checkpoint_every gives their courses."
        )
        blocks.append(Paragraphs(lines=[told], look="note"))
    changes = [
        f"Trial {trial.number} took over another one's weights at step {step}, with {describe(settings)}."
        for trial in report.trials
        for step, settings in trial.changes
    ]
    if changes:
        blocks.append(Paragraphs(lines=changes, look="list"))
    return [*blocks, _table_of_trials(report)]


def _table_of_trials(report: SweepReport) -> Table:
    header = ["Trial", *short_names(report.searched), "seed", "ended", report.sweep.metric, "minutes", "MLflow run"]
    rows = [
        [
            Cell(text=str(trial.number)),
            *(_cell(rounded(trial.settings[name])) for name in report.searched),
            Cell(text=str(trial.seed)),
            Cell(text=trial.status, note=trial.reason),
            _cell(rounded(trial.metrics.get(report.sweep.metric, ""))),
            Cell(text=f"{trial.seconds / 60:.1f}"),
            Cell(text="" if trial.mlflow_run_id else "–", note=trial.mlflow_run_id),
        ]
        for trial in report.trials
    ]
    right = (len(header) - 3, len(header) - 2)
    folded = "All trials" if len(rows) > MOST_ROWS else ""
    return Table(header=[Cell(text=text) for text in header], rows=rows, right=right, folded=folded)


def _pictures(ledger: Ledger, best: TrialRecord) -> list[Block]:
    """The newest of its model's training, and the screened anchors."""
    stages = read_record(ledger.folder_of(best), RunRecord).stages
    folders = {kind: tracking.results_dir() / STAGES_DIR / name for kind, name in stages.items()}
    blocks: list[Block] = []
    for kind, folder in reversed(folders.items()):
        painted = sorted((folder / PICTURES_DIR).glob("step-*.png"))
        if painted:
            title = f"Held-out pairs at step {int(painted[-1].stem.removeprefix('step-'))} of stage {kind}"
            blocks.append(_picture(painted[-1], title))
            break
    for folder in folders.values():
        if (folder / SHEET_NAME).is_file():
            blocks.append(_picture(folder / SHEET_NAME, "Motion anchors that were screened"))
    return blocks or [Paragraphs(lines=[f"None are left in {tracking.results_dir() / STAGES_DIR}."])]


def _picture(path: Path, title: str) -> Picture:
    with Image.open(path) as opened:
        width = opened.width
    return Picture(title=title, image=data_uri(path), width=width, description=title)
