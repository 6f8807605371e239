"""What each worker runs: the thin layer between Ray and the training step."""

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed
from ray.train.collective import barrier, broadcast_from_rank_zero
from torch import nn

from hdam.experiments.experiment import Experiment
from hdam.models.objective import build_objective
from hdam.models.weights import load_weights
from hdam.platform.checkpoints import read_checkpoint, write_checkpoint
from hdam.platform.datasets import batches_of_worker
from hdam.platform.held_out import HeldOut, open_held_out
from hdam.platform.locks import is_current
from hdam.platform.memory import keep_freed_memory
from hdam.platform.messages import Kept, Message, Pictured, Post, Skipped, Started, Stepped, Warned
from hdam.platform.meter import Batch, Meter, timed
from hdam.platform.reductions import all_agree
from hdam.platform.sharing.checkpoints import TakenOverError, brought, fetch_newest, share_checkpoints
from hdam.platform.sharing.files import SharedFile
from hdam.platform.sharing.store import Place, patiently
from hdam.platform.sharing.uploader import Uploader
from hdam.platform.skipped import save_batch
from hdam.platform.step import NonFiniteError, StepResult, TrainStep

PICTURES_DIR = "pictures"


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What the driver tells its workers."""

    experiment: Mapping[str, Any]
    run_dir: str
    """On a disk that all nodes share, or where there is a `place`, on each node's own."""
    place: Place | None
    """Of `run_dir` in the shared store, if there is one."""
    initial: str
    """Weights to begin with, where there is no checkpoint yet; empty for random ones."""
    files: tuple[SharedFile, ...]
    """What the training reads besides the dataset, where nodes share no disk."""
    attempt: str
    """Who may write there, see `locks.holding`."""
    lineage: str
    """Of the checkpoints that count, see `StageRecord`."""
    steps_per_epoch: int
    last_step: int
    held_out_split: str
    mailbox: Any
    """Actor handle of a `Mailbox`."""


def run_worker(settings: Mapping[str, Any]) -> None:
    """Train from the newest checkpoint to the last step; `settings["task"]` is a `Task`."""
    task: Task = settings["task"]
    experiment = Experiment.model_validate(task.experiment)
    for file in task.files:
        file.fetch()
    trainer = make_trainer(experiment, task)
    if newest := _find_newest(task, keep=experiment.log.keep_checkpoints):
        trainer.load_state_dict(read_checkpoint(newest))
    held_out = open_held_out(experiment.data.path, task.held_out_split) if _rank() == 0 else None
    Worker(task, experiment, trainer, held_out).run()


class Worker:
    """One worker's share of a training, step by step."""

    def __init__(self, task: Task, experiment: Experiment, trainer: TrainStep, held_out: HeldOut | None) -> None:
        self._task = task
        self._run_dir = Path(task.run_dir)
        self._log = experiment.log
        self._experiment = experiment
        self._trainer = trainer
        self._held_out = held_out
        """On the first worker alone."""
        self._post = Post(task.mailbox)
        self._meter = Meter(experiment.optim.batch_size)
        self._uploader: Uploader | None = None
        """On the first worker alone, where there is a store."""
        if held_out is not None and task.place is not None:
            keep = experiment.log.keep_checkpoints
            self._uploader = Uploader(functools.partial(_share, task, task.place, keep=keep), tell=self._warn)

    def run(self) -> None:
        """Until the last step, or until the driver asks to stop; then all checkpoints are in the store."""
        self._train()
        if self._uploader is not None:
            self._uploader.finish()

    def _train(self) -> None:
        trainer, last = self._trainer, self._task.last_step
        self._tell(Started(step=trainer.step, workers=trainer.workers))
        if trainer.step >= last:
            return
        for batch, waited in timed(batches_of_worker(self._experiment, first_step=trainer.step)):
            result = trainer(batch)
            self._meter.add(result, waited)
            self._tell(Stepped(step=trainer.step))
            if result.fault:
                self._note_fault(result, batch)
            is_end = trainer.step == last or not all_agree(not self._post.wants_stop, trainer.device)
            self._report(is_end=is_end)
            if is_end:
                return
        raise RuntimeError(f"the stream of data ended at step {trainer.step} of {last}")

    def _report(self, *, is_end: bool) -> None:
        """Figures, pictures and checkpoints where they are due; every worker comes here in the same steps."""
        step, log = self._trainer.step, self._log
        if (is_end or step % log.metrics_every == 0) and (measured := self._meter.read(self._trainer)):
            self._tell(measured)
        # While steps are skipped, something may be wrong with the weights: the last good ones stay.
        if is_end or (step % log.checkpoint_every == 0 and not self._trainer.skipped_in_a_row):
            self._keep()
        if is_end or step % log.pictures_every == 0:
            self._paint()

    def _paint(self) -> None:
        if self._held_out is None:
            return
        path = self._run_dir / PICTURES_DIR / f"step-{self._trainer.step:08d}.png"
        with contextlib.suppress(OSError):  # a full disk is told by what matters more
            self._held_out.paint(self._trainer.objective, path)
            content = b"" if self._task.place is None else path.read_bytes()
            self._tell(Pictured(step=self._trainer.step, path=str(path), content=content))

    def _keep(self) -> None:
        """Write a checkpoint on the first worker, and report to Ray, on all.

        The checkpoint itself is not handed to Ray, which hears of one late, remembers it in the run's folder, and
        refuses to start when that memory and the folder differ, as they do after a kill.
        """
        step, task = self._trainer.step, self._task
        if self._held_out is not None:
            # With a store, the uploader asks that, so that no step waits for an answer.
            if task.place is None and not is_current(self._run_dir, task.attempt):
                raise TakenOverError(f"another attempt has taken over {self._run_dir}")
            score = self._held_out.score(self._trainer.objective)
            write_checkpoint(
                self._run_dir,
                self._trainer.state_dict(),
                step=step,
                keep=self._log.keep_checkpoints,
                score=score.l1,
                lineage=task.lineage,
                experiment=task.experiment,
            )
            self._tell(Kept(step=step, l1=score.l1, ratio=score.ratio))
            if self._uploader is not None:
                self._uploader.upload()
        ray.train.report({"step": step})

    def _note_fault(self, result: StepResult, batch: Batch) -> None:
        """Keep the batch that broke a step; give up where they follow on each other."""
        trainer, most = self._trainer, self._experiment.resources.max_skipped
        if result.is_own_fault:
            saved = save_batch(self._run_dir, batch, step=trainer.step, rank=trainer.rank, fault=result.fault)
            self._post(Skipped(step=trainer.step, fault=result.fault, path=str(saved or "")))
        if trainer.skipped_in_a_row >= most:
            raise NonFiniteError(
                f"{most} steps in a row, up to step {trainer.step}, were skipped: {result.fault}; their batches are in "
                f"{self._run_dir}; lower optim.lr (now {trainer.lr:g}) or look at the data"
            )

    def _warn(self, text: str) -> None:
        """Past `Post`, which belongs to the thread of the training."""
        self._task.mailbox.post.remote(Warned(step=self._trainer.step, text=text))

    def _tell(self, message: Message) -> None:
        """What all workers know, the first one tells."""
        if self._held_out is not None:
            self._post(message)


def _find_newest(task: Task, *, keep: int) -> Path | None:
    """The checkpoint that all workers go on from, on this node's disk."""
    run_dir, place, newest = Path(task.run_dir), task.place, None
    if place is not None:
        if ray.train.get_context().get_local_rank() == 0:  # what an earlier attempt on this node could not upload
            patiently(lambda: _share(task, place, keep=keep))
        barrier()
    if _rank() == 0:
        newest = fetch_newest(run_dir, place, attempt=task.attempt)
    newest = broadcast_from_rank_zero(newest)
    return None if newest is None else brought(newest, place)


def _share(task: Task, place: Place, *, keep: int) -> None:
    """Upload what the store has not got of this node's checkpoints."""
    share_checkpoints(Path(task.run_dir), place, attempt=task.attempt, lineage=task.lineage, keep=keep)


def make_trainer(experiment: Experiment, task: Task) -> TrainStep:
    """The training step on this worker's device, with the same first weights on all workers."""
    torch.set_num_threads(experiment.resources.threads_per_worker)
    torch.manual_seed(experiment.seed)
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        keep_freed_memory()
    objective = build_objective(experiment.model, experiment.losses)
    if task.initial:
        load_weights(objective.model, Path(task.initial))
    if device.type == "cuda":  # on a CPU, SyncBatchNorm refuses to work
        objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)
    # Buffers are running statistics, which the first worker keeps for all, and fixed networks: nothing to send around.
    wrapped = ray.train.torch.prepare_model(objective, parallel_strategy_kwargs={"broadcast_buffers": False})
    return TrainStep(
        experiment,
        objective,
        wrapped=wrapped,
        steps_per_epoch=task.steps_per_epoch,
        device=device,
        rank=_rank(),
        workers=ray.train.get_context().get_world_size(),
        micro_batches=experiment.resources.workers,
    )


def _rank() -> int:
    return int(ray.train.get_context().get_world_rank())
