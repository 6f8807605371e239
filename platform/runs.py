"""The folders of runs and stages: found again by what they are, so that nothing is done twice and all goes on.

results/runs/NAME-KEY/      an experiment
  run.json                  status, MLflow run, the folders of its stages, and in the end the report
results/stages/KIND-KEY/    a stage, shared by all experiments that need it
  stage.json                status, what it builds on, MLflow run, and in the end the result
  progress.json             how far it is
  step-00000200/            checkpoints, see checkpoints.py
  pictures/, skipped/

With a shared store, see sharing/store.py, the records there are the ones that count.
"""

import contextlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from hdam.pipelines.errors import InputError
from hdam.platform.locks import holding
from hdam.platform.sharing.holds import check_mine
from hdam.platform.sharing.store import StoreError, patiently, place_of

RUNS_DIR = "runs"
STAGES_DIR = "stages"
PROGRESS_NAME = "progress.json"

RunStatus = Literal["new", "running", "finished", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What is known about the run of an experiment between two starts."""

    status: RunStatus = "new"
    mlflow_run_id: str = ""
    stages: dict[str, str] = field(default_factory=dict)
    """Folder of every stage that was begun, by its kind."""
    linked: list[str] = field(default_factory=list)
    """Kinds of the stages of other runs that have a child run here."""
    report: dict[str, Any] | None = None
    """The `TrainReport` of a finished run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """What is known about a stage between two starts."""

    status: RunStatus = "new"
    mlflow_run_id: str = ""
    parent_run_id: str = ""
    """MLflow run of the experiment that began it."""
    experiment: str = ""
    """Name of that experiment."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Folders of the stages that it builds on, by their kind."""
    lineage: str = ""
    """Made up when the folder was taken: checkpoints of another one, left on some node's disk, are none of it."""
    result: dict[str, Any] | None = None
    reason: str = ""
    """Why it failed."""
    is_published: bool = False
    """MLflow has all of it, so that nothing has to be sent again."""


Record = TypeVar("Record", RunRecord, StageRecord)
RECORD_NAMES: dict[type, str] = {RunRecord: "run.json", StageRecord: "stage.json"}


def read_record(folder: Path, kind: type[Record]) -> Record:
    """What a folder, or its place in the shared store, says of itself; a new record where it says nothing.

    Raises InputError for a broken one.
    """
    path = folder / RECORD_NAMES[kind]
    try:
        return kind(**read_json(path))
    except FileNotFoundError:
        return kind()
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is broken; remove {folder} or train with --fresh") from error


def read_json(path: Path) -> Any:
    """What the shared store has of a file of the results folder, or else this disk.

    Raises FileNotFoundError, ValueError where it is no JSON, and StoreError where the store is away for minutes.
    """
    place = place_of(path.parent)
    stored = None if place is None else patiently(lambda: place.read(path.name))
    return json.loads(path.read_text(encoding="utf-8") if stored is None else stored)


def write_record(folder: Path, record: RunRecord | StageRecord) -> None:
    """Write the record under a temporary name, then rename it; then into the shared store, if there is one.

    A store that is away is waited for, but not to say that something has failed or was interrupted: where there is no
    holder, others see that by themselves. Raises InputError where the record cannot be written, as where another
    driver has the folder's place in the store.
    """
    path, place = folder / RECORD_NAMES[type(record)], place_of(folder)
    if place is None:
        write_json(path, asdict(record))
        return
    is_end = record.status in ("failed", "interrupted")
    ask = _at_once if is_end else patiently
    ask(lambda: check_mine(place))
    write_json(path, asdict(record))
    ask(lambda: place.put(path, path.name))


def _at_once(work: Callable[[], None]) -> None:
    with contextlib.suppress(StoreError):
        work()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write as `write_text` does."""
    write_text(path, json.dumps(content, indent=2))


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name, then rename. Raises InputError where the disk does not take it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); the same command goes on when it can"
        ) from error


def find_run(runs_dir: Path, name: str, *, fresh: bool) -> Path:
    """The newest run folder of this name, or one that is not taken yet (always so for `fresh`)."""
    taken = numbered_folders(runs_dir, name)
    return taken[0] if taken and not fresh else runs_dir / numbered(name, len(taken) + 1)


def begun_stage(stages_dir: Path, record: RunRecord, kind: str) -> Path | None:
    """The folder that a run has taken for its stage of this kind; None where it has not begun it."""
    return stages_dir / record.stages[kind] if kind in record.stages else None


def claim_stage(stages_dir: Path, name: str, *, inputs: Mapping[str, str], is_new: bool) -> Path:
    """What `find_stage` finds, made where it is missing, so that no other process takes it for another stage."""
    with holding(stages_dir, is_waiting=True):
        folder = find_stage(stages_dir, name, inputs=inputs, is_new=is_new)
        is_taken = _is_taken(folder)
        folder.mkdir(exist_ok=True)
        if not is_taken:
            write_record(folder, StageRecord(inputs=dict(inputs), lineage=uuid.uuid4().hex))
    return folder


def find_stage(stages_dir: Path, name: str, *, inputs: Mapping[str, str], is_new: bool) -> Path:
    """The folder for a stage: a finished one of this name that was built on `inputs`, else the newest one that was
    begun on them, else (always so for `is_new`) one that is not taken yet."""
    taken = numbered_folders(stages_dir, name)
    if not is_new:
        records = {folder: read_record(folder, StageRecord) for folder in taken}
        fitting = [folder for folder, record in records.items() if record.inputs == inputs]
        finished = [folder for folder in fitting if records[folder].status == "finished"]
        if fitting:
            return (finished or fitting)[0]
    return stages_dir / numbered(name, len(taken) + 1)


def numbered_folders(parent: Path, name: str) -> list[Path]:
    """All folders of a name, here or in the shared store, the newest first."""
    found: list[Path] = []
    while _is_taken(folder := parent / numbered(name, len(found) + 1)):
        found.append(folder)
    return found[::-1]


def _is_taken(folder: Path) -> bool:
    if folder.exists():
        return True
    place = place_of(folder)
    return place is not None and patiently(place.is_there)


def numbered(name: str, number: int) -> str:
    """Name of the first, second, … folder of a name."""
    return name if number == 1 else f"{name}-{number}"
