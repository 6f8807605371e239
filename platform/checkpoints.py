"""Checkpoints: a folder per step, whole or absent, and known to be damaged where it is.

step-00000200/
  state.pt          tensors and plain values only: read without running anything
  checkpoint.json   what the state is: step, size, sha256, score, lineage and experiment; written last
"""

import errno
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from hdam.pipelines.errors import InputError

LOG = logging.getLogger("hdam")

STATE_NAME = "state.pt"
SEAL_NAME = "checkpoint.json"
PREFIX = "step-"
Seals = Mapping[str, Mapping[str, Any]]
"""What is known of checkpoints, by their names."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_checkpoint(
    run_dir: Path,
    state: Mapping[str, Any],
    *,
    step: int,
    keep: int,
    score: float | None = None,
    lineage: str = "",
    experiment: Mapping[str, Any] | None = None,
) -> Path:
    """Write the checkpoint of a step under a temporary name and rename it.

    Of all sound ones the newest `keep` stay, and the one with the lowest `score`. `lineage` is that of the training's
    `StageRecord`. `experiment` makes the folder a model that `load_model` takes. Raises InputError where the disk is
    full; what was there before stays.
    """
    target = run_dir / f"{PREFIX}{step:08d}"
    partial = run_dir / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        seal = {"step": step, "score": score, "lineage": lineage, "experiment": experiment}
        digest = _write_sealed(partial, state, seal)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno not in NO_SPACE:
            raise
        raise InputError(
            f"the checkpoint of step {step} does not fit on the disk of {run_dir} ({error.strerror}); make room there"
        ) from error
    status = (target / STATE_NAME).stat()
    _known_digests[target / STATE_NAME, status.st_size, status.st_mtime_ns] = digest
    _remove_old(run_dir, keep=keep)
    return target


def copy_checkpoint(source: Path, run_dir: Path, *, lineage: str) -> None:
    """Let another training go on from a checkpoint, which gets the `lineage` of that one."""
    target = run_dir / source.name
    shutil.copytree(source, target)
    seal = {**(read_seal(source) or {}), "lineage": lineage}
    (target / SEAL_NAME).write_text(json.dumps(seal), encoding="utf-8")


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The newest sound checkpoint of a run; damaged ones are named in the log and passed over."""
    for folder in _folders(run_dir):
        if is_sound(folder):
            return folder
        LOG.warning("checkpoint %s is damaged; going back to the one before", folder)
    return None


def best_checkpoint(run_dir: Path) -> Path | None:
    """The sound checkpoint with the lowest score; None where none has one."""
    seals = {folder.name: seal for folder in _folders(run_dir) if (seal := read_seal(folder))}
    while (name := best_name(seals)) is not None and not is_sound(run_dir / name):
        del seals[name]
    return run_dir / name if name else None


def sound_checkpoints(run_dir: Path) -> Seals:
    """The seals of all sound checkpoints, by name."""
    return {folder.name: seal for folder in _folders(run_dir) if (seal := read_seal(folder)) and is_sound(folder)}


def best_name(seals: Seals) -> str | None:
    """Name of the checkpoint with the lowest score; None where none has one."""
    scores = {name: seal["score"] for name, seal in seals.items()}
    scored = [name for name, score in scores.items() if score is not None and math.isfinite(score)]
    return min(sorted(scored, reverse=True), key=lambda name: scores[name], default=None)


def kept_names(seals: Seals, *, keep: int) -> set[str]:
    """Of sound checkpoints the names of those that stay: the newest `keep`, and the best."""
    best = best_name(seals)
    return {*sorted(seals, reverse=True)[:keep], *([best] if best else [])}


def is_sound(folder: Path) -> bool:
    """Whether a checkpoint holds the very bytes that it was written with."""
    seal = read_seal(folder)
    try:
        return seal is not None and _digest(folder / STATE_NAME) == seal["sha256"]
    except OSError:  # it was removed meanwhile, or cannot be read
        return False


def read_seal(folder: Path) -> dict[str, Any] | None:
    """What is known of a checkpoint; None where it is not whole."""
    try:
        seal: dict[str, Any] = json.loads((folder / SEAL_NAME).read_text(encoding="utf-8"))
        return seal if (folder / STATE_NAME).stat().st_size == seal["num_bytes"] else None
    except (OSError, ValueError, KeyError):
        return None


def step_of(folder: Path | None) -> int:
    """Steps done at a checkpoint; 0 without one."""
    return int(folder.name.removeprefix(PREFIX)) if folder else 0


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The state that was written, on the CPU."""
    state: dict[str, Any] = torch.load(folder / STATE_NAME, map_location="cpu", weights_only=True)
    return state


class _DigestingFile:
    """A file that is being written, and the digest of what went in; keeps the error that torch puts aside."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _write_sealed(folder: Path, state: Mapping[str, Any], seal: Mapping[str, Any]) -> str:
    """Returns the digest of the state."""
    with (folder / STATE_NAME).open("wb") as file:
        digesting = _DigestingFile(file)
        try:
            torch.save(dict(state), digesting)  # type: ignore[arg-type]
        except Exception:
            if digesting.error is not None:
                raise digesting.error from None
            raise
        file.flush()
        os.fsync(file.fileno())
    content = {**seal, "num_bytes": (folder / STATE_NAME).stat().st_size, "sha256": digesting.digest.hexdigest()}
    (folder / SEAL_NAME).write_text(json.dumps(content), encoding="utf-8")
    return digesting.digest.hexdigest()


def _remove_old(run_dir: Path, *, keep: int) -> None:
    """All but the newest and the best; a damaged one, however new, takes no sound one's place."""
    kept = kept_names(sound_checkpoints(run_dir), keep=keep)
    for folder in _folders(run_dir):
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


_known_digests: dict[tuple[Path, int, int], str] = {}
"""Of files by path, size and time: what was written or read here once is not read again."""


def _digest(path: Path) -> str:
    status = path.stat()
    version = (path, status.st_size, status.st_mtime_ns)
    if version not in _known_digests:
        with path.open("rb") as file:
            _known_digests[version] = hashlib.file_digest(file, "sha256").hexdigest()
    return _known_digests[version]


def _folders(run_dir: Path) -> list[Path]:
    """All checkpoints, the newest first."""
    return sorted(run_dir.glob(f"{PREFIX}*"), reverse=True)
