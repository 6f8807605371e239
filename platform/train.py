"""The driver: checks first, then one stage after the other, then registration of the model."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hdam.experiments.experiment import Experiment
from hdam.platform import tracking
from hdam.platform.cluster import ray_session
from hdam.platform.prepared import Prepared, prepare_training
from hdam.platform.procedure import Procedure, ending
from hdam.platform.publishing import scores_of
from hdam.platform.registration import register_trained
from hdam.platform.registry import is_registered
from hdam.platform.runs import RUNS_DIR, RunRecord, RunStatus, find_run, locked, read_record, write_record
from hdam.platform.stages import StageKind, check_kind, run_name
from hdam.platform.tracked_run import log_metrics, resume_run, start_run
from hdam.platform.train_report import TrainReport, report_from_json, report_to_json
from hdam.platform.watchdog import Watchdog

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG = logging.getLogger("hdam")


def train(experiment: Experiment, *, fresh: bool = False, start: str = "") -> TrainReport:
    """Do all stages of `experiment` and register the model; the same call goes on where an earlier one was stopped.

    Stages that are finished are used again, whichever experiment they were done for; not so with `fresh`, nor the
    stage `start` and those after it. Raises InputError or WeightsError for a mistake, before anything is written, and
    TrainingError when a stage cannot be finished.
    """
    prepared = prepare_training(experiment)
    kinds = [stage.kind for stage in prepared.stages]
    anew = kinds[kinds.index(check_kind(start, prepared.stages)) :] if start else kinds if fresh else []
    name = run_name(prepared.experiment, prepared.manifest)
    run_dir = find_run(tracking.results_dir() / RUNS_DIR, name, fresh=bool(anew))
    client = tracking.connect()
    if (known := _known_report(run_dir)) is not None:
        return known
    with locked(run_dir), Watchdog() as watchdog:
        return _Run(prepared, run_dir, client=client, watchdog=watchdog).finish(anew)


def _known_report(run_dir: Path) -> TrainReport | None:
    record = read_record(run_dir, RunRecord)
    if record.report is None:
        return None
    known = report_from_json(record.report, run_dir=run_dir)
    if is_registered(known.model_name, known.model_version):
        LOG.info("this experiment is finished already, in %s; --fresh does it anew", run_dir)
        return known
    LOG.warning("%s is finished, but its model is not registered any more; registering it again", run_dir)
    return None


class _Run:
    """An experiment at work: its folder with the record, and its MLflow run, the parent of those of its stages."""

    def __init__(self, prepared: Prepared, run_dir: Path, *, client: "MlflowClient", watchdog: Watchdog) -> None:
        self._prepared = prepared
        self._run_dir = run_dir
        self._client = client
        self._watchdog = watchdog
        self._record = read_record(run_dir, RunRecord)
        if not self._record.mlflow_run_id or not resume_run(client, self._record.mlflow_run_id):
            run_id = start_run(client, prepared.experiment, prepared.manifest, run_name=run_dir.name)
            self._record = replace(self._record, mlflow_run_id=run_id)
        self._note("running", "")

    def finish(self, anew: list[StageKind]) -> TrainReport:
        """Do what is left of all stages, those in `anew` in any case, then register the model."""
        run_id, started = self._record.mlflow_run_id, time.monotonic()
        with ending(self._client, self._watchdog, run_id, self._run_dir, note=self._note):
            with ray_session(self._prepared.experiment.resources):
                procedure = Procedure(
                    self._prepared,
                    client=self._client,
                    watchdog=self._watchdog,
                    parent_id=run_id,
                    begun=dict(self._record.stages),
                    anew=anew,
                    on_begin=self._note_stage,
                )
                done = procedure.finish()
            seconds = time.monotonic() - started
            report = register_trained(
                self._prepared, done, run_dir=self._run_dir, client=self._client, run_id=run_id, seconds=seconds
            )
            if report.reconstruction is not None:
                with tracking.tolerated("the scores were not logged"):
                    log_metrics(self._client, run_id, scores_of(report.reconstruction), step=report.num_steps)
            self._record = replace(self._record, report=report_to_json(report))
        return report

    def _note(self, status: RunStatus, reason: str) -> None:  # noqa: ARG002 - the stage's record says why
        self._record = replace(self._record, status=status)
        write_record(self._run_dir, self._record)

    def _note_stage(self, kind: StageKind, folder: Path) -> None:
        self._record = replace(self._record, stages={**self._record.stages, kind: folder.name})
        write_record(self._run_dir, self._record)
