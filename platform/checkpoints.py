"""Checkpoints: a folder per step, whole or absent, and known to be damaged where it is.

step-0000200/
  state.pt          tensors and plain values only: read without running anything
  checkpoint.json   step and size; written last
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

LOG = logging.getLogger("hdam")

STATE_NAME = "state.pt"
SEAL_NAME = "checkpoint.json"


def write_checkpoint(run_dir: Path, state: Mapping[str, Any], *, step: int, keep: int) -> Path:
    """Write the checkpoint of a step under a temporary name and rename it; of all sound ones the newest `keep` stay."""
    target = run_dir / f"step-{step:08d}"
    partial = run_dir / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with (partial / STATE_NAME).open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    seal = {"step": step, "num_bytes": (partial / STATE_NAME).stat().st_size}
    (partial / SEAL_NAME).write_text(json.dumps(seal), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    folders = _folders(run_dir)
    sound = [folder for folder in folders if is_sound(folder)]
    for folder in set(folders) - set(sound[:keep]):  # a damaged one, however new, takes no sound one's place
        shutil.rmtree(folder, ignore_errors=True)
    return target


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The newest sound checkpoint of a run; damaged ones are named in the log and passed over."""
    for folder in _folders(run_dir):
        if is_sound(folder):
            return folder
        LOG.warning("checkpoint %s is damaged; going back to the one before", folder)
    return None


def is_sound(folder: Path) -> bool:
    """Whether a checkpoint has the size that it was written with."""
    try:
        seal = json.loads((folder / SEAL_NAME).read_text(encoding="utf-8"))
        return bool((folder / STATE_NAME).stat().st_size == seal["num_bytes"])
    except (OSError, ValueError, KeyError):
        return False


def step_of(folder: Path | None) -> int:
    """Steps done at a checkpoint; 0 without one."""
    return int(folder.name.removeprefix("step-")) if folder else 0


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The state that was written, on the CPU."""
    state: dict[str, Any] = torch.load(folder / STATE_NAME, map_location="cpu", weights_only=True)
    return state


def _folders(run_dir: Path) -> list[Path]:
    """All checkpoints, the newest first."""
    return sorted(run_dir.glob("step-*"), reverse=True)
