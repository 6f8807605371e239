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
from hdam.platform.weights.files import STAND_IN

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
    if prepared.experiment.losses.perceptual.network == "vgg16":
        LOG.info("%s in the perceptual loss, so that scores are not those of the paper's recipe", STAND_IN)
    kinds = [stage.kind for stage in prepared.stages]
    anew = kinds[kinds.index(check_kind(start, prepared.stages)) :] if start else kinds if fresh else []
    name = run_name(prepared.experiment, prepared.manifest)
    run_dir = find_run(tracking.results_dir() / RUNS_DIR, name, fresh=bool(anew))
    client = tracking.connect()
    if (known := _known_report(run_dir)) is not None:
        return known
    with ray_session(prepared.experiment.resources), locked(run_dir), Watchdog() as watchdog:
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
        run_id = self._record.mlflow_run_id
        if not run_id or not tracking.patiently(client, lambda: resume_run(client, run_id)):
            run_id = tracking.patiently(client, self._start_run)
        self._change(replace(self._record, status="running", mlflow_run_id=run_id))

    def finish(self, anew: list[StageKind]) -> TrainReport:
        """Do what is left of all stages, those in `anew` in any case, then register the model."""
        run_id, started = self._record.mlflow_run_id, time.monotonic()
        with ending(self._client, self._watchdog, run_id, self._run_dir, note=self._note):
            procedure = Procedure(
                self._prepared,
                client=self._client,
                watchdog=self._watchdog,
                record=self._record,
                anew=anew,
                on_change=self._change,
            )
            done = procedure.finish()
            seconds = time.monotonic() - started
            report = register_trained(
                self._prepared, done, run_dir=self._run_dir, client=self._client, run_id=run_id, seconds=seconds
            )
            if report.reconstruction is not None:
                with tracking.tolerated("the scores were not logged"):
                    log_metrics(self._client, run_id, scores_of(report.reconstruction), step=report.num_steps)
            self._change(replace(self._record, report=report_to_json(report)))
        return report

    def _start_run(self) -> str:
        """From its first moment on, the watchdog ends the run with this process."""
        return start_run(
            self._client,
            self._prepared.experiment,
            self._prepared.manifest,
            run_name=self._run_dir.name,
            on_created=lambda run_id: self._watchdog.watch(run_id, self._run_dir),
        )

    def _note(self, status: RunStatus, reason: str) -> None:  # noqa: ARG002 - the stage's record says why
        self._change(replace(self._record, status=status))

    def _change(self, record: RunRecord) -> None:
        self._record = record
        write_record(self._run_dir, record)
