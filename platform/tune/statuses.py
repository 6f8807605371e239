"""MLflow's word for every trial, set at last by the sweep's driver: a trial may be killed before it has said it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hdam.experiments.experiment import Experiment
from hdam.platform import tracking
from hdam.platform.runs import STAGES_DIR, RunRecord, StageRecord, read_record
from hdam.platform.tracked_run import Status, end_run, run_status, set_tags, settle_run, start_run
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.tune.records import Ledger, TrialRecord, TrialStatus
from hdam.platform.tune.trial import TrialTask
from hdam.platform.watchdog import Watchdog

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATUSES: Mapping[TrialStatus, Status] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    # MLflow has no word for a trial that was ended on purpose before its time; the tags say which it was.
    "stopped": "KILLED",
    "interrupted": "KILLED",
}
STATUS_TAG, REASON_TAG = "trial.status", "trial.reason"


def settle_trials(
    plan: SweepPlan, ledger: Ledger, *, client: "MlflowClient", task_of: Callable[[TrialRecord], TrialTask]
) -> None:
    """Say in record and MLflow how every trial that was begun has ended, or that it was interrupted."""
    for trial in ledger.trials:
        run_id, _ = _run_of(ledger, trial)
        if trial.status == "running":
            trial = ledger.change_trial(trial.number, status="interrupted")
        if trial.status not in STATUSES:
            continue
        with tracking.tolerated(f"the status of trial {trial.number} was not written"):
            if not run_id:  # it failed before its run was begun
                run_id = _start(plan, task_of(trial), client=client)
            if run_status(client, run_id) != STATUSES[trial.status]:
                end_run(client, run_id, STATUSES[trial.status])
            set_tags(client, run_id, {STATUS_TAG: trial.status, REASON_TAG: trial.reason, **setting_tags(trial)})
        ledger.change_trial(trial.number, mlflow_run_id=run_id)
        for stage_run, folder in runs_of_stages(ledger, trial):
            _settle(stage_run, folder, trial.status)


class Guard:
    """Has the sweep's watchdog watch over the runs of the trials that are at work, and settles those of failed ones.

    Their own would not outlive them: Ray kills what the processes of its actors have started.
    """

    def __init__(self, ledger: Ledger, watchdog: Watchdog) -> None:
        self._ledger = ledger
        self._watchdog = watchdog
        self._watched: set[str] = set()
        self._failed = {trial.number for trial in ledger.trials if trial.status == "failed"}

    def look(self) -> None:
        """Watch the runs that were begun since the last time; a trial that was killed has not ended its own."""
        for trial in self._ledger.trials:
            if trial.status == "running":
                for run_id, folder in self._runs_of(trial):
                    if run_id not in self._watched:
                        self._watchdog.watch(run_id, folder)
                        self._watched.add(run_id)
            elif trial.status == "failed" and trial.number not in self._failed:
                self._failed.add(trial.number)
                for run_id, folder in self._runs_of(trial):
                    _settle(run_id, folder, "failed")

    def _runs_of(self, trial: TrialRecord) -> list[tuple[str, Path]]:
        runs = [_run_of(self._ledger, trial), *runs_of_stages(self._ledger, trial)]
        return [(run_id, folder) for run_id, folder in runs if run_id]

    def release(self) -> None:
        """All are settled."""
        for run_id in self._watched:
            self._watchdog.unwatch(run_id)


def runs_of_stages(ledger: Ledger, trial: TrialRecord) -> list[tuple[str, Path]]:
    """MLflow runs, and folders, of the stages that the trial has begun itself."""
    record = read_record(ledger.folder_of(trial), RunRecord)
    folders = [tracking.results_dir() / STAGES_DIR / name for name in record.stages.values()]
    stages = [(read_record(folder, StageRecord), folder) for folder in folders]
    return [(stage.mlflow_run_id, folder) for stage, folder in stages if stage.parent_run_id == record.mlflow_run_id]


def _settle(run_id: str, folder: Path, status: TrialStatus) -> None:
    """The watchdog of a trial that lost its process calls its runs KILLED, as it does where a sweep was interrupted."""
    settle_run(
        run_id, folder, STATUSES[status], instead_of=("RUNNING", "KILLED") if status == "failed" else ("RUNNING",)
    )


def _run_of(ledger: Ledger, trial: TrialRecord) -> tuple[str, Path]:
    folder = ledger.folder_of(trial)
    return read_record(folder, RunRecord).mlflow_run_id, folder


def setting_tags(trial: TrialRecord) -> dict[str, str]:
    """What is searched, as it is now; and where it was changed on the way, when and to what."""
    settings = {f"setting.{name}": str(value) for name, value in trial.settings.items()}
    return settings | ({"setting.changes": str(trial.changes)} if trial.changes else {})


def _start(plan: SweepPlan, task: TrialTask, *, client: "MlflowClient") -> str:
    return start_run(
        client,
        Experiment.model_validate(task.experiment),
        plan.prepared.manifest,
        run_name=f"trial-{task.number:03d}",
        parent_id=task.parent_run_id,
        tags=task.tags,
    )
