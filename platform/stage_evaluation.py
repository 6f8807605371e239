"""The stage `evaluate`: the reconstruction of the held-out clips."""

import logging
from pathlib import Path
from typing import Any

from hdam.platform.animate import best_device
from hdam.platform.evaluation.reconstruction import Reconstruction, reconstruct
from hdam.platform.job import Job
from hdam.platform.messages import Counted
from hdam.platform.model_folder import read_checkpointed_model
from hdam.platform.progress import progress_of
from hdam.platform.remote import Tell, call_on_cluster
from hdam.platform.sharing.checkpoints import brought
from hdam.platform.sharing.store import Place, place_of
from hdam.platform.stages import TEST_SPLIT
from hdam.platform.train_report import reconstruction_to_json

LOG = logging.getLogger("hdam")


def evaluate_stage(job: Job) -> dict[str, Any]:
    """Score the trained model on the held-out clips; returns the result for the stage's record.

    Where nothing is held out, the result says so. Raises TrainingError where the work fails on the cluster.
    """
    experiment, (trained,) = job.prepared.experiment, job.inputs.values()
    if not job.prepared.has_test_clips:
        LOG.warning("%s has no test split, so the model is not evaluated", experiment.data.path)
        return {"steps": trained.result["steps"], "reconstruction": None}
    checkpoint, dataset, place = trained.checkpoint, experiment.data.path, place_of(trained.folder)
    total = job.prepared.manifest.splits[TEST_SPLIT].clips
    with progress_of("evaluate", total, folder=job.folder) as show:
        found = call_on_cluster(
            lambda tell: evaluate_checkpoint(checkpoint, dataset, place=place, total=total, tell=tell),
            experiment.resources,
            on_message=show,
        )
    return {"steps": trained.result["steps"], "reconstruction": reconstruction_to_json(found)}


def evaluate_checkpoint(
    checkpoint: Path, dataset: str, *, place: Place | None, total: int, tell: Tell
) -> Reconstruction:
    """The reconstruction by the model in a checkpoint; `tell` hears how many of the `total` clips are done.

    Where another node has the checkpoint, it is fetched from `place`, its run's in the shared store.
    """
    model, _ = read_checkpointed_model(brought(checkpoint, place))

    def count(done: int) -> None:
        tell(Counted(step=done, total=total))

    return reconstruct(model, dataset, split=TEST_SPLIT, device=best_device(), on_clip=count)
