"""A stage at work, and a finished one: what it is given, and what it leaves to those that build on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdam.pipelines.errors import InputError
from hdam.platform.checkpoints import step_of
from hdam.platform.messages import Message
from hdam.platform.prepared import Prepared
from hdam.platform.runs import StageRecord
from hdam.platform.sharing.checkpoints import fetch_newest
from hdam.platform.sharing.store import place_of
from hdam.platform.stages import Stage, StageKind

if TYPE_CHECKING:
    from mlflow import MlflowClient

OnStageMessage = Callable[[StageKind, Message], None]
"""Hears what the workers of a stage tell."""


def ignore(kind: StageKind, message: Message) -> None:
    """What hears of nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A finished stage."""

    stage: Stage
    folder: Path
    record: StageRecord
    was_known: bool
    """It was finished before, in this run or another."""

    @property
    def result(self) -> Mapping[str, Any]:
        """What it found."""
        assert self.record.result is not None, "a finished stage has a result"
        return self.record.result

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint of a training, on this disk. Raises InputError where it is gone, or damaged."""
        newest, steps = fetch_newest(self.folder, place_of(self.folder)), self.result["steps"]
        if newest is None or step_of(newest) != steps:
            raise InputError(
                f"{self.folder} holds no sound checkpoint of step {steps} any more; "
                f"train it again with --from {self.stage.kind}"
            )
        return newest


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A stage at work."""

    prepared: Prepared
    stage: Stage
    folder: Path
    attempt: str
    """What `holding` gave for the folder."""
    lineage: str
    """Of its record."""
    inputs: Mapping[StageKind, Done]
    client: "MlflowClient"
    run_id: str
    """The stage's MLflow run."""
    on_message: OnStageMessage = ignore
    """Besides the screen and MLflow."""
