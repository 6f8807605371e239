"""Trials that take over each other's weights and settings (population based training).

A stage is named by its settings, and a training whose settings change on the way has none that could name it: the
member's training and its evaluation are named by the sweep and the trial instead, and nobody else uses them again.
What comes before, such as DAM and its screening, is shared as ever.
"""

import shutil
import uuid
from dataclasses import replace
from pathlib import Path

from hdam.platform import tracking
from hdam.platform.checkpoints import copy_checkpoint, newest_checkpoint
from hdam.platform.prepared import Prepared
from hdam.platform.runs import STAGES_DIR, RunRecord, StageRecord, read_record, write_record
from hdam.platform.sharing.checkpoints import fetch_newest, forget_checkpoints
from hdam.platform.sharing.store import place_of
from hdam.platform.stages import digest


def as_member(prepared: Prepared, sweep: str, number: int) -> Prepared:
    """The same experiment with stages of its own from the model's training on."""
    first = prepared.stages.index(prepared.trained)
    own = tuple(replace(stage, key=digest([sweep, number, stage.kind])) for stage in prepared.stages[first:])
    return replace(prepared, stages=(*prepared.stages[:first], *own))


def training_dir(prepared: Prepared, folder: Path) -> Path:
    """The folder of the member's training, of which `folder` knows where it was begun."""
    record = read_record(folder, RunRecord)
    kind = prepared.trained.kind
    return tracking.results_dir() / STAGES_DIR / record.stages.get(kind, prepared.trained.name)


def give_weights(prepared: Prepared, folder: Path, target: Path) -> None:
    """Copy the member's newest checkpoint into the folder `target`, which stays empty where there is none."""
    own = training_dir(prepared, folder)
    newest = fetch_newest(own, place_of(own))
    if newest is not None:
        shutil.copytree(newest, target / newest.name)


def take_weights(prepared: Prepared, folder: Path, source: Path) -> None:
    """Let the member go on from what `give_weights` wrote to `source`, instead of from its own checkpoints."""
    given = newest_checkpoint(source)
    own = training_dir(prepared, folder)
    if given is None or not own.is_dir():
        return
    lineage = uuid.uuid4().hex  # what other nodes have of the weights before is none of it any more
    write_record(own, replace(read_record(own, StageRecord), lineage=lineage))
    forget_checkpoints(own, place_of(own))
    copy_checkpoint(given, own, lineage=lineage)
