"""The command `hdam compare`."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from hdam.platform.commands.evaluate import PROTOCOLS, GpusPerWorker, WorkerCount
from hdam.platform.reports import counting

if TYPE_CHECKING:
    from hdam.pipelines.frame_codec import Pixels
    from hdam.platform.compare.video import Painter
    from hdam.platform.evaluation.metrics import Protocol
    from hdam.platform.evaluation.painting import Frames
    from hdam.platform.model_folder import LoadedModel

OUT = Console()

Mode = Literal["relative", "absolute", "avd"]


def compare(
    models: Annotated[list[str], typer.Argument(help="Two models or more, as for hdam animate.", show_default=False)],
    data: Annotated[str, typer.Option(help="Prepared dataset.", show_default=False)],
    split: Annotated[str, typer.Option(help="Which clips.")] = "test",
    protocol: Annotated[
        Literal["reconstruction", "cross", "both"], typer.Option(help="Clips follow themselves, lead others, or both.")
    ] = "both",
    by: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Chooses the clips that are shown; l1 if absent.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Names, with commas between; all that can be measured if absent.", show_default=False)
    ] = "",
    cross_mode: Annotated[Mode, typer.Option(help="How another identity follows, as --mode of animate.")] = "relative",
    max_clips: Annotated[int | None, typer.Option(min=1, help="Only so many clips; all if absent.")] = None,
    seed: Annotated[int, typer.Option(help="Decides which identity follows which clip.")] = 0,
    workers: WorkerCount = None,
    gpus_per_worker: GpusPerWorker = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Evaluate anew what was evaluated before.")] = False,
) -> None:
    """Compare models on the same clips: a table with intervals, side-by-side videos, and one page with all of it."""
    from hdam.platform.animate import best_device
    from hdam.platform.compare import comparison
    from hdam.platform.compare.clips import check_metric
    from hdam.platform.compare.entrants import check_models
    from hdam.platform.compare.logged import log_comparison
    from hdam.platform.compare.table import show_table
    from hdam.platform.evaluation.actors import Workers
    from hdam.platform.evaluation.evaluate import evaluate
    from hdam.platform.evaluation.plan import EvaluationSettings
    from hdam.platform.evaluation.publishing import publish_evaluation
    from hdam.platform.registry import load_model
    from hdam.platform.tracking import results_dir, ui_command

    names = tuple(name.strip() for name in metrics.split(",") if name.strip())
    if by is not None:
        check_metric(by, protocols=PROTOCOLS[protocol], metrics=names)
    loaded = [load_model(uri) for uri in models]
    check_models(loaded, data)
    settings = EvaluationSettings(
        split=split,
        protocols=PROTOCOLS[protocol],
        cross_mode=cross_mode,
        metrics=names,
        max_clips=max_clips,
        seed=seed,
    )
    folders, crew = [], Workers(count=workers, gpus_each=gpus_per_worker)
    for each in loaded:
        with counting(f"clips, {each.name}") as count:
            folders.append(evaluate(each, data, settings=settings, fresh=fresh, workers=crew, on_item=count))
        publish_evaluation(folders[-1], each.experiment)
    for each in loaded:
        each.model.to(best_device())
    parent = results_dir() / comparison.COMPARISONS_DIR
    with counting("videos") as count:
        report = comparison.compare(
            folders, loaded, data, paint=painter(cross_mode), by=by, parent=parent, on_film=count
        )
    run_id = log_comparison(report)
    show_table(report.entrants, report.scores, OUT)
    for line in (report.verdict, f"Page: {report.page}", *([f"MLflow run {run_id}; {ui_command()}"] if run_id else [])):
        OUT.print(Text(line), soft_wrap=True)


def painter(mode: Mode) -> "Painter":
    """How the evaluation paints: a clip follows itself, or another identity follows it in `mode`."""
    from hdam.platform.evaluation.painting import follow_itself, follow_other

    def paint(loaded: "LoadedModel", protocol: "Protocol", source: "Pixels", driving: "Frames") -> "Frames":
        if protocol == "reconstruction":
            return follow_itself(loaded.model, driving).frames
        return follow_other(loaded.model, source, driving, mode=mode).frames

    return paint
