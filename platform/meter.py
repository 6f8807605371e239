"""What a worker measures while it trains."""

import time
from collections.abc import Iterable, Iterator, Mapping

import torch
import torch.distributed
from torch import Tensor

from hdam.platform.messages import Measured
from hdam.platform.step import StepResult, TrainStep

Batch = Mapping[str, Tensor]


def timed(batches: Iterable[Batch]) -> Iterator[tuple[Batch, float]]:
    """Batches with the seconds that each was waited for."""
    started = time.perf_counter()
    for batch in batches:
        yield batch, time.perf_counter() - started
        started = time.perf_counter()


class Meter:
    """Means over steps and workers."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._names: list[str] = []
        self._sum: Tensor | None = None
        self._reset()

    def add(self, result: StepResult, waited: float) -> None:
        """Count one step; one that was skipped has no figures."""
        self._waited += waited
        self._steps += 1
        if result.fault:
            return
        self._whole_steps += 1
        values = torch.stack([*result.losses.values(), result.detector_norm.detach()])
        self._sum = values if self._sum is None else self._sum + values
        self._names = list(result.losses)

    def read(self, trainer: TrainStep) -> Measured | None:
        """The means since the last reading, None where all steps were skipped; every worker has to call this."""
        if self._sum is None:
            return None
        means = self._sum / self._whole_steps
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
            skipped=trainer.skipped,
            gpu_gib=torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0,
        )
        self._reset()
        return measured

    def _reset(self) -> None:
        self._sum = None
        self._steps = self._whole_steps = 0
        self._waited = 0.0
        self._started = time.perf_counter()
