"""The commands about structure: `hdam show structure`, `hdam show overlap` and `hdam structure-score`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from hdam.platform.reports import counting

OUT = Console()

show_app = typer.Typer(no_args_is_help=True, help="Look into a model: which structure it has found.")

Model = Annotated[str, typer.Argument(help="As for hdam animate: models:/NAME@ALIAS, a folder, …", show_default=False)]
Data = Annotated[str, typer.Option(help="Prepared dataset.", show_default=False)]
NumFrames = Annotated[int, typer.Option(min=1, help="Frames of each clip, evenly spread.")]


@show_app.callback()
def prepare_show() -> None:
    """Look into a model: which structure it has found."""


@show_app.command("structure")
def show_structure(
    model: Model,
    driving: Annotated[Path, typer.Option(help="Video, GIF or frame folder.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder; results/structure/VIDEO if absent.", show_default=False)
    ] = None,
) -> None:
    """Draw the anchors over a video, and its flow masks, occlusion and attention."""
    from hdam.platform.animate import best_device
    from hdam.platform.registry import load_model
    from hdam.platform.structure.view import show_structure as draw
    from hdam.platform.tracking import results_dir

    folder = out or results_dir() / "structure" / driving.stem
    loaded = load_model(model, device=best_device())
    with counting("frames") as count:
        report = draw(loaded, driving=driving, out=folder, on_frame=count)
    _say_paths(f"{report.num_frames} frames:", report.paths)


@show_app.command("overlap")
def show_overlap(
    model: Model,
    data: Data,
    split: Annotated[str, typer.Option(help="Which clips.")] = "test",
    frames: NumFrames = 16,
    threshold: Annotated[float, typer.Option(min=0, help="Overlap is nearer than this, in % of the side.")] = 2.5,
    out: Annotated[Path | None, typer.Option(help="JSON file; a CSV lies beside it.", show_default=False)] = None,
) -> None:
    """Say how near intermediate anchors lie to motion anchors, and how well eq. (8) holds (supplementary, 3)."""
    from hdam.platform.animate import best_device
    from hdam.platform.registry import load_model
    from hdam.platform.structure import overlap as reporting
    from hdam.platform.structure.report import check_json

    if out is not None:
        check_json(out)
    loaded, share = load_model(model, device=best_device()), threshold / 100
    with counting("clips") as count:
        rows = reporting.measure_dataset(loaded, data, split=split, num_frames=frames, threshold=share, on_clip=count)
    reporting.show_overlap(rows, OUT, threshold=share)
    if out is not None:
        _say_paths("Written to", reporting.save_overlap(loaded, rows, data, out, threshold=share))


def structure_score(
    models: Annotated[list[str], typer.Argument(help="Models, as for hdam animate.", show_default=False)],
    data: Data,
    frames: NumFrames = 16,
    figures: Annotated[int, typer.Option(min=2, help="Figures that are rendered in several looks.")] = 16,
    out: Annotated[
        Path | None, typer.Option(help="JSON file, a CSV beside it; results/structure_score.json if absent.")
    ] = None,
) -> None:
    """Score what models know of puppets: joints, centroid, parts, and what is only a look."""
    from hdam.platform.animate import best_device
    from hdam.platform.registry import load_model
    from hdam.platform.structure.report import ScoredModel, check_json, save_scores, show_scores
    from hdam.platform.structure.score import ScoreSettings, score_structure
    from hdam.platform.tracking import results_dir

    path = out or results_dir() / "structure_score.json"
    check_json(path)
    settings = ScoreSettings(num_frames=frames, num_figures=figures)
    scored = []
    for loaded in [load_model(uri, device=best_device()) for uri in models]:
        with counting(f"clips, {loaded.name}") as count:
            scored.append(ScoredModel(loaded, score_structure(loaded, data, settings=settings, on_clip=count)))
    show_scores(scored, OUT)
    _say_paths("Written to", save_scores(scored, data, settings, path))


def _say_paths(line: str, paths: Iterable[Path]) -> None:
    """Lines that are not wrapped, so that paths can be copied."""
    for text in (line, *(f"  {path}" for path in paths)):
        OUT.print(Text(text), soft_wrap=True)
