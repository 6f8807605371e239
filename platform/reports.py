"""What the commands say when they are done, as tables and short lines."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hdam.pipelines.prepare import PrepareReport
    from hdam.pipelines.prepare import Progress as PrepareProgress
    from hdam.platform.animate import AnimateReport
    from hdam.platform.evaluation.reconstruction import Reconstruction
    from hdam.platform.registry import ModelVersion, RegisteredModel
    from hdam.platform.status import ExperimentStatus
    from hdam.platform.train_report import TrainReport

MIB = 2**20
SHOWN_REJECTED = 10
RUN_ID_LENGTH = 8
"""Letters of an MLflow run's id that are shown: enough to find it by."""


def plain_table(*columns: str, right: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """A table without lines; the columns in `right` hold numbers, and those in `whole` words that are not broken."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        is_whole = column in (*right, *whole)
        table.add_column(column, justify="right" if column in right else "left", no_wrap=is_whole, overflow="fold")
    return table


def show_prepared(report: "PrepareReport", console: Console) -> None:
    """What `hdam prepare` made and what it left out."""
    numbers = ("Clips", "Identities", "Frames", "MiB")
    table = plain_table("Split", *numbers, right=numbers)
    for split, counts in [*sorted(report.manifest.splits.items(), reverse=True), ("all", report.manifest.counts)]:
        amounts = (counts.clips, counts.identities, counts.frames)
        table.add_row(split, *(str(amount) for amount in amounts), f"{counts.num_bytes / MIB:.1f}")
    console.print(table)
    for note in report.notes:
        _say(console, note)
    for rejected in report.rejected[:SHOWN_REJECTED]:
        reason = rejected.reason if rejected.file in rejected.reason else f"{rejected.file}: {rejected.reason}"
        _say(console, f"left out: {reason}", style="yellow")
    if len(report.rejected) > SHOWN_REJECTED:
        more = len(report.rejected) - SHOWN_REJECTED
        _say(console, f"… and {more} more, all in {report.dataset}/rejected.csv", style="yellow")
    if report.was_ready:
        _say(console, f"{report.dataset} is already prepared from the same files with the same options; nothing to do")
    else:
        _say(console, f"Dataset {report.dataset} in {report.seconds:.0f} s; look at {report.dataset}/contact_sheet.png")


def show_animated(report: "AnimateReport", console: Console) -> None:
    """Where the animation is."""
    paths = [report.out, *report.structure, *([report.grid] if report.grid else [])]
    speed = report.num_frames / report.seconds if report.seconds else 0.0
    _say(console, f"{report.num_frames} frames at {report.fps:g} fps, painted at {speed:.1f} frames/s:")
    for path in paths:
        _say(console, f"  {path}")


def show_reconstruction(found: "Reconstruction", console: Console) -> None:
    """The score, and what it has to be held against."""
    _say(
        console,
        f"Reconstruction of {found.num_clips} unseen clips ({found.num_frames} frames): "
        f"L1 {found.l1:.4f} against {found.repeat_l1:.4f} for repeating the source frame: ratio {found.ratio:.2f}",
    )


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr; the function inside takes how many are done, and of how many (None: unknown).

    The bar appears with the first call and vanishes at an error, so that a mistake stays a single line.
    """
    with _counting(what, MofNCompleteColumn()) as count:
        yield count


@contextmanager
def counting_bytes(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """The same of bytes."""
    with _counting(what, DownloadColumn(binary_units=True)) as count:
        yield count


@contextmanager
def _counting(what: str, amount: ProgressColumn) -> Iterator[Callable[[int, int | None], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(what, total=None)

    def count(done: int, total: int | None) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    with _vanishing(bar):
        yield count


@contextmanager
def preparing_bar() -> Iterator[Callable[["PrepareProgress"], None]]:
    """A progress bar on stderr for `hdam prepare`: clips, frames per second, time left; then shards.

    It appears with the first call and vanishes at an error, as that of `counting` does.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tasks: dict[str, TaskID] = {}
    started = time.monotonic()

    def show(progress: "PrepareProgress") -> None:
        bar.start()
        if progress.phase not in tasks:
            for earlier in tasks.values():
                bar.update(earlier, visible=False)
            tasks[progress.phase] = bar.add_task(progress.phase, total=progress.total, speed="")
        rate = progress.num_frames / max(time.monotonic() - started, 1e-3)
        speed = f"{rate:.0f} frames/s" if progress.num_frames else ""
        bar.update(tasks[progress.phase], completed=progress.done, total=progress.total, speed=speed)

    with _vanishing(bar):
        yield show


@contextmanager
def _vanishing(bar: Progress) -> Iterator[None]:
    """Ends a progress bar; at an error it vanishes, so that a mistake stays a single line."""
    try:
        yield
    except BaseException:
        bar.live.transient = True
        bar.live.stop()
        raise
    if bar.live.is_started:
        bar.stop()


def show_trained(report: "TrainReport", console: Console) -> None:
    """What `hdam train` made, and what can be done with it."""
    from hdam.platform.tracking import ui_command

    known = "was finished before" if report.was_known else f"took {report.seconds / 60:.1f} min"
    table = plain_table("Stage", "Outcome", "Time", "MLflow run", "Folder", right=("Time",), whole=("Stage",))
    for stage in report.stages:
        duration = "known" if stage.was_known else f"{stage.seconds:.0f} s"
        run_id, folder = stage.mlflow_run_id[:RUN_ID_LENGTH], Path(stage.folder).name
        table.add_row(*map(Text, (stage.kind, stage.outcome, duration, run_id, folder)))
    console.print(table)
    _say(console, f"The run {known}; checkpoints and pictures are in {report.training_dir}")
    if report.reconstruction is None:
        _say(console, "No clip is held out, so there is no score; prepare with --test-share for one.")
    else:
        show_reconstruction(report.reconstruction, console)
    _say(console, f"Model {report.model_uri}; try")
    _say(
        console,
        f"  hdam animate --model {report.model_uri} --source IMAGE --driving VIDEO --out result.mp4 --structure",
    )
    _say(console, f"  {ui_command()}")


def show_status(status: "ExperimentStatus", console: Console) -> None:
    """The stages of an experiment, and where everything is."""
    columns = ("Stage", "Key", "State", "Details", "Done for", "MLflow run")
    table = plain_table(*columns, whole=("Stage", "Key", "State", "MLflow run"))
    for stage in status.stages:
        run_id = stage.mlflow_run_id[:RUN_ID_LENGTH]
        table.add_row(*map(Text, (stage.kind, stage.key, stage.state, stage.details, stage.experiment, run_id)))
    console.print(table)
    _say(console, f"Run {status.state}; {status.run_dir}, MLflow run {status.mlflow_run_id or 'not begun'}")
    for stage in status.stages:
        if stage.state != "to do":
            best = f" (best on held-out pairs: {stage.best})" if stage.best else ""
            _say(console, f"  {stage.kind}: {stage.place}{best}")
    if status.model_uri:
        _say(console, f"Model {status.model_uri}")


def show_models(models: Sequence["RegisteredModel"], console: Console) -> None:
    """One line per registered name, by its newest version."""
    if not models:
        console.print("No model is registered yet; hdam train registers one.")
        return
    columns = ("Model", "Newest", "Aliases", "Variant", "L1", "Ratio", "Created")
    table = plain_table(*columns, right=("Newest", "L1", "Ratio"), whole=("Variant", "Created"))
    for model in models:
        aliases = [f"{alias}: {version.version}" for version in model.versions for alias in version.aliases]
        newest = model.versions[0] if model.versions else None
        cells = ("", "", "", "", "") if newest is None else (newest.version, *_facts(newest))
        table.add_row(*map(Text, (model.name, cells[0], "\n".join(aliases), *cells[1:])))
    console.print(table)


def show_versions(model: "RegisteredModel", console: Console) -> None:
    """Every version of one registered name."""
    columns = ("Version", "Aliases", "Variant", "L1", "Ratio", "Created", "Steps", "Dataset", "Run")
    table = plain_table(*columns, right=("Version", "L1", "Ratio", "Steps"), whole=("Variant", "Created", "Run"))
    for version in model.versions:
        tags, run = version.tags, version.run_id[:RUN_ID_LENGTH]
        aliases = "\n".join(version.aliases)
        cells = (version.version, aliases, *_facts(version), tags.get("steps", ""), tags.get("dataset", ""), run)
        table.add_row(*map(Text, cells))
    _say(console, model.name, style="bold")
    console.print(table)


def _say(console: Console, line: str, *, style: str = "") -> None:
    """A line that is not wrapped, so that paths in it can be copied, and in which nothing is markup."""
    console.print(Text(line, style=style), soft_wrap=True)


def _facts(version: "ModelVersion") -> tuple[str, str, str, str]:
    """Variant, L1, ratio and date of a version; empty where its tags do not say."""
    tags = version.tags
    created = f"{version.created:%Y-%m-%d}"
    return tags.get("variant", ""), _rounded(tags.get("l1")), _rounded(tags.get("ratio")), created


def _rounded(number: str | None) -> str:
    return "" if number is None else f"{float(number):.4g}"
