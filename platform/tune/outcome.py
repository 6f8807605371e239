"""What a sweep leaves: the best trial's model in the registry, and the report with the sweep's MLflow run."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hdam.platform import tracking
from hdam.platform.job import Done
from hdam.platform.prepared import Prepared
from hdam.platform.registration import register_trained
from hdam.platform.registry import tag_version
from hdam.platform.runs import STAGES_DIR, RunRecord, StageRecord, read_record
from hdam.platform.stages import StageKind
from hdam.platform.tracked_run import log_file, log_metrics, log_table, set_tags
from hdam.platform.tune.files import write_report
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.tune.records import Ledger, TrialRecord
from hdam.platform.tune.report import best_trial, columns_of
from hdam.platform.tune.trial import TrialTask, prepare_trial

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG = logging.getLogger("hdam")

TABLE_NAME = "trials.json"


def conclude(
    plan: SweepPlan, ledger: Ledger, *, client: "MlflowClient", task_of: Callable[[TrialRecord], TrialTask]
) -> None:
    """Register the best trial's model as `candidate`, then write the report. Raises InputError."""
    sweep, run_id = plan.loaded.sweep, ledger.record.mlflow_run_id
    best = best_trial(plan, ledger.trials)
    if best is None:
        LOG.warning("no finished trial has %s, so that none is the best; no model is registered", sweep.metric)
    else:
        _register(plan, ledger, best, task_of(best), client=client)
    files = write_report(plan, ledger)
    with tracking.tolerated(f"the report is kept in {ledger.folder} alone"):
        if best is not None:
            log_metrics(client, run_id, {f"best/{sweep.metric}": best.metrics[sweep.metric]}, step=best.number)
            set_tags(client, run_id, {"best.trial": str(best.number), "best.run": best.mlflow_run_id})
        for file in files:
            log_file(client, run_id, file)
        log_table(client, run_id, TABLE_NAME, columns_of(plan, ledger.trials))


def _register(plan: SweepPlan, ledger: Ledger, best: TrialRecord, task: TrialTask, *, client: "MlflowClient") -> None:
    folder = ledger.folder_of(best)
    prepared = prepare_trial(task)
    report = register_trained(
        prepared,
        _done_by(prepared, folder),
        run_dir=folder,
        client=client,
        run_id=best.mlflow_run_id,
        seconds=best.seconds,
    )
    tags = {"sweep": plan.name, "sweep.run": ledger.record.mlflow_run_id, "trial": str(best.number)}
    tag_version(report.model_name, report.model_version, tags)
    ledger.change(best=best.number, model_name=report.model_name, model_version=report.model_version)


def _done_by(prepared: Prepared, folder: Path) -> dict[StageKind, Done]:
    """The stages of a finished trial."""
    stages_dir, taken = tracking.results_dir() / STAGES_DIR, read_record(folder, RunRecord).stages
    done = {}
    for stage in prepared.stages:
        place = stages_dir / taken[stage.kind]
        done[stage.kind] = Done(stage=stage, folder=place, record=read_record(place, StageRecord), was_known=True)
    return done
