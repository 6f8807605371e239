"""How a training goes: messages from its workers to the driver, and what the driver shows of them."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LOG = logging.getLogger("hdam")

SECONDS_PER_LINE = 15.0
SHOWN_LOSSES = ("total", "perceptual", "structure", "equivariance_position")


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The workers begin, or begin again after a failure."""

    step: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Stepped:
    """So many steps are done."""

    step: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Means over the workers and over the steps since the last message of this kind."""

    step: int
    losses: Mapping[str, float]
    lr: float
    pairs_per_second: float
    data_wait: float
    """Share of the time in which the worker waited for data."""
    detector_norm: float
    gpu_gib: float

    def metrics(self) -> dict[str, float]:
        """By the names under which they are logged."""
        return {f"loss/{name}": value for name, value in self.losses.items()} | {
            "lr": self.lr,
            "pairs_per_second": self.pairs_per_second,
            "data_wait": self.data_wait,
            "detector_norm": self.detector_norm,
            "gpu_gib": self.gpu_gib,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictured:
    """A picture was written."""

    step: int
    path: str


Message = Started | Stepped | Measured | Pictured


@ray.remote(num_cpus=0, max_restarts=-1)
class Mailbox:
    """Where workers leave messages without waiting, and the driver fetches them."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def post(self, message: Message) -> None:
        """Leave a message."""
        self._messages.append(message)

    def fetch(self) -> list[Message]:
        """All messages since the last call."""
        messages, self._messages = self._messages, []
        return messages


def fetch_messages(mailbox: Any) -> list[Message]:
    """What has come into a mailbox; nothing while it cannot be reached."""
    try:
        messages: list[Message] = ray.get(mailbox.fetch.remote(), timeout=5)
    except ray.exceptions.RayError:
        return []
    return messages


class Display(Protocol):
    """Shows how far a training is."""

    def show(self, message: Message) -> None:
        """Take notice of a message."""


@contextlib.contextmanager
def display(total_steps: int, *, console: Console) -> Iterator[Display]:
    """A progress bar on a terminal, a line every now and then elsewhere."""
    if not console.is_terminal:
        yield LineDisplay(total_steps)
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        yield BarDisplay(progress, progress.add_task("workers are starting", total=total_steps))


class BarDisplay:
    """A rich progress bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, message: Message) -> None:
        """Move the bar, and write the newest figures beside it."""
        self._progress.update(self._task, completed=message.step)
        if isinstance(message, Measured):
            self._progress.update(self._task, description=figures_line(message))


class LineDisplay:
    """A log line about every 15 seconds."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps
        self._last_line = -SECONDS_PER_LINE
        self._started: tuple[int, float] | None = None

    def show(self, message: Message) -> None:
        """Log the newest figures, unless the last line is young."""
        now = time.monotonic()
        if self._started is None:
            self._started = (message.step, now)
        is_due = now - self._last_line >= SECONDS_PER_LINE or message.step == self._total_steps
        if isinstance(message, Measured) and is_due:
            self._last_line = now
            done, total = message.step, self._total_steps
            LOG.info("step %d of %d, %s%s", done, total, figures_line(message), self._time_left(done, now))

    def _time_left(self, step: int, now: float) -> str:
        first_step, started = self._started or (step, now)
        if step <= first_step:
            return ""
        seconds = (now - started) / (step - first_step) * (self._total_steps - step)
        return f", {seconds / 60:.1f} min left"


def figures_line(message: Measured) -> str:
    """The figures that a person follows."""
    losses = " ".join(f"{name} {message.losses[name]:.3g}" for name in SHOWN_LOSSES if name in message.losses)
    return f"{message.pairs_per_second:.1f} pairs/s, data wait {message.data_wait:.0%}, {losses}"
