"""What each worker runs: the thin layer between Ray and the training step."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed
from ray.train.collective import broadcast_from_rank_zero
from torch import Tensor, nn

from hdam.experiments.experiment import Experiment
from hdam.models.objective import build_objective
from hdam.platform.checkpoints import newest_checkpoint, read_checkpoint, write_checkpoint
from hdam.platform.datasets import batches_of_worker
from hdam.platform.memory import keep_freed_memory
from hdam.platform.pictures import PICTURES_DIR, held_out_pairs, paint_pairs
from hdam.platform.progress import Measured, Message, Pictured, Started, Stepped
from hdam.platform.runs import is_current
from hdam.platform.step import StepResult, TrainStep

SECONDS_PER_MESSAGE = 0.5
Batch = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What the driver tells its workers."""

    experiment: Mapping[str, Any]
    run_dir: str
    """On a disk that all nodes share."""
    attempt: str
    """Who may write there, see `runs.locked`."""
    steps_per_epoch: int
    last_step: int
    pictured_split: str
    mailbox: Any
    """Actor handle of a `Mailbox`."""


def run_worker(settings: Mapping[str, Any]) -> None:
    """Train from the newest checkpoint to the last step; `settings["task"]` is a `Task`."""
    task: Task = settings["task"]
    experiment, run_dir, is_first = Experiment.model_validate(task.experiment), Path(task.run_dir), _rank() == 0
    trainer = make_trainer(experiment, steps_per_epoch=task.steps_per_epoch)
    if newest := broadcast_from_rank_zero(newest_checkpoint(run_dir)):
        trainer.load_state_dict(read_checkpoint(newest))
    post = Post(task.mailbox) if is_first else _keep_silent
    post(Started(step=trainer.step))
    if trainer.step >= task.last_step:
        return
    pictured = held_out_pairs(experiment.data.path, task.pictured_split) if is_first else None
    meter, log = Meter(experiment.optim.batch_size), experiment.log
    for batch, waited in timed(batches_of_worker(experiment, first_step=trainer.step)):
        meter.add(trainer(batch), waited)
        step, is_last = trainer.step, trainer.step == task.last_step
        post(Stepped(step=step))
        if is_last or step % log.metrics_every == 0:
            post(meter.read(trainer))
        if pictured and (is_last or step % log.pictures_every == 0):
            path = run_dir / PICTURES_DIR / f"step-{step:08d}.png"
            paint_pairs(trainer.objective.model, pictured, path)
            post(Pictured(step=step, path=str(path)))
        if is_last or step % log.checkpoint_every == 0:
            keep_state(trainer, task, keep=log.keep_checkpoints)


def make_trainer(experiment: Experiment, *, steps_per_epoch: int) -> TrainStep:
    """The training step on this worker's device, with the same first weights on all workers."""
    torch.set_num_threads(experiment.resources.threads_per_worker)
    torch.manual_seed(experiment.seed)
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        keep_freed_memory()
    objective = build_objective(experiment.model, experiment.losses)
    if device.type == "cuda":  # on a CPU, SyncBatchNorm refuses to work
        objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)
    # Buffers are running statistics, which the first worker keeps for all, and fixed networks: nothing to send around.
    wrapped = ray.train.torch.prepare_model(objective, parallel_strategy_kwargs={"broadcast_buffers": False})
    return TrainStep(
        experiment, objective, wrapped=wrapped, steps_per_epoch=steps_per_epoch, device=device, rank=_rank()
    )


def keep_state(trainer: TrainStep, task: Task, *, keep: int) -> None:
    """Write a checkpoint on the first worker, and report to Ray; every worker has to call this.

    The checkpoint itself is not handed to Ray, which hears of one late, remembers it in the run's folder, and refuses
    to start when that memory and the folder differ, as they do after a kill.
    """
    run_dir = Path(task.run_dir)
    if _rank() == 0:
        if not is_current(run_dir, task.attempt):
            raise RuntimeError(f"another attempt has taken over {run_dir}")
        write_checkpoint(run_dir, trainer.state_dict(), step=trainer.step, keep=keep)
    ray.train.report({"step": trainer.step})


def timed(batches: Iterable[Batch]) -> Iterator[tuple[Batch, float]]:
    """Batches with the seconds that each was waited for."""
    started = time.perf_counter()
    for batch in batches:
        yield batch, time.perf_counter() - started
        started = time.perf_counter()


class Post:
    """Sends messages to the driver without waiting; of `Stepped` only one every now and then."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._last = 0.0

    def __call__(self, message: Message) -> None:
        """Send `message`."""
        now = time.monotonic()
        if isinstance(message, Stepped) and now - self._last < SECONDS_PER_MESSAGE:
            return
        self._last = now
        self._mailbox.post.remote(message)


class Meter:
    """Means over steps and workers."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._names: list[str] = []
        self._sum: Tensor | None = None
        self._reset()

    def add(self, result: StepResult, waited: float) -> None:
        """Count one step."""
        values = torch.stack([*result.losses.values(), result.detector_norm.detach()])
        self._sum = values if self._sum is None else self._sum + values
        self._names = list(result.losses)
        self._steps += 1
        self._waited += waited

    def read(self, trainer: TrainStep) -> Measured:
        """The means since the last reading; every worker has to call this."""
        assert self._sum is not None, "nothing was added"
        means = self._sum / self._steps
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(means)
            means /= torch.distributed.get_world_size()
        *losses, detector_norm = means.tolist()
        seconds = time.perf_counter() - self._started
        measured = Measured(
            step=trainer.step,
            losses=dict(zip(self._names, losses, strict=True)),
            lr=trainer.lr,
            pairs_per_second=self._steps * self._batch_size / seconds,
            data_wait=min(1.0, self._waited / seconds),
            detector_norm=detector_norm,
            gpu_gib=torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0,
        )
        self._reset()
        return measured

    def _reset(self) -> None:
        self._sum = None
        self._steps = 0
        self._waited = 0.0
        self._started = time.perf_counter()


def _keep_silent(_: Message) -> None:
    """The other workers have nothing to tell that the first does not."""


def _rank() -> int:
    return int(ray.train.get_context().get_world_rank())
