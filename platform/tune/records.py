"""The record of a sweep: every trial, once, with its settings, its figures and how it ended.

results/sweeps/NAME-KEY/
  sweep.json                status, MLflow run, and all trials
  trial-001/run.json        a trial's MLflow run and the folders of its stages, as of any run of an experiment
  trial-001/task.json       what the trial is told
  report.html, report.md, trials.csv
  tune/                     what Ray Tune keeps while it runs; nothing is read from there

With a shared store, see sharing/store.py, sweep.json and the records of trials there are the ones that count.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from hdam.pipelines.errors import InputError
from hdam.platform.runs import read_json, write_json
from hdam.platform.sharing.holds import check_mine
from hdam.platform.sharing.store import StoreError, patiently, place_of

LOG = logging.getLogger("hdam")

SWEEPS_DIR = "sweeps"
RECORD_NAME = "sweep.json"

TrialStatus = Literal["new", "running", "finished", "stopped", "failed", "interrupted"]
ENDED: tuple[TrialStatus, ...] = ("finished", "stopped", "failed")
"""These trials are not begun again; failed ones only where that is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """What is known about a trial."""

    number: int
    """From 1 on."""
    point: int
    """Trials of the same point have the same settings, and different seeds."""
    settings: dict[str, Any]
    """By dotted name: those that are searched, as they are now."""
    seed: int
    status: TrialStatus = "new"
    mlflow_run_id: str = ""
    reason: str = ""
    """Why it was stopped, or failed."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest."""
    history: list[tuple[int, float]] = field(default_factory=list)
    """Step and value of what the scheduler watched."""
    changes: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Step and new settings, where another trial's weights were taken over."""
    seconds: float = 0.0
    """Of work, in all attempts."""

    @property
    def name(self) -> str:
        """Of its folder, and of its MLflow run."""
        return f"trial-{self.number:03d}"

    @property
    def has_ended(self) -> bool:
        """Whether it is not begun again."""
        return self.status in ENDED

    def value(self, metric: str) -> float | None:
        """Of the metric; None where the trial is not finished, has no such metric, or has one that is no number."""
        value = self.metrics.get(metric, math.nan)
        return value if self.status == "finished" and math.isfinite(value) else None


def number_in(name: str) -> int:
    """Of the trial of this name."""
    return int(name.removeprefix("trial-"))


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRecord:
    """What is known about a sweep between two starts."""

    mlflow_run_id: str = ""
    trials: tuple[TrialRecord, ...] = ()
    best: int = 0
    """Number of the trial whose model was registered."""
    model_name: str = ""
    model_version: str = ""


class Ledger:
    """A sweep's record in its folder, kept up to date, and in the shared store whenever that answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = _read(folder)
        self._is_shared = True

    @property
    def is_new(self) -> bool:
        """Whether nothing of the sweep was ever begun."""
        return self.record == SweepRecord()

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All that were begun, or are known already, by number."""
        return self.record.trials

    def trial(self, number: int) -> TrialRecord:
        """One of them."""
        return self.record.trials[number - 1]

    def change(self, **changes: Any) -> None:
        """Change what is known about the sweep itself."""
        self.record = replace(self.record, **changes)
        write_json(self.folder / RECORD_NAME, asdict(self.record))
        try:
            self._share()
            self._is_shared = True
        except StoreError as error:
            if self._is_shared:
                LOG.warning("%s; the sweep's record stays here, and is uploaded when it answers", error)
            self._is_shared = False

    def finish(self) -> None:
        """Let the store have what it has not got yet. Raises StoreError where it is away for minutes."""
        if not self._is_shared:
            patiently(self._share)

    def _share(self) -> None:
        """Raises InputError where another driver has the sweep's place in the store."""
        if (place := place_of(self.folder)) is not None:
            check_mine(place)
            place.put(self.folder / RECORD_NAME, RECORD_NAME)

    def change_trial(self, number: int, **changes: Any) -> TrialRecord:
        """Change what is known about a trial; returns what is known now."""
        trial = replace(self.trial(number), **changes)
        self.change(trials=tuple(trial if each.number == number else each for each in self.trials))
        return trial

    def add(self, *, settings: dict[str, Any], seed: int, point: int) -> TrialRecord:
        """A new trial."""
        trial = TrialRecord(number=len(self.trials) + 1, point=point, settings=settings, seed=seed)
        self.change(trials=(*self.trials, trial))
        return trial

    def folder_of(self, trial: TrialRecord) -> Path:
        """Of a trial."""
        return self.folder / trial.name


def count_statuses(trials: Iterable[TrialRecord]) -> str:
    """How many ended in which way: `5 finished, 1 failed`."""
    statuses: Sequence[str] = [trial.status for trial in trials]
    return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(sorted(statuses)))


def _read(folder: Path) -> SweepRecord:
    path = folder / RECORD_NAME
    try:
        content = read_json(path)
        trials = tuple(_trial(trial) for trial in content.pop("trials"))
        return SweepRecord(**content, trials=trials)
    except FileNotFoundError:
        return SweepRecord()
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is broken; remove {folder} to begin the sweep anew; stages are kept") from error


def _trial(content: dict[str, Any]) -> TrialRecord:
    """JSON has no tuples."""
    pairs = {name: [tuple(pair) for pair in content[name]] for name in ("history", "changes")}
    return TrialRecord(**{**content, **pairs})
