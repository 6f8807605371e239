"""The main job on an embedded default: puppets are made, prepared and trained on, and unseen ones are made to move."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from hdam.experiments.loading import load_experiment, override
from hdam.pipelines.manifest import MANIFEST_NAME
from hdam.pipelines.prepare_options import PrepareOptions
from hdam.pipelines.puppets import write_puppets
from hdam.pipelines.tasks import RunTasks
from hdam.platform.animate import AnimateReport, animate, best_device
from hdam.platform.model_folder import LoadedModel
from hdam.platform.preparing import ray_tasks, run_prepare
from hdam.platform.registry import load_model
from hdam.platform.reports import counting, plain_table
from hdam.platform.showcase import Showcase, cast_scenes, write_showcase
from hdam.platform.train import train
from hdam.platform.train_report import TrainReport

EXPERIMENT_NAME = "quickstart.yaml"
DATASET_NAME = "puppets"
"""Goes into the model's name: `hdam-puppets`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PuppetSettings:
    """How many puppets, and which."""

    num_clips: int = 160
    num_frames: int = 48
    test_share: float = 0.1
    seed: int = 0


class QuickstartReport(NamedTuple):
    """Everything that the quickstart made."""

    puppets: Path
    dataset: Path
    trained: TrainReport
    showcase: Showcase
    animation: AnimateReport
    """An unseen puppet moved by its own clip, with its anchors."""
    seconds: dict[str, float]
    """How long each part took in this call."""


def run_quickstart(
    out: Path, *, console: Console, settings: PuppetSettings, changes: Mapping[str, Any]
) -> QuickstartReport:
    """Make puppets in `out`, prepare them, train the shipped experiment (with `changes` by dotted name), and animate.

    What is there already from an earlier call with the same settings is used again. Raises as `train` does.
    """
    seconds: dict[str, float] = {}
    experiment = load_experiment(Path(str(resources.files("hdam.experiments") / EXPERIMENT_NAME)), changes)
    size = experiment.data.size
    label = f"{settings.num_clips}x{settings.num_frames}_{size}px_seed{settings.seed}"
    puppets, dataset = out / f"puppets_{label}", out / f"dataset_{label}"
    with _part("puppets", seconds, console):
        _make_puppets(puppets, settings, size=size)
    with ray_tasks(resources=experiment.resources) as run_tasks:  # one Ray for both, since it takes seconds to start
        with _part("dataset", seconds, console):
            _make_dataset(puppets, dataset, size=size, run_tasks=run_tasks)
        with _part("training", seconds, console):
            trained = train(override(experiment, {"data.path": str(dataset)}))
    with _part("pictures", seconds, console):
        loaded = load_model(trained.model_uri, device=best_device())
        scenes = cast_scenes(str(dataset), device=best_device())
        showcase = write_showcase(loaded.model, scenes, out, name="quickstart")
        animation = _animate(loaded, puppets / "clips" / scenes[0].driving.identity, out)
    return QuickstartReport(puppets, dataset, trained, showcase, animation, seconds)


def show_quickstart(report: QuickstartReport, console: Console) -> None:
    """Where everything is, how long it took, and what to do next."""
    table = plain_table("Part", "Seconds", right=("Seconds",))
    for name, seconds in report.seconds.items():
        table.add_row(name, f"{seconds:.0f}")
    console.print(table)
    lines = {
        "look at": report.showcase.sheet,
        "and": report.showcase.video,
        "anchors": report.animation.structure[-1],
        "training": report.trained.training_dir,
        "puppets": report.puppets / "contact_sheet.png",
    }
    for what, path in lines.items():
        console.print(f"{what:>9}  {path}", highlight=False, soft_wrap=True)


def _make_puppets(folder: Path, settings: PuppetSettings, *, size: int) -> None:
    if folder.exists():
        return
    with counting("puppets") as count:
        write_puppets(
            folder,
            num_clips=settings.num_clips,
            num_frames=settings.num_frames,
            size=size,
            seed=settings.seed,
            test_share=settings.test_share,
            on_clip=lambda index: count(index + 1, settings.num_clips),
        )


def _make_dataset(puppets: Path, dataset: Path, *, size: int, run_tasks: RunTasks) -> None:
    if (dataset / MANIFEST_NAME).exists():
        return
    options = PrepareOptions(size=size)
    run_prepare(str(puppets), str(dataset), options=options, run_tasks=run_tasks, name=DATASET_NAME)


def _animate(loaded: LoadedModel, clip: Path, out: Path) -> AnimateReport:
    """What `hdam animate` would do with an unseen puppet; its pose is taken as it is, since it is its own."""
    still = next(iter(sorted(clip.glob("*.png"))))
    return animate(loaded, source=still, driving=clip, out=out / "puppet.mp4", mode="absolute", structure=True)


@contextmanager
def _part(name: str, seconds: dict[str, float], console: Console) -> Iterator[None]:
    """Say what is done now, and take its time."""
    console.rule(name, align="left")
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started
