"""The command `hdam evaluate`."""

from typing import Annotated, Literal

import typer
from rich.console import Console

from hdam.platform.reports import counting

OUT = Console()

PROTOCOLS: dict[str, tuple[Literal["reconstruction", "cross"], ...]] = {
    "both": ("reconstruction", "cross"),
    "reconstruction": ("reconstruction",),
    "cross": ("cross",),
}

WorkerCount = Annotated[
    int | None,
    typer.Option(
        min=1, help="Clips at a time; as many as GPUs, or else CPUs, are up now if absent.", show_default=False
    ),
]
GpusPerWorker = Annotated[
    float | None, typer.Option(min=0, help="1 where a GPU is up now, or else 0, if absent.", show_default=False)
]


def evaluate(
    model: Annotated[
        str, typer.Argument(help="As for hdam animate: models:/NAME@ALIAS, a folder, …", show_default=False)
    ],
    data: Annotated[str, typer.Option(help="Prepared dataset.", show_default=False)],
    split: Annotated[str, typer.Option(help="Which clips.")] = "test",
    protocol: Annotated[
        Literal["both", "reconstruction", "cross"],
        typer.Option(help="Whether clips follow themselves, another identity follows them, or both."),
    ] = "both",
    metrics: Annotated[
        str, typer.Option(help="Names, with commas between; all that can be measured if absent.", show_default=False)
    ] = "",
    cross_mode: Annotated[
        Literal["relative", "absolute", "avd"], typer.Option(help="How another identity follows, as --mode of animate.")
    ] = "relative",
    max_clips: Annotated[
        int | None, typer.Option(min=1, help="Only so many clips, chosen by the seed.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which identity follows which clip.")] = 0,
    workers: WorkerCount = None,
    gpus_per_worker: GpusPerWorker = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew what is measured already.")] = False,
) -> None:
    """Measure a model on held-out clips; the same command goes on where it was stopped."""
    from hdam.platform.evaluation.actors import Workers
    from hdam.platform.evaluation.evaluate import evaluate as run
    from hdam.platform.evaluation.plan import EvaluationSettings
    from hdam.platform.evaluation.publishing import publish_evaluation
    from hdam.platform.evaluation.report import show_evaluation
    from hdam.platform.registry import load_model

    settings = EvaluationSettings(
        split=split,
        protocols=PROTOCOLS[protocol],
        metrics=tuple(name.strip() for name in metrics.split(",") if name.strip()),
        cross_mode=cross_mode,
        seed=seed,
        max_clips=max_clips,
    )
    crew = Workers(count=workers, gpus_each=gpus_per_worker)
    loaded = load_model(model)
    with counting("clips") as count:
        folder = run(loaded, data, settings=settings, fresh=fresh, workers=crew, on_item=count)
    show_evaluation(publish_evaluation(folder, loaded.experiment), folder, OUT)
