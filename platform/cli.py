"""The command line: one function per command, mistakes told in one line.

Torch, Ray, MLflow and PyAV are imported inside the commands that need them, so that `hdam --help` answers at once.
"""

import logging
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from typer.core import TyperGroup

from hdam.pipelines.errors import InputError
from hdam.platform.commands.bench import bench_app
from hdam.platform.commands.cluster import cluster_app
from hdam.platform.commands.compare import compare
from hdam.platform.commands.data import data_app
from hdam.platform.commands.detectors import detectors_app
from hdam.platform.commands.evaluate import evaluate
from hdam.platform.commands.jobs import jobs_app, submit
from hdam.platform.commands.models import models_app
from hdam.platform.commands.plan import plan
from hdam.platform.commands.published import export_weights, import_weights
from hdam.platform.commands.show import show_app, structure_score
from hdam.platform.commands.tune import tune
from hdam.platform.commands.weights import weights_app
from hdam.platform.reports import counting

LOG = logging.getLogger("hdam")
OUT = Console()
SECONDS_FORMAT = "%H:%M:%S"

Layout = Literal["videos", "frames", "published", "strips", "voxceleb", "taichi", "ted", "mgif", "fashion", "table"]
"""The names of `hdam.pipelines.layouts`, here because importing that takes a while."""


class Commands(TyperGroup):
    """Runs a command; a user's mistake becomes one line on stderr and status 2, Ctrl-C a word and status 130."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` names."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write("\nhdam: interrupted\n")
            raise typer.Exit(130) from None
        except Exception as error:
            if not _is_mistake(error):
                raise
            LOG.debug("where the mistake was found", exc_info=error)
            sys.stderr.write(f"hdam: {' '.join(str(error).split())}\n")
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make a still image move like a driving video: prepare videos, train on Ray, animate.",
)
app.add_typer(data_app, name="data")
app.add_typer(models_app, name="models")
app.add_typer(weights_app, name="weights")
app.add_typer(detectors_app, name="detectors")
app.add_typer(bench_app, name="bench")
app.add_typer(cluster_app, name="cluster")
app.command("import-weights")(import_weights)
app.command("export-weights")(export_weights)
app.add_typer(show_app, name="show")
app.command("structure-score")(structure_score)
app.command()(evaluate)
app.command()(compare)
app.command()(tune)
app.command()(plan)
app.command(context_settings={"allow_interspersed_args": False})(submit)  # what follows the command is the command's
app.add_typer(jobs_app, name="jobs")


def main() -> None:
    """Entry of the console script `hdam`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow would send some as soon as it is imported
    app(prog_name="hdam")


def _is_mistake(error: Exception) -> bool:
    # WeightsError lives beside torch; where torch was never imported it cannot have been raised.
    weights = sys.modules.get("hdam.models.weights")
    return isinstance(error, (InputError, weights.WeightsError) if weights else InputError)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hdam {metadata.version('hdam')}")
        raise typer.Exit


@app.callback()
def prepare_console(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more, with tracebacks of mistakes.")] = False,
    version: Annotated[  # noqa: ARG001 - its callback has printed it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up logging for every command."""
    handler = RichHandler(console=Console(stderr=True), show_path=False, log_time_format=SECONDS_FORMAT)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", datefmt=SECONDS_FORMAT, handlers=[handler])
    LOG.setLevel(logging.DEBUG if verbose else logging.INFO)


@app.command()
def doctor(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Ask every node of the cluster of RAY_ADDRESS what it reaches.")
    ] = False,
    data: Annotated[
        str, typer.Option(help="With --cluster: a dataset that nodes should reach.", show_default=False)
    ] = "",
) -> None:
    """Say what this machine has, and what is missing for which command; or what the nodes of a cluster reach."""
    from hdam.platform.doctor import examine, show_findings

    if data and not cluster:
        raise InputError("--data is for --cluster; hdam data verify looks at a dataset from here")
    if cluster:
        from hdam.platform.cluster_doctor import examine_cluster

    findings = examine_cluster(data) if cluster else examine()
    show_findings(findings, OUT)
    if any(finding.is_essential and not finding.is_good for finding in findings):
        raise typer.Exit(1)


@app.command()
def puppets(
    folder: Annotated[Path, typer.Argument(help="New folder for the clips.", show_default=False)],
    clips: Annotated[int, typer.Option(help="Number of clips, each a figure of its own.")] = 64,
    frames: Annotated[int, typer.Option(help="Frames in each clip.")] = 48,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 64,
    seed: Annotated[int, typer.Option(help="Another seed, other figures.")] = 0,
) -> None:
    """Write clips of procedural figures: data without a download."""
    from hdam.pipelines.puppets import write_puppets

    with counting("puppets") as count:
        write_puppets(
            folder, num_clips=clips, num_frames=frames, size=size, seed=seed, on_clip=lambda i: count(i + 1, clips)
        )
    OUT.print(f"{clips} clips in {folder}; look at {folder / 'contact_sheet.png'}", highlight=False, soft_wrap=True)


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="Videos: a folder, a file, or s3://…", show_default=False)],
    dataset: Annotated[str, typer.Argument(help="New folder for the shards, or s3://…", show_default=False)],
    size: Annotated[int, typer.Option(help="Height and width of the frames in pixels.")],
    layout: Annotated[Layout | None, typer.Option(help="How the videos lie; found out if absent.")] = None,
    table: Annotated[str | None, typer.Option(help="CSV of files with identity, split, crop and trim.")] = None,
    fit: Annotated[Literal["crop", "pad"], typer.Option(help="How a rectangle becomes a square.")] = "crop",
    background: Annotated[str, typer.Option(help="Colour of padding and of transparent pixels.")] = "white",
    test_share: Annotated[float, typer.Option(help="Share of the identities that is held out.")] = 0.1,
    lossless: Annotated[bool, typer.Option("--lossless", help="Store PNG instead of JPEG.")] = False,
    seed: Annotated[int, typer.Option(help="Decides which identities are held out.")] = 0,
    name: Annotated[str | None, typer.Option(help="Goes into the model's name; the folder's name if absent.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Take only this many frames of each clip.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there.")] = False,
    cpus: Annotated[int | None, typer.Option(min=1, help="Clips at once; as many as there are CPUs if absent.")] = None,
) -> None:
    """Turn videos into a dataset of shards; the same command goes on where it was stopped."""
    from hdam.pipelines.prepare_options import PrepareOptions, parse_colour
    from hdam.platform.preparing import ray_tasks, run_prepare
    from hdam.platform.reports import show_prepared

    options = PrepareOptions(
        size=size,
        fit=fit,
        background=parse_colour(background),
        test_share=test_share,
        codec="png" if lossless else "jpeg",
        seed=seed,
        max_frames=max_frames,
    )
    with ray_tasks(cpus=cpus) as run_tasks:
        report = run_prepare(
            source,
            dataset,
            options=options,
            run_tasks=run_tasks,
            layout=layout,
            table=table,
            name=name,
            overwrite=overwrite,
        )
    show_prepared(report, OUT)


@app.command()
def train(
    experiment: Annotated[Path, typer.Argument(help="YAML file, or the name of a shipped one.", show_default=False)],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting: --set optim.lr=1e-4")
    ] = None,
    start: Annotated[
        str, typer.Option("--from", metavar="STAGE", help="Do this stage and those after it anew.", show_default=False)
    ] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Do all stages anew.")] = False,
) -> None:
    """Do all stages of an experiment and register the model; the same command goes on where it was stopped."""
    from hdam.experiments.loading import find_shipped, load_experiment, parse_overrides

    settings = load_experiment(find_shipped(experiment), parse_overrides(changes or []))
    if fresh and start:
        raise InputError(f"--fresh does all stages anew, --from {start} only some; give one of them")
    from hdam.platform import train as training  # torch, ray and mlflow: only once the settings are right
    from hdam.platform.reports import show_trained

    show_trained(training.train(settings, fresh=fresh, start=start), OUT)


@app.command()
def status(
    experiment: Annotated[Path, typer.Argument(help="YAML file, or the name of a shipped one.", show_default=False)],
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="As for hdam train.")] = None,
) -> None:
    """Say how far an experiment is: its stages, their runs, and where the results are."""
    from hdam.experiments.loading import find_shipped, load_experiment, parse_overrides

    settings = load_experiment(find_shipped(experiment), parse_overrides(changes or []))
    from hdam.platform.reports import show_status
    from hdam.platform.status import examine_experiment

    show_status(examine_experiment(settings), OUT)


@app.command()
def animate(
    model: Annotated[str, typer.Option(help="models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN/model or a folder.")],
    source: Annotated[Path, typer.Option(help="Image whose look is kept.")],
    driving: Annotated[Path, typer.Option(help="Video, GIF or frame folder whose motion is taken.")],
    out: Annotated[Path, typer.Option(help="mp4, gif, or no suffix for a folder of PNGs.")],
    mode: Annotated[
        Literal["relative", "absolute", "avd"],
        typer.Option(help="Take over the change since the first driving frame, the driving pose, or the pose by AVD."),
    ] = "relative",
    structure: Annotated[bool, typer.Option("--structure", help="Also draw the anchors.")] = False,
    grid: Annotated[bool, typer.Option("--grid", help="Also write source, driving and result side by side.")] = False,
) -> None:
    """Make a still image move like a driving video."""
    from hdam.platform import animate as animating
    from hdam.platform.registry import load_model
    from hdam.platform.reports import show_animated

    loaded = load_model(model, device=animating.best_device())
    with counting("frames") as count:
        report = animating.animate(
            loaded, source=source, driving=driving, out=out, mode=mode, structure=structure, grid=grid, on_frame=count
        )
    show_animated(report, OUT)


@app.command()
def quickstart(
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything that is made; results/quickstart if absent.")
    ] = None,
) -> None:
    """Make puppets, train on them, and let unseen ones move: the whole road on one machine."""
    from hdam.platform.quickstart import PuppetSettings, run_quickstart, show_quickstart
    from hdam.platform.reports import show_trained
    from hdam.platform.tracking import results_dir

    folder = out or results_dir() / "quickstart"
    report = run_quickstart(folder, console=OUT, settings=PuppetSettings(), changes={})
    show_trained(report.trained, OUT)
    show_quickstart(report, OUT)


if __name__ == "__main__":
    main()
