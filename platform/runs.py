"""The folder of a run: found again by what is trained, so that the same command goes on where it was stopped.

results/runs/NAME-KEY/
  run.json            status, MLflow run, and in the end the report
  step-00000200/      checkpoints, see checkpoints.py
  pictures/
"""

import contextlib
import fcntl
import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hdam.experiments.experiment import Experiment
from hdam.pipelines.errors import InputError

RECORD_NAME = "run.json"
LOCK_NAME = ".lock"
KEY_LENGTH = 10
UNRELATED = ("question", "resources", "log")
"""Sections that do not shape the result."""

RunStatus = Literal["new", "running", "finished", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What is known about a run between two starts."""

    status: RunStatus = "new"
    mlflow_run_id: str = ""
    report: dict[str, Any] | None = None
    """The `TrainReport` of a finished run."""


def run_key(experiment: Experiment, fingerprint: str) -> str:
    """Name of everything that shapes the result: settings and seed, and the data's content instead of its place."""
    settings = {name: value for name, value in experiment.settings().items() if name not in UNRELATED}
    settings["data"] = {name: value for name, value in settings["data"].items() if name != "path"}
    content = json.dumps([settings, fingerprint], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:KEY_LENGTH]


def find_run(runs_dir: Path, experiment: Experiment, *, fingerprint: str, fresh: bool) -> Path:
    """The newest run folder of this experiment and dataset, or one that is not taken yet (always so for `fresh`)."""
    first = f"{experiment.name}-{run_key(experiment, fingerprint)}"
    number = 1
    while (runs_dir / _numbered(first, number)).exists():
        number += 1
    return runs_dir / _numbered(first, number if fresh or number == 1 else number - 1)


def read_record(run_dir: Path) -> RunRecord:
    """What the run's folder says; a new record where there is none."""
    try:
        return RunRecord(**json.loads((run_dir / RECORD_NAME).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return RunRecord()
    except (ValueError, TypeError) as error:
        raise InputError(f"{run_dir / RECORD_NAME} is broken; remove {run_dir} or train with --fresh") from error


def write_record(run_dir: Path, record: RunRecord) -> None:
    """Write the record under a temporary name, then rename it."""
    content = {"status": record.status, "mlflow_run_id": record.mlflow_run_id, "report": record.report}
    partial = run_dir / f".{RECORD_NAME}.partial"
    partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
    partial.replace(run_dir / RECORD_NAME)


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[str]:
    """Hold the run's folder, which is made where it is missing; the lock goes with the process, however it ends.

    Yields a name for this attempt. Raises InputError when another process holds the folder.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / LOCK_NAME).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{run_dir} is being trained by another process; wait for it, or use --fresh") from error
        attempt = uuid.uuid4().hex
        lock.truncate(0)
        lock.write(attempt)
        lock.flush()
        yield attempt


def is_current(run_dir: Path, attempt: str) -> bool:
    """Whether an attempt still has the folder: the workers of a killed driver live on for seconds."""
    return (run_dir / LOCK_NAME).read_text(encoding="utf-8") == attempt


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
