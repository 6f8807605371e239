"""Who works on a folder of the shared store: a small file there that its holder renews, and that others look at.

A lock of the operating system, `locks.locked`, keeps apart the processes that share a disk. Between machines that share
nothing but the store, a hold does: `.hold.json` in the folder's place, with the attempt and a beat that goes up every
few seconds. No clocks are compared: a hold whose beat stands still for a minute belongs to a driver that is gone.

A store has no lock, so that two may write their hold at the same moment. The last one has it; the other finds out at
once or at its next beat, and `is_current` tells its workers, which then write nothing any more.
"""

import contextlib
import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from hdam.pipelines.errors import InputError
from hdam.platform.sharing.store import Place, StoreError, patiently
from hdam.platform.tracking import results_dir

LOG = logging.getLogger("hdam")

HOLD_NAME = ".hold.json"
DISK_NAME = ".disk"
"""Holds a name of the results folder on this disk, so that a driver knows a hold that was left on its own disk."""
SECONDS_TO_SETTLE = 1.0
"""Between writing a hold and looking whether another one has taken its place."""
SECONDS_PER_BEAT = 5.0
SECONDS_TO_STALE = 60.0
SECONDS_TO_WAKE = 12.5
"""In which the other holds of a process have to stand still as well, once one of them did for `SECONDS_TO_STALE`."""

PROCESS = uuid.uuid4().hex
_stale: "set[Hold]" = set()
"""Holds that this process has seen stand still."""


class Hold(NamedTuple):
    """What a hold says."""

    attempt: str
    disk: str
    """Of the holder's results folder."""
    host: str
    """For messages."""
    beat: int
    process: str = ""
    """Of the holder, which may hold other places too."""


def read_hold(place: Place) -> Hold | None:
    """The hold on a place; None where nobody has it. Raises StoreError."""
    content = place.read(HOLD_NAME)
    try:
        return None if content is None else Hold(**json.loads(content))
    except (ValueError, TypeError):  # of another version
        return None


def is_holder(place: Place, attempt: str) -> bool:
    """Whether an attempt has the place. Raises StoreError."""
    hold = read_hold(place)
    return hold is not None and hold.attempt == attempt


def held_elsewhere(place: Place) -> Hold | None:
    """The hold of a driver with another disk, dead or alive. Raises StoreError."""
    hold = read_hold(place)
    return hold if hold is not None and hold.disk != disk_name() else None


def check_mine(place: Place) -> None:
    """Raises InputError where a driver with another disk has taken the place, and StoreError."""
    if (hold := held_elsewhere(place)) is not None:
        raise InputError(f"{place.address} was taken over by another process on {hold.host}; nothing is written here")


def is_alive(place: Place, hold: Hold) -> bool:
    """Whether a hold is renewed: its driver is gone where it is not for a minute. Raises StoreError.

    Where it was let go, nobody is alive; where another driver has it now, that one is. A hold is judged once: one that
    stood still for a minute, and still does, is not looked at for another, and the next one of the same process only
    to see whether that has woken up.
    """
    if hold in _stale:
        return False
    is_suspect = bool(hold.process) and any(known.process == hold.process for known in _stale)
    give_up = time.monotonic() + (SECONDS_TO_WAKE if is_suspect else SECONDS_TO_STALE)
    while time.monotonic() < give_up:
        time.sleep(SECONDS_TO_SETTLE)
        if (now := patiently(lambda: read_hold(place))) != hold:
            return now is not None
    _stale.add(hold)
    return False


@contextlib.contextmanager
def held(place: Place, attempt: str, *, is_waiting: bool) -> Iterator[None]:
    """Hold a place in the name of `attempt`, until the block ends; the caller holds the lock of the folder.

    Where another machine holds it, it is waited for if `is_waiting`; else InputError is raised. Raises StoreError where
    the store is away for minutes.
    """
    hold = Hold(attempt, disk_name(), socket.gethostname(), 0, PROCESS)
    is_mine = False
    while not is_mine:
        left = _wait(place, is_waiting=is_waiting)
        is_mine = patiently(lambda left=left: _take(place, hold, left=left))  # type: ignore[misc]
    beating = _Beating(place, hold)
    try:
        yield
    finally:
        beating.stop()


def disk_name() -> str:
    """Of the results folder; it is given one where it has none."""
    path = results_dir() / DISK_NAME
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f".{uuid.uuid4().hex}.partial")
        own.write_text(uuid.uuid4().hex, encoding="utf-8")
        with contextlib.suppress(FileExistsError):  # another process was faster, and its name stays
            path.hardlink_to(own)
        own.unlink()
    return path.read_text(encoding="utf-8")


def _wait(place: Place, *, is_waiting: bool) -> Hold | None:
    """Until nobody on another disk holds the place; returns the hold of one who is gone, if there is one."""
    has_told = False
    while (hold := patiently(lambda: held_elsewhere(place))) is not None:
        if not has_told:
            LOG.info("%s is held by %s; looking whether it still works on it", place.address, hold.host)
        has_told = True
        if not is_alive(place, hold):
            return hold
        if not is_waiting:
            raise InputError(
                f"{place.address} is being worked on by another process on {hold.host}; wait for it, or use --fresh"
            )
    return None


def _take(place: Place, hold: Hold, *, left: Hold | None) -> bool:
    """Write a hold over one that was left, or none; False where somebody else has come before. Raises StoreError.

    The store may have been away since it was looked at, and another one may have been faster when it came back.
    """
    if held_elsewhere(place) not in (None, left):
        return False
    _write(place, hold)
    time.sleep(SECONDS_TO_SETTLE)
    return is_holder(place, hold.attempt)


def _write(place: Place, hold: Hold) -> None:
    place.write(HOLD_NAME, json.dumps(hold._asdict()).encode())


class _Beating:
    """Renews a hold in the background, until another one has taken its place or it is let go."""

    def __init__(self, place: Place, hold: Hold) -> None:
        self._place = place
        self._hold = hold
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hdam-hold", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._is_over.wait(SECONDS_PER_BEAT):
            try:
                if not is_holder(self._place, self._hold.attempt):  # its workers find out by themselves
                    LOG.warning("%s was taken over by another process; stopping here", self._place.address)
                    return
                self._hold = self._hold._replace(beat=self._hold.beat + 1)
                _write(self._place, self._hold)
            except StoreError as error:
                LOG.debug("%s", error)  # whoever needs the store says so

    def stop(self) -> None:
        """Let go of the place, should it still be held."""
        self._is_over.set()
        self._thread.join()
        with contextlib.suppress(StoreError):
            if is_holder(self._place, self._hold.attempt):
                self._place.remove(HOLD_NAME)
