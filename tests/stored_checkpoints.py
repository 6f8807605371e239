"""Checkpoints in the shared store, as a worker leaves them there."""

import functools

import torch

from hdam.platform.checkpoints import write_checkpoint
from hdam.platform.sharing.checkpoints import share_checkpoints
from hdam.platform.sharing.holds import held
from hdam.platform.sharing.uploader import Uploader

STAGE = "stages/hdam-0123456789"
"""Where a stage lies below results, and in the store."""


def keep(run_dir, step, *, score=None, weight=None, lineage=""):
    """Weights that are `weight`, or the step."""
    state = {"weight": torch.full((8,), float(step if weight is None else weight))}
    return write_checkpoint(run_dir, state, step=step, keep=2, score=score, lineage=lineage)


def upload(run_dir, place, *, num_kept=2, lineage=""):
    with held(place, "me", is_waiting=True):
        share_checkpoints(run_dir, place, attempt="me", lineage=lineage, keep=num_kept)


def uploader_of(run_dir, place, *, attempt, tell=lambda _: None):
    """As that of a worker."""
    share = functools.partial(share_checkpoints, run_dir, place, attempt=attempt, lineage="", keep=2)
    return Uploader(share, tell=tell)
