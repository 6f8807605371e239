"""Batches that broke a step, kept to be looked at."""

import contextlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hdam.platform.figures import save_picture
from hdam.platform.meter import Batch

SKIPPED_DIR = "skipped"
MOST_KEPT = 20
"""Files of one run, so that a training that has gone wrong does not fill the disk."""


def save_batch(run_dir: Path, batch: Batch, *, step: int, rank: int, fault: str) -> Path | None:
    """Write a worker's share of a batch as tensors (`source` and `driving`, uint8) and as a picture.

    Returns the file of the tensors, None where enough are kept. What fails here (a full disk) is no reason to stop.
    """
    folder = run_dir / SKIPPED_DIR
    path = folder / f"step-{step:08d}-worker-{rank}.pt"
    partial = path.with_name(f".{path.name}.partial")
    frames = {name: batch[name].cpu() for name in ("source", "driving")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if len(list(folder.glob("*.pt"))) >= MOST_KEPT:
            return None
        torch.save({**frames, "step": step, "fault": fault}, partial)
        rows = [np.concatenate(list(images.numpy()), axis=1) for images in frames.values()]
        save_picture(Image.fromarray(np.concatenate(rows)), path.with_suffix(".png"))
        partial.replace(path)
    except (OSError, RuntimeError):  # torch has its own word for a full disk
        with contextlib.suppress(OSError):
            partial.unlink()
        return None
    return path
