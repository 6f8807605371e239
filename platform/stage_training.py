"""The stages that train: a model, or its AVD network."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hdam.experiments.experiment import Experiment
from hdam.models.families import build_model
from hdam.models.growth import add_avd, grow_weights
from hdam.models.weights import save_weights
from hdam.platform.checkpoints import read_checkpoint, step_of
from hdam.platform.failures import TrainingError
from hdam.platform.fit import fit
from hdam.platform.job import Job
from hdam.platform.messages import Kept, Measured, Message, Pictured, Skipped, Started, Warned
from hdam.platform.outbox import Outbox
from hdam.platform.progress import progress_of
from hdam.platform.runs import write_json
from hdam.platform.sharing.checkpoints import fetch_newest, newest_step
from hdam.platform.sharing.store import Place, patiently, place_of
from hdam.platform.stages import with_screening

LOG = logging.getLogger("hdam")

INITIAL_NAME = "initial.safetensors"
GROWTH_NAME = "growth.json"


def train_stage(job: Job) -> dict[str, Any]:
    """Train what the newest checkpoint has not seen; returns the result for the stage's record.

    Raises TrainingError, InputError and WeightsError.
    """
    last_step = job.prepared.num_steps(job.stage)
    experiment = experiment_of(job)
    losses: dict[str, float] = {}
    place = place_of(job.folder)
    if newest_step(job.folder, place) < last_step:
        losses = _train_rest(job, experiment, last_step=last_step)
    _forget_initial(job.folder, place)
    newest = fetch_newest(job.folder, place)
    if newest is None or step_of(newest) != last_step:
        raise TrainingError(
            f"{job.folder} has no sound checkpoint of step {last_step}; the same command trains the rest"
        )
    return {"steps": last_step, "skipped": read_checkpoint(newest)["skipped"], "losses": losses}


def _forget_initial(folder: Path, place: Place | None) -> None:
    (folder / INITIAL_NAME).unlink(missing_ok=True)
    if place is None:
        return
    for name in patiently(place.names):
        if name.endswith(INITIAL_NAME):
            patiently(functools.partial(place.remove, name))


def experiment_of(job: Job) -> Experiment:
    """The experiment that the stage trains, with the anchors that were found abnormal before."""
    screen = job.inputs.get("screen")
    if screen is None:
        return job.stage.experiment
    return with_screening(job.stage.experiment, tuple(screen.result["ignored"]))  # type: ignore[arg-type]


def _train_rest(job: Job, experiment: Experiment, *, last_step: int) -> dict[str, float]:
    """Returns the last mean losses."""
    initial = _initial_weights(job, experiment)
    with progress_of(job.stage.kind, last_step, folder=job.folder) as show:
        listener = Listener(show, job)
        try:
            fit(
                experiment,
                job.prepared.plan,
                run_dir=job.folder,
                attempt=job.attempt,
                lineage=job.lineage,
                last_step=last_step,
                held_out_split=job.prepared.held_out_split,
                on_message=listener,
                initial=initial,
            )
        finally:
            listener.outbox.close()
    return listener.losses


def _initial_weights(job: Job, experiment: Experiment) -> Path | None:
    """The first weights, grown from those of the training before; None where there are weights, or none to grow."""
    before = next((done for done in job.inputs.values() if done.stage.is_training), None)
    if before is None or newest_step(job.folder, place_of(job.folder)):
        return None
    path, origin = job.folder / INITIAL_NAME, before.checkpoint
    torch.manual_seed(experiment.seed)
    model = build_model(experiment.model)
    tensors = read_checkpoint(origin)["model"]
    if job.stage.kind == "avd":
        growth = add_avd(model, tensors, origin=str(origin))
    else:
        growth = grow_weights(model, tensors, anchors=before.stage.experiment.model.anchors, origin=str(origin))
    save_weights(model, path)
    write_json(job.folder / GROWTH_NAME, growth._asdict())
    counts = [len(names) for names in growth]
    told = "weights from %s: %d tensors copied, %d grown, %d fresh (listed in %s)"
    LOG.info(told, before.folder.name, *counts, GROWTH_NAME)
    return path


class Listener:
    """Takes the workers' messages to the screen and to MLflow."""

    def __init__(self, show: Callable[[Message], None], job: Job) -> None:
        self._show = show
        self._job = job
        self._workers = 0
        """At work now; none before the first start."""
        self.outbox = Outbox(job.client, job.run_id, folder=job.folder)
        self.losses: dict[str, float] = {}
        """The newest means."""
        self._has_lost_picture = False
        """The newest could not be written."""

    def __call__(self, message: Message) -> None:
        """Handle one message."""
        self._show(message)
        self._note(message)
        self._job.on_message(self._job.stage.kind, message)

    def _note(self, message: Message) -> None:
        if isinstance(message, Measured):
            self.losses = dict(message.losses)
        if isinstance(message, Measured | Kept):
            self.outbox.add(message.metrics(), step=message.step)
        elif isinstance(message, Pictured):
            self._take_picture(message)
        elif isinstance(message, Skipped):
            where = f"; its batch is kept in {message.path}" if message.path else ""
            LOG.warning("step %d was skipped: %s%s", message.step, message.fault, where)
        elif isinstance(message, Warned):
            LOG.warning("%s", message.text)
        elif isinstance(message, Started):
            self._note_start(message)

    def _note_start(self, message: Started) -> None:
        """Say how a training goes on, and with how many workers where some are missing, or were."""
        all_workers, before, self._workers = (
            self._job.stage.experiment.resources.workers,
            self._workers,
            message.workers,
        )
        share = f"{message.workers} of {all_workers} workers"
        if before and message.workers > before:
            LOG.info("grown to %s, from step %d", share, message.step)
        elif before:
            LOG.warning("a worker failed; %s go on from step %d", share, message.step)
        elif message.step:
            LOG.info("going on from the checkpoint of step %d", message.step)
        if message.workers < all_workers:
            LOG.warning(
                "%s, each with %d micro-batches a step; it becomes more when there is room at a checkpoint",
                share,
                all_workers // message.workers,
            )

    def _take_picture(self, message: Pictured) -> None:
        """From this node's disk, or from the message, where the worker has another one."""
        path = Path(message.path)
        try:
            if message.content and not path.exists():
                _write_picture(path, message.content)
        except OSError as error:  # the workers' disks, and the training, are none the worse for it
            if not self._has_lost_picture:
                LOG.warning("%s cannot be written (%s); pictures are left out until it can", path, error.strerror)
            self._has_lost_picture = True
        else:
            self._has_lost_picture = False
            self.outbox.add_picture(path, step=message.step)


def _write_picture(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
