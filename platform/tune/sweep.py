"""The driver of a sweep: shared stages first, then the trials on Ray Tune, then the best one's model and the report.

Tune remembers nothing between two starts: the sweep's record says which trials have ended, and the folders of trials
and stages say how far the others came. So the same command goes on after a killed driver, and `num_trials` may grow.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from hdam.experiments.experiment import ResourceConfig
from hdam.experiments.loading import override
from hdam.experiments.sweep_loading import LoadedSweep
from hdam.pipelines.errors import InputError
from hdam.platform import tracking
from hdam.platform.cluster import must_be_on_head, ray_session
from hdam.platform.failures import TrainingError, describe
from hdam.platform.fit import in_background
from hdam.platform.locks import holding
from hdam.platform.procedure import ending
from hdam.platform.sharing.store import check_store, place_of
from hdam.platform.tracked_run import resume_run, start_run
from hdam.platform.tune.files import write_report
from hdam.platform.tune.outcome import conclude
from hdam.platform.tune.plan import SweepPlan, plan_sweep
from hdam.platform.tune.records import ENDED, SWEEPS_DIR, Ledger, TrialRecord, count_statuses
from hdam.platform.tune.report import SweepReport, make_report
from hdam.platform.tune.shared import finish_shared
from hdam.platform.tune.statuses import Guard, setting_tags, settle_trials
from hdam.platform.tune.trainable import config_of
from hdam.platform.tune.trial import TrialTask
from hdam.platform.tune.tuner import make_tuner
from hdam.platform.tune.watch import Queue, Watch
from hdam.platform.watchdog import Watchdog

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG = logging.getLogger("hdam")

POLL_SECONDS = 0.5
SECONDS_TO_STOP = 150.0


def tune(
    loaded: LoadedSweep, *, num_trials: int | None = None, restore: bool = False, retry: bool = False
) -> SweepReport:
    """Do all trials that have not ended, and register the best one's model; `num_trials` replaces the sweep's.

    With `retry`, trials that failed have not ended: they go on from their checkpoints.

    Raises InputError or WeightsError for a mistake, before anything is written, also where `restore` asks to go on and
    there is nothing to go on with; TrainingError where no trial could be finished.
    """
    plan = plan_sweep(loaded, num_trials=num_trials)
    folder = tracking.results_dir() / SWEEPS_DIR / plan.name
    check_store()
    known = Ledger(folder)
    if restore and known.is_new:
        raise InputError(
            f"--restore: {folder} is not there, so that there is no such sweep to go on with; what is "
            "searched, the settings and the dataset make the name; leave --restore out to begin it"
        )
    client = tracking.connect()
    if _is_done(plan, known, retry=retry):
        LOG.info("this sweep is finished already, in %s; --trials extends it", folder)
        return make_report(plan, known, was_known=True)
    with holding(folder), Watchdog() as watchdog, ray_session(_resources(plan)):
        if place_of(folder) is not None:  # without a store, all nodes share the folder
            must_be_on_head()
        ledger = Ledger(folder)
        if retry:
            _take_back_failed(ledger)
        return _Sweep(plan, ledger, client=client, watchdog=watchdog).finish()


def _is_done(plan: SweepPlan, ledger: Ledger, *, retry: bool) -> bool:
    have = [trial for trial in ledger.trials if trial.status in ENDED and not (retry and trial.status == "failed")]
    return bool(ledger.record.best) and len(have) == len(ledger.trials) >= plan.num_trials


def _take_back_failed(ledger: Ledger) -> None:
    for trial in ledger.trials:
        if trial.status == "failed":
            ledger.change_trial(trial.number, status="interrupted", reason="")


def _resources(plan: SweepPlan) -> ResourceConfig:
    """Of the session: the shared memory of all trials that are at work at a time."""
    experiment, times = plan.prepared.experiment, plan.loaded.sweep.concurrency
    store = experiment.resources.object_store_mib * times
    return override(experiment, {"resources.object_store_mib": store}).resources


class _Sweep:
    """A sweep at work."""

    def __init__(self, plan: SweepPlan, ledger: Ledger, *, client: "MlflowClient", watchdog: Watchdog) -> None:
        self._plan = plan
        self._ledger = ledger
        self._client = client
        self._watchdog = watchdog

    def finish(self) -> SweepReport:
        """Do what is left."""
        started, ledger, plan = time.monotonic(), self._ledger, self._plan
        self._begin()
        run_id = ledger.record.mlflow_run_id
        with ending(self._client, self._watchdog, run_id, ledger.folder, note=lambda _, __: None):
            finish_shared(plan, client=self._client, watchdog=self._watchdog, run_id=run_id)
            try:
                self._finish_trials()
            except BaseException:  # Ctrl-C among them: what is known until now is told
                write_report(plan, ledger)
                raise
            conclude(plan, ledger, client=self._client, task_of=self._task)
            ledger.finish()
        return make_report(plan, ledger, seconds=time.monotonic() - started)

    def _begin(self) -> None:
        """Have an MLflow run that is running: an earlier attempt's where there was one."""
        client, ledger, plan = self._client, self._ledger, self._plan
        run_id = ledger.record.mlflow_run_id
        if run_id and tracking.patiently(client, lambda: resume_run(client, run_id)):
            return

        def start() -> str:
            return start_run(
                client,
                plan.prepared.experiment,
                plan.prepared.manifest,
                run_name=plan.name,
                tags={"sweep": plan.name, "sweep.searches": ", ".join(plan.loaded.sweep.search) or "experiment"},
                on_created=lambda created: self._watchdog.watch(created, ledger.folder),
            )

        ledger.change(mlflow_run_id=tracking.patiently(client, start))

    def _finish_trials(self) -> None:
        """Do all trials, and settle them whatever happens. Raises TrainingError where none could be finished."""
        plan, ledger = self._plan, self._ledger
        guard = Guard(ledger, self._watchdog)
        try:
            self._do_trials(guard)
        finally:
            settle_trials(plan, ledger, client=self._client, task_of=self._task)
            guard.release()
        LOG.info("all trials have ended: %s", count_statuses(ledger.trials))
        if not any(trial.status == "finished" for trial in ledger.trials):
            reasons = [f"trial {trial.number}: {trial.reason}" for trial in ledger.trials if trial.reason]
            raise TrainingError(f"no trial of {plan.name} could be finished; {'; '.join(reasons[:3])}")

    def _do_trials(self, guard: Guard) -> None:
        queue = Queue(self._plan, self._ledger)
        if not queue.num_left:
            return
        watch = Watch(self._plan, self._ledger, queue)
        folder = self._ledger.folder
        tuner = make_tuner(
            self._plan, queue, watch, make_config=lambda trial: config_of(self._task(trial)), folder=folder
        )
        _follow(in_background(tuner.fit), look=guard.look, stop=lambda: self._stop(queue, watch))

    def _stop(self, queue: Queue, watch: Watch) -> None:
        LOG.warning("stopping all trials, with checkpoints; Ctrl-C once more stops at once")
        queue.is_closed = True
        watch.stop([trial.number for trial in self._ledger.trials if trial.status == "running"])

    def _task(self, trial: TrialRecord) -> TrialTask:
        """What a trial is told."""
        sweep = self._plan.loaded.sweep
        experiment = self._plan.loaded.experiment(trial.settings, seed=trial.seed)
        folder = self._ledger.folder_of(trial)
        folder.mkdir(parents=True, exist_ok=True)
        return TrialTask(
            number=trial.number,
            experiment=experiment.settings(),
            folder=str(folder),
            parent_run_id=self._ledger.record.mlflow_run_id,
            tags={"sweep": self._plan.name, "trial": str(trial.number), "seed": str(trial.seed), **setting_tags(trial)},
            population=self._plan.name if sweep.scheduler == "pbt" else "",
        )


def _follow(outcome: "Future[object]", *, look: Callable[[], None], stop: Callable[[], None]) -> None:
    """Wait for Tune, which works in a thread: this one hears Ctrl-C, which Tune would take for itself."""
    try:
        while not outcome.done():
            wait([outcome], timeout=POLL_SECONDS)
            look()
    except (KeyboardInterrupt, SystemExit):
        stop()
        wait([outcome], timeout=SECONDS_TO_STOP)
        raise
    if error := outcome.exception():
        raise TrainingError(f"Ray Tune gave up: {describe(error)}") from error
