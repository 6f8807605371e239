"""A stage between this disk and the shared store: what the driver fetches and shares as a whole.

Without a store, nothing is done.
"""

import logging
from pathlib import Path

from hdam.platform.runs import RECORD_NAMES, StageRecord, holding, read_record, write_record
from hdam.platform.shared_checkpoints import share_checkpoints
from hdam.platform.store import fetch_files, patiently, place_of, share_files

LOG = logging.getLogger("hdam")


def fetch_stage(folder: Path) -> None:
    """Bring what another machine has made of a stage, besides checkpoints. Raises StoreError."""
    if (place := place_of(folder)) is not None:
        patiently(lambda: fetch_files(folder, place))


def share_stage(folder: Path, attempt: str, *, keep: int) -> None:
    """Upload what is here of a stage that `attempt` holds, besides the record. Raises StoreError, TakenOverError."""
    if (place := place_of(folder)) is not None:
        patiently(lambda: share_checkpoints(folder, place, attempt=attempt, keep=keep))
        patiently(lambda: share_files(folder, place, leave_out=RECORD_NAMES.values()))


def adopt_stage(folder: Path, *, keep: int) -> None:
    """Upload a finished stage that is here but not in the store, since it was done without one. Raises StoreError."""
    place = place_of(folder)
    if place is None or patiently(lambda: place.read(RECORD_NAMES[StageRecord])) is not None:
        return
    with holding(folder, is_waiting=True) as attempt:
        LOG.info("%s was done without the store; uploading it", folder.name)
        record = read_record(folder, StageRecord)
        share_stage(folder, attempt, keep=keep)
        write_record(folder, record)
