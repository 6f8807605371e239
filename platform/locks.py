"""Who works on a folder: one process at a time on a disk, by a lock of the operating system, and one in the store."""

import contextlib
import fcntl
import logging
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from hdam.pipelines.errors import InputError
from hdam.platform.sharing.holds import held, held_elsewhere, is_alive
from hdam.platform.sharing.store import StoreError, place_of

LOG = logging.getLogger("hdam")

LOCK_NAME = ".lock"
SECONDS_OF_PATIENCE = 5.0
"""How long a lock may be held before it counts: the watchdog of a killed driver takes it for a moment."""
POLL_SECONDS = 0.2


@contextlib.contextmanager
def locked(folder: Path, *, is_waiting: bool = False, advice: str = "wait for it") -> Iterator[str]:
    """Hold a folder, which is made where it is missing; the lock goes with the process, however it ends.

    Yields a name for this attempt. Where another process holds the folder, it is waited for if `is_waiting`; else
    InputError is raised, with `advice`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("a") as lock:
        deadline, has_told = time.monotonic() + SECONDS_OF_PATIENCE, False
        while not _can_lock(lock.fileno()):
            if time.monotonic() > deadline and not is_waiting:
                raise InputError(f"{folder} is being worked on by another process; {advice}")
            if time.monotonic() > deadline and not has_told:
                LOG.info("waiting for another process, which is working on %s", folder)
                has_told = True
            time.sleep(POLL_SECONDS)
        attempt = uuid.uuid4().hex
        lock.truncate(0)
        lock.write(attempt)
        lock.flush()
        os.fsync(lock.fileno())  # workers on other nodes read it
        yield attempt


@contextlib.contextmanager
def holding(folder: Path, *, is_waiting: bool = False, advice: str = "wait for it") -> Iterator[str]:
    """Hold a folder as `locked` does, and with a shared store its place there as well, against other machines."""
    with locked(folder, is_waiting=is_waiting, advice=advice) as attempt:
        place = place_of(folder)
        with contextlib.nullcontext() if place is None else held(place, attempt, is_waiting=is_waiting):
            yield attempt


@contextlib.contextmanager
def locked_if_free(folder: Path, *, seconds: float = 0.0) -> Iterator[bool]:
    """Hold a folder, if need be after so many seconds, without being an attempt; False where a process works on it.

    A folder that nobody has ever held is free. Raises StoreError where the shared store is away.
    """
    if (place := place_of(folder)) is not None and (hold := held_elsewhere(place)) is not None:
        yield not is_alive(place, hold)
        return
    try:
        lock = (folder / LOCK_NAME).open()
    except FileNotFoundError:
        yield True
        return
    with lock:
        give_up = time.monotonic() + seconds
        while not (is_free := _can_lock(lock.fileno())) and time.monotonic() < give_up:
            time.sleep(POLL_SECONDS)
        yield is_free


def is_held(folder: Path) -> bool:
    """Whether a process is working on a folder now."""
    with locked_if_free(folder) as is_free:
        return not is_free


def is_current(folder: Path, attempt: str) -> bool:
    """Whether an attempt still has the folder of a shared disk: the workers of a killed driver live on for seconds."""
    return (folder / LOCK_NAME).read_text(encoding="utf-8") == attempt


def is_lost(folder: Path) -> bool:
    """Whether another driver has taken the folder's place in the shared store; unknown is no."""
    place = place_of(folder)
    with contextlib.suppress(StoreError):
        return place is not None and held_elsewhere(place) is not None
    return False


def _can_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
