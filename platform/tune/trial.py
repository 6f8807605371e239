"""One trial: the whole procedure of its experiment, and what it tells while it trains. It knows nothing of Tune."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdam.experiments.experiment import Experiment
from hdam.platform import tracking
from hdam.platform.job import Done
from hdam.platform.locks import holding
from hdam.platform.messages import Kept, Measured, Message
from hdam.platform.prepared import Prepared, prepare_training
from hdam.platform.publishing import scores_of
from hdam.platform.recorded_run import RecordedRun
from hdam.platform.stages import StageKind
from hdam.platform.tracked_run import last_metrics, log_metrics
from hdam.platform.train_report import reconstruction_from_json
from hdam.platform.tune.population import as_member
from hdam.platform.watchdog import Watchdog

if TYPE_CHECKING:
    from mlflow import MlflowClient

STOP_NAME = "stop"
"""A file in the trial's folder: whoever makes it wants the trial to stop."""

Figures = dict[str, float]
"""Metrics by the names under which they are logged, and the `step` that they are of."""
OnFigures = Callable[[Figures], None]


class TrialStoppedError(SystemExit):
    """Ends a trial as a signal would: its workers write a last checkpoint, and MLflow calls its runs KILLED."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialTask:
    """What a trial is told; plain values, which travel to any process."""

    number: int
    experiment: Mapping[str, Any]
    folder: str
    """On the disk of the sweep's driver."""
    parent_run_id: str
    tags: Mapping[str, str]
    population: str = ""
    """Name of the sweep whose trials take over each other's weights; empty where each keeps to itself."""


def prepare_trial(task: TrialTask) -> Prepared:
    """The checks of the trial's experiment. Raises InputError or WeightsError."""
    prepared = prepare_training(Experiment.model_validate(task.experiment))
    return as_member(prepared, task.population, task.number) if task.population else prepared


def run_trial(task: TrialTask, prepared: Prepared, *, on_figures: OnFigures, wants_stop: Callable[[], bool]) -> Figures:
    """Do all stages, or those that an earlier attempt has left; returns the last figures.

    `on_figures` hears of every checkpoint of the model's training but the last, whose figures are returned. Raises
    TrialStoppedError soon after `wants_stop`, or the file `STOP_NAME`, says so, and InputError, WeightsError or
    TrainingError where the trial cannot be finished.
    """
    folder = Path(task.folder)
    client = tracking.connect()
    with holding(folder, is_waiting=True), Watchdog() as watchdog:
        (folder / STOP_NAME).unlink(missing_ok=True)
        run = RecordedRun(
            prepared, folder, client=client, watchdog=watchdog, parent_id=task.parent_run_id, tags=task.tags
        )
        listener = _Listener(
            prepared.trained.kind,
            last_step=prepared.num_steps(prepared.trained),
            tell=lambda figures: _tell(client, run.run_id, figures, on_figures),
            wants_stop=lambda: wants_stop() or (folder / STOP_NAME).exists(),
        )
        with run.at_work(on_message=listener) as procedure:
            done = procedure.finish()
            figures = _last_figures(client, done, trained=prepared.trained.kind, told=listener.figures)
            with tracking.tolerated("the trial's figures were not logged"):
                log_metrics(client, run.run_id, figures, step=int(figures["step"]))
    return figures


class _Listener:
    """Hears the workers of all stages; makes figures of what those of the model's training say."""

    def __init__(self, trained: StageKind, *, last_step: int, tell: OnFigures, wants_stop: Callable[[], bool]) -> None:
        self._trained = trained
        self._last_step = last_step
        self._tell = tell
        self._wants_stop = wants_stop
        self._has_stopped = False
        self.figures: Figures = {}
        """The newest."""

    def __call__(self, kind: StageKind, message: Message) -> None:
        if kind == self._trained and isinstance(message, Measured | Kept):
            self.figures |= {"step": message.step, **message.metrics()}
            # Whoever heard of the last one could still stop a trial that is trained, before it is evaluated.
            if isinstance(message, Kept) and message.step < self._last_step:
                self._tell(dict(self.figures))
        if not self._has_stopped and self._wants_stop():
            self._has_stopped = True  # once: the workers that stop have more to say
            raise TrialStoppedError


def _tell(client: "MlflowClient", run_id: str, figures: Figures, on_figures: OnFigures) -> None:
    scores = {name: value for name, value in figures.items() if name.startswith("held_out/")}
    with tracking.tolerated("a trial's scores were not logged"):
        log_metrics(client, run_id, scores, step=int(figures["step"]))
    on_figures(figures)


def _last_figures(
    client: "MlflowClient", done: Mapping[StageKind, Done], *, trained: StageKind, told: Figures
) -> Figures:
    """Of a training that was known already, nobody tells anything here, but MLflow knows."""
    figures = dict(told)
    with tracking.tolerated("the metrics of the training were not read"):
        figures |= last_metrics(client, done[trained].record.mlflow_run_id)
    found = reconstruction_from_json(done["evaluate"].result["reconstruction"])
    return figures | ({} if found is None else scores_of(found)) | {"step": done[trained].result["steps"]}
