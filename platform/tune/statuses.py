"""MLflow's word for every trial, set at last by the sweep's driver: a trial may be killed before it has said it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hdam.experiments.experiment import Experiment
from hdam.platform import tracking
from hdam.platform.runs import RunRecord, read_record
from hdam.platform.tracked_run import Status, end_run, run_status, set_tags, start_run
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.tune.records import Ledger, TrialRecord, TrialStatus
from hdam.platform.tune.trial import TrialTask

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
        run_id = read_record(ledger.folder_of(trial), RunRecord).mlflow_run_id
        if trial.status == "running":
            trial = ledger.change_trial(trial.number, status="interrupted")
        if trial.status not in STATUSES:
            continue
        with tracking.tolerated(f"the status of trial {trial.number} was not written"):
            if not run_id:  # it failed before its run was begun
                run_id = _start(plan, task_of(trial), client=client)
            if run_status(client, run_id) != STATUSES[trial.status]:
                end_run(client, run_id, STATUSES[trial.status])
            set_tags(client, run_id, {STATUS_TAG: trial.status, REASON_TAG: trial.reason})
        ledger.change_trial(trial.number, mlflow_run_id=run_id)


def _start(plan: SweepPlan, task: TrialTask, *, client: "MlflowClient") -> str:
    return start_run(
        client,
        Experiment.model_validate(task.experiment),
        plan.prepared.manifest,
        run_name=f"trial-{task.number:03d}",
        parent_id=task.parent_run_id,
        tags=task.tags,
    )
