"""What the driver shows of a training while it runs."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hdam.pipelines.errors import InputError
from hdam.platform.messages import Counted, Kept, Measured, Message
from hdam.platform.runs import PROGRESS_NAME, write_json

LOG = logging.getLogger("hdam")

SECONDS_PER_LINE = 15.0
SECONDS_PER_WRITING = 2.0
SHOWN_LOSSES = ("total", "perceptual", "structure", "equivariance_position")


class Display(Protocol):
    """Shows how far a training is."""

    def show(self, message: Message) -> None:
        """Take notice of a message."""


@contextlib.contextmanager
def progress_of(what: str, total_steps: int, *, folder: Path) -> Iterator[Callable[[Message], None]]:
    """Takes messages to the screen, and to the progress file in `folder`; `what` names the stage."""
    file = ProgressFile(folder, total_steps)
    with display(what, total_steps, console=Console(stderr=True)) as screen:

        def show(message: Message) -> None:
            screen.show(message)
            file.note(message)

        yield show


class ProgressFile:
    """How far a stage is, for `hdam status`; written every few seconds and at the end."""

    def __init__(self, folder: Path, total_steps: int) -> None:
        self._path = folder / PROGRESS_NAME
        self._content: dict[str, float] = {"total": total_steps}
        self._next_time = 0.0

    def note(self, message: Message) -> None:
        """Take notice of a message."""
        self._content["step"] = message.step
        if isinstance(message, Measured):
            self._content |= {"pairs_per_second": message.pairs_per_second}
        if isinstance(message, Kept):
            self._content |= {"held_out_ratio": message.ratio}
        if time.monotonic() >= self._next_time or message.step == self._content["total"]:
            self._next_time = time.monotonic() + SECONDS_PER_WRITING
            with contextlib.suppress(InputError):  # a full disk is told by what matters more
                write_json(self._path, self._content)


@contextlib.contextmanager
def display(what: str, total_steps: int, *, console: Console) -> Iterator[Display]:
    """A progress bar on a terminal, a line every now and then elsewhere."""
    if not console.is_terminal:
        yield LineDisplay(what, total_steps)
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        yield BarDisplay(progress, progress.add_task("starting", total=total_steps))


class BarDisplay:
    """A rich progress bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._figures = ""
        self._score = ""

    def show(self, message: Message) -> None:
        """Move the bar, and write the newest figures beside it."""
        self._progress.update(self._task, completed=message.step)
        if isinstance(message, Measured):
            self._figures = figures_line(message)
        if isinstance(message, Kept):
            self._score = score_line(message)
        self._progress.update(self._task, description=self._figures + self._score)


class LineDisplay:
    """A log line about every 15 seconds."""

    def __init__(self, what: str, total_steps: int) -> None:
        self._what = what
        self._total_steps = total_steps
        self._last_line = -SECONDS_PER_LINE
        self._started: tuple[int, float] | None = None
        self._score = ""

    def show(self, message: Message) -> None:
        """Log the newest figures, unless the last line is young."""
        now = time.monotonic()
        if self._started is None:
            self._started = (message.step, now)
        if isinstance(message, Kept):
            self._score = score_line(message)
        is_due = now - self._last_line >= SECONDS_PER_LINE or message.step == self._total_steps
        if isinstance(message, Measured | Counted) and is_due:
            self._last_line = now
            done, total = message.step, self._total_steps
            figures = f", {figures_line(message)}{self._score}" if isinstance(message, Measured) else ""
            LOG.info("%s: %d of %d%s%s", self._what, done, total, figures, self._time_left(done, now))

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


def score_line(message: Kept) -> str:
    """How the newest checkpoint does on the held-out pairs."""
    return f", held-out ratio {message.ratio:.2f}"
