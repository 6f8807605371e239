"""The stage `screen`: the equivariance loss of every motion anchor of a trained DAM, and which ones are abnormal."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hdam.experiments.experiment import ScreenConfig
from hdam.models.screening import Screening, screen_anchors
from hdam.platform.animate import best_device
from hdam.platform.datasets import make_bundles
from hdam.platform.figures import save_picture
from hdam.platform.held_out import open_held_out
from hdam.platform.images import frames_to_images
from hdam.platform.job import Job
from hdam.platform.messages import Counted
from hdam.platform.model_folder import read_checkpointed_model
from hdam.platform.pair_plan import PairPlan
from hdam.platform.progress import progress_of
from hdam.platform.remote import Tell, call_on_cluster
from hdam.platform.screening_sheet import draw_screening
from hdam.platform.sharing.checkpoints import brought
from hdam.platform.sharing.store import Place, place_of

LOG = logging.getLogger("hdam")

SHEET_NAME = "screening.png"
BATCHES_AT_ONCE = 8
"""Read and decoded together."""


def screen_stage(job: Job) -> dict[str, Any]:
    """Screen the DAM that the stage is built on; returns the result for the stage's record.

    Raises TrainingError where the work fails on the cluster.
    """
    experiment, sheet = job.stage.experiment, job.folder / SHEET_NAME
    settings, dam = experiment.screen, job.inputs["dam"]
    checkpoint, place = dam.checkpoint, place_of(dam.folder)
    plan = dataclasses.replace(job.prepared.plan, seed=settings.seed)
    with progress_of("screen", settings.num_batches, folder=job.folder) as show:
        found, picture = call_on_cluster(
            lambda tell: screen_checkpoint(checkpoint, plan, settings, place=place, tell=tell),
            experiment.resources,
            on_message=show,
        )
    save_picture(picture, sheet)
    say_screening(found, epsilon=settings.epsilon)
    return {
        "losses": found.losses.tolist(),
        "ignored": list(found.ignored),
        "epsilon": settings.epsilon,
        "num_images": found.num_images,
    }


def screen_checkpoint(
    checkpoint: Path, plan: PairPlan, settings: ScreenConfig, *, place: Place | None, tell: Tell
) -> tuple[Screening, Image.Image]:
    """Screen the model in a checkpoint with the sources of `plan`; also returns a picture of the anchors.

    Where another node has the checkpoint, it is fetched from `place`, its run's in the shared store.
    """
    model, experiment = read_checkpointed_model(brought(checkpoint, place))
    device = best_device()
    found = screen_anchors(
        model.to(device),
        _counted(training_images(plan, settings.num_batches, device), settings.num_batches, tell),
        num_batches=settings.num_batches,
        epsilon=settings.epsilon,
        deformation=experiment.losses.deformation,
        generator=torch.Generator().manual_seed(settings.seed),
    )
    images = open_held_out(plan.dataset, "train").driving
    return found, draw_screening(model, images, found, epsilon=settings.epsilon)


def training_images(plan: PairPlan, num_batches: int, device: torch.device) -> Iterator[Tensor]:
    """The sources of the first steps of `plan`, [pair, 3, size, size] in 0…1, as they are stored."""
    for start in range(0, num_batches, BATCHES_AT_ONCE):
        steps = range(start, min(start + BATCHES_AT_ONCE, num_batches))
        for bundle in make_bundles(plan, steps, micro_batches=1, bundle_steps=1):
            yield frames_to_images(bundle["source"][0, 0], device)


def say_screening(found: Screening, *, epsilon: float) -> None:
    """One line about what was found; all or none is said in so many words."""
    losses, total = found.losses, len(found.losses)
    low, high = losses.min().item(), losses.max().item()
    if not found.ignored:
        LOG.info("no motion anchor is abnormal: the highest loss is %.3g, ε is %g; all are attended", high, epsilon)
    elif len(found.ignored) == total:
        LOG.warning(
            "all %d motion anchors are abnormal: the lowest loss is %.3g, ε is %g; HDAM goes on without attention; "
            "train DAM longer or raise screen.epsilon",
            total,
            low,
            epsilon,
        )
    else:
        names = ", ".join(map(str, found.ignored))
        LOG.info("motion anchors %s of %d are abnormal (losses %.3g…%.3g, ε %g)", names, total, low, high, epsilon)


def _counted(images: Iterator[Tensor], total: int, tell: Tell) -> Iterator[Tensor]:
    for number, batch in enumerate(images, start=1):
        yield batch
        tell(Counted(step=number, total=total))
