"""Stages that several trials need, done once before any trial begins, with all resources of the experiment."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from hdam.platform import tracking
from hdam.platform.prepared import prepare_training
from hdam.platform.procedure import Procedure
from hdam.platform.runs import STAGES_DIR, RunRecord, StageRecord, numbered_folders, read_record
from hdam.platform.stages import Stage
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.watchdog import Watchdog

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG = logging.getLogger("hdam")


def finish_shared(plan: SweepPlan, *, client: "MlflowClient", watchdog: Watchdog, run_id: str) -> None:
    """Do those that are not finished, as children of the sweep's MLflow run; trials find and link what is."""
    told: set[str] = set()
    for shared in plan.shared:
        if all(map(is_finished, shared.stages)):
            continue
        new = [stage.name for stage in shared.stages if stage.name not in told and not is_finished(stage)]
        LOG.info("before the trials, which share it: %s", ", ".join(new))
        told |= set(new)
        experiment = plan.loaded.experiment_at_full(shared.trial.settings, seed=shared.trial.seed)
        Procedure(
            replace(prepare_training(experiment), stages=shared.stages),
            client=client,
            watchdog=watchdog,
            record=RunRecord(mlflow_run_id=run_id),
            anew=(),
            on_change=lambda _: None,
        ).finish()


def is_finished(stage: Stage) -> bool:
    """Whether the stage is known, whichever experiment it was done for."""
    folders = numbered_folders(tracking.results_dir() / STAGES_DIR, stage.name)
    return any(read_record(folder, StageRecord).status == "finished" for folder in folders)
