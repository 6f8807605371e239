"""The driver: checks first, then one stage after the other, then registration of the model."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hdam.experiments.experiment import Experiment
from hdam.platform import tracking
from hdam.platform.cluster import ray_session
from hdam.platform.locks import holding
from hdam.platform.prepared import Prepared, prepare_training
from hdam.platform.publishing import scores_of
from hdam.platform.recorded_run import RecordedRun
from hdam.platform.registration import register_trained
from hdam.platform.registry import is_registered
from hdam.platform.runs import RUNS_DIR, RunRecord, find_run, read_record
from hdam.platform.sharing.store import check_store
from hdam.platform.stages import StageKind, check_kind, run_name
from hdam.platform.tracked_run import log_metrics
from hdam.platform.train_report import TrainReport, report_from_json
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
    check_store()
    if prepared.experiment.losses.perceptual.network == "vgg16":
        LOG.info("%s in the perceptual loss, so that scores are not those of the paper's recipe", STAND_IN)
    kinds = [stage.kind for stage in prepared.stages]
    anew = kinds[kinds.index(check_kind(start, prepared.stages)) :] if start else kinds if fresh else []
    name = run_name(prepared.experiment, prepared.manifest)
    run_dir = find_run(tracking.results_dir() / RUNS_DIR, name, fresh=bool(anew))
    client = tracking.connect()
    if (known := _known_report(run_dir)) is not None:
        return known
    is_held = holding(run_dir, advice="wait for it, or use --fresh")
    with ray_session(prepared.experiment.resources), is_held, Watchdog() as watchdog:
        run = RecordedRun(prepared, run_dir, client=client, watchdog=watchdog)
        return _finish(run, prepared, run_dir, client=client, anew=anew)


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


def _finish(
    run: RecordedRun, prepared: Prepared, run_dir: Path, *, client: "MlflowClient", anew: list[StageKind]
) -> TrainReport:
    """Do what is left of all stages, those in `anew` in any case, then register the model."""
    started = time.monotonic()
    with run.at_work(anew=anew) as procedure:
        done = procedure.finish()
        seconds = time.monotonic() - started
        report = register_trained(prepared, done, run_dir=run_dir, client=client, run_id=run.run_id, seconds=seconds)
        if report.reconstruction is not None:
            with tracking.tolerated("the scores were not logged"):
                log_metrics(client, run.run_id, scores_of(report.reconstruction), step=report.num_steps)
        run.keep_report(report)
    return report
