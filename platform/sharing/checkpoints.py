"""Checkpoints in the shared store: the same folders as on a disk, uploaded from there, fetched at need.

In the store a checkpoint counts from the moment when its seal is there, which comes last and goes first. Without a
store (`place` is None) all this is about the run's folder alone.
"""

import functools
import json
import logging
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from socket import gethostname
from typing import Any

from hdam.pipelines.errors import InputError
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
    read_seal,
    sound_checkpoints,
    step_of,
)
from hdam.platform.sharing.holds import is_holder
from hdam.platform.sharing.store import Place, StoreError, patiently

LOG = logging.getLogger("hdam")

TRIES = 2
"""For a checkpoint that arrives damaged: the way may have done it."""
SET_ASIDE_DIR = "set_aside"
PINNED = ".upload"


class TakenOverError(InputError):
    """Another attempt has the run's place in the store; what this one makes counts no more."""


def newest_step(run_dir: Path, place: Place | None) -> int:
    """Steps done at the newest checkpoint; 0 without one. Raises StoreError where the store is away for minutes."""
    if place is None:
        return step_of(newest_checkpoint(run_dir))
    return patiently(lambda: stored_step(place))


def stored_step(place: Place) -> int:
    """Steps done at the newest checkpoint in the store; 0 without one. Raises StoreError."""
    return step_of(max(map(Path, stored_checkpoints(place)), default=None))


def step_to_tell(run_dir: Path, place: Place | None) -> int:
    """As `newest_step`, for messages: where the store does not answer at once, of what is here."""
    try:
        return stored_step(place) if place else newest_step(run_dir, None)
    except StoreError:
        return newest_step(run_dir, None)


def fetch_newest(run_dir: Path, place: Place | None, *, attempt: str = "") -> Path | None:
    """The newest sound checkpoint, brought to `run_dir` where it is not there; None without one.

    Damaged ones are named in the log and passed over; an `attempt` that has the place removes them, so that all go on
    from the same one. Raises StoreError, and TakenOverError where another attempt has the place.
    """
    if place is None:
        return newest_checkpoint(run_dir)
    for name in sorted(patiently(lambda: stored_checkpoints(place)), reverse=True):
        if (folder := fetch_checkpoint(run_dir, place, name)) is not None:
            return folder
        if attempt:
            _check_holder(place, attempt)
            patiently(functools.partial(_remove, place, name))
    return None


def fetch_checkpoint(run_dir: Path, place: Place, name: str) -> Path | None:
    """Bring a checkpoint to `run_dir`, unless that very one is there; None where that of the store is damaged.

    Raises StoreError.
    """
    folder = run_dir / name
    seal = patiently(lambda: _read_seal(place, name))
    if seal is None:
        return None
    if _is_same(folder, seal) or any(_download(folder, place, seal) for _ in range(TRIES)):
        return folder
    LOG.warning("checkpoint %s/%s is damaged; going back to the one before", place.address, name)
    return None


def _download(folder: Path, place: Place, seal: Mapping[str, Any]) -> bool:
    """Whether it has arrived whole."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        for file in (STATE_NAME, SEAL_NAME):
            patiently(functools.partial(place.get, f"{folder.name}/{file}", partial / file))
        if is_sound(partial):
            _put_in_place(partial, folder, seal)
            return True
        return False
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def brought(checkpoint: Path, place: Place | None) -> Path:
    """A checkpoint on this node, fetched where it is only in the store. Raises StoreError where it is not there."""
    if place is not None and fetch_checkpoint(checkpoint.parent, place, checkpoint.name) is None:
        raise StoreError(f"checkpoint {checkpoint.name} of {place.address} does not come whole to {gethostname()}")
    return checkpoint


def stored_checkpoints(place: Place) -> Seals:
    """The seals of all whole checkpoints in the store, by name. Raises StoreError."""
    names = [name for name in place.names() if name.startswith(PREFIX)]
    return {name: seal for name in names if (seal := _read_seal(place, name)) is not None}


def _read_seal(place: Place, name: str) -> dict[str, Any] | None:
    """None where it is absent or broken."""
    content = place.read(f"{name}/{SEAL_NAME}")
    try:
        seal: dict[str, Any] | None = None if content is None else json.loads(content)
        return seal if seal is not None and {"sha256", "num_bytes", "score"} <= seal.keys() else None
    except (ValueError, AttributeError):
        return None


def best_known(run_dir: Path, place: Place | None) -> str | None:
    """Name of the checkpoint with the best score; None where none has one. Raises StoreError."""
    if place is None:
        best = best_checkpoint(run_dir)
        return best.name if best else None
    return best_name(stored_checkpoints(place))


def share_checkpoints(run_dir: Path, place: Place, *, attempt: str, lineage: str, keep: int) -> None:
    """Upload the checkpoints in `run_dir` that the store should have and has not, and remove there what is too much.

    Those of another `lineage` are set aside first. The newest comes first, so that a slow store has one that counts.
    Raises StoreError, and TakenOverError where another attempt has the place.
    """
    _set_aside(run_dir, lineage)
    for left in run_dir.glob(f".{PREFIX}*{PINNED}"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    while True:
        stored, here = stored_checkpoints(place), sound_checkpoints(run_dir)
        kept = kept_names({**here, **stored}, keep=keep)
        missing = kept - stored.keys()
        if missing:
            _upload(run_dir / max(missing), place, attempt)
        for name in [name for name in place.names() if name.startswith(PREFIX) and name not in kept]:
            _check_holder(place, attempt)
            _remove(place, name)
        if not missing:
            return


def _set_aside(run_dir: Path, lineage: str) -> None:
    """What a training that had this folder before has left on this disk: it is kept, but is none of this one's."""
    for folder in run_dir.glob(f"{PREFIX}*"):
        other = (read_seal(folder) or {"lineage": lineage}).get("lineage", "")
        if other != lineage:
            target = run_dir / SET_ASIDE_DIR / (other or "unnamed") / folder.name
            LOG.warning("%s is of another training of this stage; it goes to %s", folder, target.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)


def forget_checkpoints(run_dir: Path, place: Place | None) -> None:
    """Remove all checkpoints, here and in the store. Raises StoreError where the store is away for minutes."""
    for folder in run_dir.glob(f"{PREFIX}*"):
        shutil.rmtree(folder)
    if place is None:
        return
    for name in patiently(place.names):
        if name.startswith(PREFIX):
            patiently(functools.partial(_remove, place, name))


def _upload(folder: Path, place: Place, attempt: str) -> None:
    """State first, seal last. The files are linked meanwhile: newer checkpoints may remove the folder."""
    pinned = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}{PINNED}")
    try:
        pinned.mkdir()
        for file in (STATE_NAME, SEAL_NAME):
            (pinned / file).hardlink_to(folder / file)
        for file in (STATE_NAME, SEAL_NAME):
            _check_holder(place, attempt)
            place.put(pinned / file, f"{folder.name}/{file}")
    except FileNotFoundError:  # it was removed already
        return
    finally:
        shutil.rmtree(pinned, ignore_errors=True)


def _remove(place: Place, name: str) -> None:
    place.remove(f"{name}/{SEAL_NAME}")
    place.remove(name)


def _check_holder(place: Place, attempt: str) -> None:
    if not is_holder(place, attempt):
        raise TakenOverError(f"another attempt has taken over {place.address}")


def _put_in_place(partial: Path, folder: Path, seal: Mapping[str, Any]) -> None:
    """Rename a whole checkpoint, in the place of another one, unless another worker of this node was faster."""
    if _is_same(folder, seal):
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        partial.rename(folder)
    except OSError:
        if not _is_same(folder, seal):
            raise


def _is_same(folder: Path, seal: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of this disk is sound, and the very one of the store."""
    here = read_seal(folder)
    return here is not None and here["sha256"] == seal["sha256"] and is_sound(folder)
