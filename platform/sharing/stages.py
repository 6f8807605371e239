"""A stage between this disk and the shared store: what the driver fetches and shares as a whole.

Without a store, nothing is done.
"""

import contextlib
import logging
from pathlib import Path

from hdam.platform.locks import holding
from hdam.platform.outbox import UNSENT_NAME
from hdam.platform.runs import PROGRESS_NAME, RECORD_NAMES, StageRecord, read_record, write_record
from hdam.platform.sharing.checkpoints import share_checkpoints
from hdam.platform.sharing.files import fetch_files, share_files
from hdam.platform.sharing.store import patiently, place_of
from hdam.platform.stage_training import INITIAL_NAME

LOG = logging.getLogger("hdam")

OF_THIS_DISK = (*RECORD_NAMES.values(), PROGRESS_NAME, UNSENT_NAME, INITIAL_NAME)
"""What is not shared as a whole: records have a road of their own, and the rest is of nobody else's use."""


def fetch_stage(folder: Path) -> None:
    """Bring what another machine has made of a stage, besides checkpoints. Raises StoreError."""
    if (place := place_of(folder)) is not None:
        patiently(lambda: fetch_files(folder, place))


def share_stage(folder: Path, attempt: str, *, lineage: str, keep: int) -> None:
    """Upload what is here of a stage that `attempt` holds, besides the record. Raises StoreError, TakenOverError."""
    if (place := place_of(folder)) is not None:
        patiently(lambda: share_checkpoints(folder, place, attempt=attempt, lineage=lineage, keep=keep))
        patiently(lambda: share_files(folder, place, leave_out=OF_THIS_DISK))


def adopt_stage(folder: Path, *, keep: int, attempt: str = "") -> None:
    """Upload a finished stage that is here but not in the store, since it was done without one.

    `attempt` is the caller's, where it holds the folder. Raises StoreError.
    """
    place = place_of(folder)
    if place is None or patiently(lambda: place.read(RECORD_NAMES[StageRecord])) is not None:
        return
    with contextlib.nullcontext(attempt) if attempt else holding(folder, is_waiting=True) as holder:
        LOG.info("%s was done without the store; uploading it", folder.name)
        record = read_record(folder, StageRecord)
        share_stage(folder, holder, lineage=record.lineage, keep=keep)
        write_record(folder, record)
