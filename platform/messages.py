"""What workers tell the driver, and the mailbox in which they leave it."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray

SECONDS_TO_ANSWER = 15.0
"""How long the driver waits for a mailbox, which answers at once on a machine that is not overloaded."""
SECONDS_PER_MESSAGE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The workers begin, or begin again after a failure or with another number."""

    step: int
    workers: int


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
    skipped: int
    """Steps of the whole training that were skipped."""
    gpu_gib: float

    def metrics(self) -> dict[str, float]:
        """By the names under which they are logged."""
        return {f"loss/{name}": value for name, value in self.losses.items()} | {
            "lr": self.lr,
            "pairs_per_second": self.pairs_per_second,
            "data_wait": self.data_wait,
            "detector_norm": self.detector_norm,
            "skipped_steps": self.skipped,
            "gpu_gib": self.gpu_gib,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictured:
    """A picture was written."""

    step: int
    path: str
    content: bytes = b""
    """Of the file, where the driver's node may have another disk; else empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A checkpoint was written; its weights have this score on the held-out pairs."""

    step: int
    l1: float
    ratio: float
    """In units of repeating the source."""

    def metrics(self) -> dict[str, float]:
        """By the names under which they are logged."""
        return {"held_out/l1": self.l1, "held_out/ratio": self.ratio}


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A step updated nothing, since something was no number."""

    step: int
    fault: str
    path: str
    """Where the batch is kept; empty where enough are kept already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned:
    """Something that does not stop the training, but should be known."""

    step: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """So many of so many are done, in a stage that is no training."""

    step: int
    total: int


Message = Started | Stepped | Measured | Pictured | Kept | Skipped | Warned | Counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """A node of the cluster has gone."""

    node: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """A node has come to the cluster."""

    node: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """There is no room for the workers; told at first, and every now and then."""

    needs: str
    has: str
    seconds: float
    """How long it will be waited for at most."""


MachineMessage = Lost | Joined | Waiting
"""What is told of the cluster, not of the training."""
Told = TypeVar("Told", bound=Message | MachineMessage)


@ray.remote(num_cpus=0, max_restarts=-1)
class Mailbox:
    """Where workers leave messages without waiting, and the driver fetches them.

    A message stays until the driver says that it has it: an answer may be lost, by a signal or for want of time.
    """

    def __init__(self) -> None:
        self._messages: list[tuple[int, Any]] = []
        self._number = time.time_ns()
        """Of the newest message; a mailbox that was lost goes on above the numbers of the one before."""
        self._wants_stop = False

    def post(self, message: Message | MachineMessage) -> bool:
        """Leave a message; the answer is whether the driver wants the training to stop."""
        self._number += 1
        self._messages.append((self._number, message))
        return self._wants_stop

    def ask_to_stop(self) -> None:
        """Let every later message be answered with the wish to stop."""
        self._wants_stop = True

    def fetch(self, newest: int) -> list[tuple[int, Any]]:
        """All messages with numbers above `newest`, the last one that the driver has; the others are forgotten."""
        self._messages = [(number, message) for number, message in self._messages if number > newest]
        return self._messages


class Inbox(Generic[Told]):
    """The driver's side of a mailbox, to which messages of certain kinds come."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._newest = 0
        """Number of the last message that was handed on."""

    def fetch(self) -> Iterator[Told]:
        """What has come since the last time, each message once; nothing while the mailbox cannot be reached."""
        for number, message in self._answer():
            self._newest = number  # before it is handled, so that no signal makes it be handled twice
            yield message

    def _answer(self) -> list[tuple[int, Told]]:
        try:
            answer: list[tuple[int, Told]] = ray.get(
                self._mailbox.fetch.remote(self._newest), timeout=SECONDS_TO_ANSWER
            )
        except ray.exceptions.RayError:
            return []
        return answer


class Post:
    """Sends messages to the driver without waiting; of `Stepped` only one every now and then."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._last = 0.0
        self._answer: Any = None
        self.wants_stop = False
        """Whether the driver has asked to stop, as far as is known here."""

    def __call__(self, message: Message) -> None:
        """Send `message`, and look whether the answer to an earlier one has come."""
        now = time.monotonic()
        if isinstance(message, Stepped) and now - self._last < SECONDS_PER_MESSAGE:
            return
        self._last = now
        self._read_answer()
        answer = self._mailbox.post.remote(message)
        self._answer = self._answer or answer

    def _read_answer(self) -> None:
        if self._answer is None or not ray.wait([self._answer], timeout=0)[0]:
            return
        with contextlib.suppress(ray.exceptions.RayError):  # the mailbox may be lost, and comes back empty
            self.wants_stop = self.wants_stop or bool(ray.get(self._answer))
        self._answer = None
