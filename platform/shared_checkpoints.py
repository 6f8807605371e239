"""Checkpoints in the shared store: the same folders as on a disk, uploaded beside the training, fetched at need.

In the store a checkpoint counts from the moment when its seal is there, which comes last and goes first. Without a
store (`place` is None) all this is about the run's folder alone.
"""

import json
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hdam.platform.checkpoints import (
    PREFIX,
    SEAL_NAME,
    STATE_NAME,
    Seals,
    best_checkpoint,
    best_name,
    is_sound,
    kept_names,
    newest_checkpoint,
    sound_checkpoints,
    step_of,
)
from hdam.platform.holds import is_holder
from hdam.platform.store import LONGEST_PAUSE, SECONDS_OF_PATIENCE, SHORTEST_PAUSE, Place, StoreError, patiently

LOG = logging.getLogger("hdam")


class TakenOverError(RuntimeError):
    """Another attempt has the run's place in the store; what this one makes counts no more."""


def newest_step(run_dir: Path, place: Place | None) -> int:
    """Steps done at the newest checkpoint; 0 without one. Raises StoreError where the store is away for minutes."""
    if place is None:
        return step_of(newest_checkpoint(run_dir))
    return step_of(max(map(Path, patiently(lambda: stored_checkpoints(place))), default=None))


def step_to_tell(run_dir: Path, place: Place | None) -> int:
    """As `newest_step`, for messages: where the store does not answer at once, of what is here."""
    try:
        return step_of(max(map(Path, stored_checkpoints(place)), default=None)) if place else newest_step(run_dir, None)
    except StoreError:
        return newest_step(run_dir, None)


def fetch_newest(run_dir: Path, place: Place | None) -> Path | None:
    """The newest sound checkpoint, brought to `run_dir` where it is not there; None without one. Raises StoreError."""
    if place is None:
        return newest_checkpoint(run_dir)
    for name in sorted(patiently(lambda: stored_checkpoints(place)), reverse=True):
        if (folder := fetch_checkpoint(run_dir, place, name)) is not None:
            return folder
    return None


def fetch_checkpoint(run_dir: Path, place: Place, name: str) -> Path | None:
    """Bring a checkpoint to `run_dir`, where it is not there and sound; None where that of the store is damaged.

    A damaged one is named in the log and removed from the store, so that all go on from the same one before. Raises
    StoreError.
    """
    folder = run_dir / name
    if is_sound(folder):
        return folder
    partial = run_dir / f".{name}.{uuid.uuid4().hex}.partial"
    try:
        for file in (STATE_NAME, SEAL_NAME):
            patiently(lambda file=file: place.get(f"{name}/{file}", partial / file))  # type: ignore[misc]
        if not is_sound(partial):
            LOG.warning("checkpoint %s/%s is damaged; going back to the one before", place.address, name)
            patiently(lambda: _remove(place, name))
            return None
        _put_in_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def brought(checkpoint: Path, place: Place | None) -> Path:
    """A checkpoint on this node, fetched where it is only in the store. Raises StoreError where it is not there."""
    if place is not None and fetch_checkpoint(checkpoint.parent, place, checkpoint.name) is None:
        raise StoreError(f"checkpoint {checkpoint.name} is gone from the store {place.address}")
    return checkpoint


def stored_checkpoints(place: Place) -> Seals:
    """The seals of all checkpoints in the store, by name. Raises StoreError."""
    seals: dict[str, Any] = {}
    for name in place.names():
        if name.startswith(PREFIX) and (content := place.read(f"{name}/{SEAL_NAME}")) is not None:
            seals[name] = json.loads(content)
    return seals


def best_known(run_dir: Path, place: Place | None) -> str | None:
    """Name of the checkpoint with the best score; None where none has one. Raises StoreError."""
    if place is None:
        best = best_checkpoint(run_dir)
        return best.name if best else None
    return best_name(stored_checkpoints(place))


def share_checkpoints(run_dir: Path, place: Place, *, attempt: str, keep: int) -> None:
    """Upload the checkpoints in `run_dir` that the store should have and has not, and remove there what is too much.

    Raises StoreError, and TakenOverError where another attempt has the place.
    """
    stored, here = stored_checkpoints(place), sound_checkpoints(run_dir)
    kept = kept_names({**here, **stored}, keep=keep)
    for name in sorted(kept - stored.keys()):
        _upload(run_dir / name, place, attempt)
    for name in [name for name in place.names() if name.startswith(PREFIX) and name not in kept]:
        _check_holder(place, attempt)
        _remove(place, name)


def forget_checkpoints(run_dir: Path, place: Place | None) -> None:
    """Remove all checkpoints, here and in the store. Raises StoreError where the store is away for minutes."""
    for folder in run_dir.glob(f"{PREFIX}*"):
        shutil.rmtree(folder)
    for name in [] if place is None else patiently(place.names):
        if name.startswith(PREFIX):
            patiently(lambda name=name: _remove(place, name))  # type: ignore[arg-type, misc]


class Uploader:
    """Uploads checkpoints in the background, so that no step waits for the store; later, where it is away."""

    def __init__(self, run_dir: Path, place: Place, *, attempt: str, keep: int, tell: Callable[[str], None]) -> None:
        """`tell` hears once of every time that the store is away."""
        self._share = lambda: share_checkpoints(run_dir, place, attempt=attempt, keep=keep)
        self._tell = tell
        self._news = threading.Event()
        self._is_last = False
        self._give_up = float("inf")
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="hdam-upload", daemon=True)
        self._thread.start()

    def upload(self) -> None:
        """There is a new checkpoint. Raises TakenOverError where an earlier one found that another attempt goes on."""
        if self._error is not None:
            raise self._error
        self._news.set()

    def finish(self) -> None:
        """Wait until all is uploaded. Raises TakenOverError, and StoreError where the store is away for minutes."""
        self._give_up = time.monotonic() + SECONDS_OF_PATIENCE
        self._is_last = True
        self._news.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        is_over = False
        while not is_over:
            self._news.wait()
            self._news.clear()
            is_over = self._is_last
            try:
                self._share_patiently()
            except Exception as error:  # raised in the thread of the training
                self._error = error
                return

    def _share_patiently(self) -> None:
        pause = SHORTEST_PAUSE
        while True:
            try:
                self._share()
                return
            except StoreError as error:
                if time.monotonic() + pause > self._give_up:
                    raise
                if pause == SHORTEST_PAUSE:
                    self._tell(f"{error}; checkpoints stay on this node, and are uploaded when it answers")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _upload(folder: Path, place: Place, attempt: str) -> None:
    """State first, seal last; one that is removed meanwhile, because there are newer ones, is left out."""
    for file in (STATE_NAME, SEAL_NAME):
        _check_holder(place, attempt)
        try:
            place.put(folder / file, f"{folder.name}/{file}")
        except StoreError:
            if folder.exists():
                raise
            return


def _remove(place: Place, name: str) -> None:
    place.remove(f"{name}/{SEAL_NAME}")
    place.remove(name)


def _check_holder(place: Place, attempt: str) -> None:
    if not is_holder(place, attempt):
        raise TakenOverError(f"another attempt has taken over {place.address}")


def _put_in_place(partial: Path, folder: Path) -> None:
    """Rename a whole checkpoint, in the place of a damaged one, unless another worker of this node was faster."""
    if is_sound(folder):
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        partial.rename(folder)
    except OSError:
        if not is_sound(folder):
            raise
