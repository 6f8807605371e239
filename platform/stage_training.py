"""The stages that train: `fomm`, `dam` and `hdam`."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hdam.experiments.experiment import Experiment
from hdam.models.growth import grow_weights
from hdam.models.hdam import MotionModel
from hdam.models.weights import save_weights
from hdam.platform.checkpoints import newest_checkpoint, read_checkpoint, step_of
from hdam.platform.fit import fit
from hdam.platform.job import Job
from hdam.platform.messages import Kept, Measured, Message, Pictured, Skipped, Started
from hdam.platform.outbox import Outbox
from hdam.platform.progress import Display, display
from hdam.platform.runs import PROGRESS_NAME, write_json
from hdam.platform.stages import with_screening

LOG = logging.getLogger("hdam")

INITIAL_NAME = "initial.safetensors"
GROWTH_NAME = "growth.json"
SECONDS_PER_PROGRESS = 2.0


def train_stage(job: Job) -> dict[str, Any]:
    """Train what the newest checkpoint has not seen; returns the result for the stage's record.

    Raises TrainingError, InputError and WeightsError.
    """
    last_step = job.prepared.num_steps(job.stage)
    experiment = experiment_of(job)
    losses: dict[str, float] = {}
    if step_of(newest_checkpoint(job.folder)) < last_step:
        losses = _train_rest(job, experiment, last_step=last_step)
    (job.folder / INITIAL_NAME).unlink(missing_ok=True)
    newest = newest_checkpoint(job.folder)
    assert newest is not None, "a training ends with a checkpoint"
    return {"steps": last_step, "skipped": read_checkpoint(newest)["skipped"], "losses": losses}


def experiment_of(job: Job) -> Experiment:
    """The experiment that the stage trains, with the anchors that were found abnormal before."""
    screen = job.inputs.get("screen")
    if screen is None:
        return job.stage.experiment
    return with_screening(job.stage.experiment, tuple(screen.result["ignored"]))  # type: ignore[arg-type]


def _train_rest(job: Job, experiment: Experiment, *, last_step: int) -> dict[str, float]:
    """Returns the last mean losses."""
    initial = _initial_weights(job, experiment)
    with display(job.stage.kind, last_step, console=Console(stderr=True)) as screen:
        listener = Listener(screen, job, total=last_step)
        try:
            fit(
                experiment,
                job.prepared.plan,
                run_dir=job.folder,
                attempt=job.attempt,
                last_step=last_step,
                held_out_split=job.prepared.held_out_split,
                on_message=listener,
                initial=initial,
            )
        finally:
            listener.outbox.close()
    return listener.losses


def _initial_weights(job: Job, experiment: Experiment) -> Path | None:
    """HDAM's first weights, grown from the DAM that it is built on; None for a training that begins from scratch."""
    dam = job.inputs.get("dam")
    if dam is None:
        return None
    path, origin = job.folder / INITIAL_NAME, dam.checkpoint
    torch.manual_seed(experiment.seed)
    model = MotionModel(experiment.model)
    tensors = read_checkpoint(origin)["model"]
    growth = grow_weights(model, tensors, anchors=dam.stage.experiment.model.anchors, origin=str(origin))
    save_weights(model, path)
    write_json(job.folder / GROWTH_NAME, growth._asdict())
    counts = [len(names) for names in growth]
    told = "weights from %s: %d tensors copied, %d grown, %d fresh (listed in %s)"
    LOG.info(told, dam.folder.name, *counts, GROWTH_NAME)
    return path


class Listener:
    """Takes the workers' messages to the screen, to the stage's folder and to MLflow."""

    def __init__(self, screen: Display, job: Job, *, total: int) -> None:
        self._screen = screen
        self._folder = job.folder
        self._total = total
        self._has_started = False
        self._progress: dict[str, Any] = {"total": total}
        self._next_progress = 0.0
        self.outbox = Outbox(job.client, job.run_id, folder=job.folder)
        self.losses: dict[str, float] = {}
        """The newest means."""

    def __call__(self, message: Message) -> None:
        """Handle one message."""
        self._screen.show(message)
        self._note_progress(message)
        if isinstance(message, Measured):
            self.losses = dict(message.losses)
        if isinstance(message, Measured | Kept):
            self.outbox.add(message.metrics(), step=message.step)
        elif isinstance(message, Pictured):
            self.outbox.add_picture(Path(message.path), step=message.step)
        elif isinstance(message, Skipped):
            where = f"; its batch is kept in {message.path}" if message.path else ""
            LOG.warning("step %d was skipped: %s%s", message.step, message.fault, where)
        elif isinstance(message, Started):
            if self._has_started:
                LOG.warning("a worker failed; all go on from step %d", message.step)
            elif message.step:
                LOG.info("going on from the checkpoint of step %d", message.step)
            self._has_started = True

    def _note_progress(self, message: Message) -> None:
        """Write the progress file every few seconds, and at the end."""
        self._progress["step"] = message.step
        self._progress |= _progress_of(message)
        if time.monotonic() >= self._next_progress or message.step == self._total:
            self._next_progress = time.monotonic() + SECONDS_PER_PROGRESS
            try:
                write_json(self._folder / PROGRESS_NAME, self._progress)
            except OSError:  # a full disk is told by what matters more
                return


def _progress_of(message: Message) -> Mapping[str, float]:
    if isinstance(message, Measured):
        return {"pairs_per_second": message.pairs_per_second, "loss": message.losses.get("total", 0.0)}
    return {"held_out_ratio": message.ratio} if isinstance(message, Kept) else {}
