"""Trials whose processes are killed in the middle of a sweep on real Ray Tune: they are kept, and the others go on."""

import os
import signal
import threading

import pytest
from processes import descendants, wait_until
from small_sweep import SHORT, small_sweep
from sweep_runs import check_accounted, children_of, status_of

from hdam.platform.runs import STAGES_DIR, RunRecord, read_record
from hdam.platform.tune.plan import plan_sweep
from hdam.platform.tune.records import Ledger
from hdam.platform.tune.sweep import tune

pytestmark = [pytest.mark.sweeps, pytest.mark.timeout(1200)]

OF_TRIAL, OF_WORKER = "ray::ResourceTrainable", "RayTrainWorker"


class Killer(threading.Thread):
    """Kills a process of some trials, each as soon as the trial has told its first figures."""

    def __init__(self, folder, victims):
        """`victims` has a part of the process' command line for every number of a trial."""
        super().__init__(daemon=True)
        self._folder = folder
        self._victims = victims
        self.killed = []
        self.statuses = []
        """What MLflow had at those times of the trials before."""

    def run(self):
        for number, name in self._victims.items():
            wait_until(lambda number=number: self._is_at_work(number), seconds=400)
            found = [pid for pid, command in descendants(os.getpid()) if name in command]
            for pid in found[:1]:
                os.kill(pid, signal.SIGKILL)
            self.killed.append((number, len(found)))
            records = [read_record(self._folder / f"trial-{before:03d}", RunRecord) for before in range(1, number)]
            self.statuses += [status_of(record.mlflow_run_id) for record in records]

    def _is_at_work(self, number):
        trials = Ledger(self._folder).trials
        return len(trials) >= number and trials[number - 1].history


def test_trials_that_lose_a_process_fail_and_end_nothing(dataset, ray_session, results, tmp_path):
    search = {"losses.delta": {"grid": [0.1, 0.2, 0.3]}}
    sweep = small_sweep(
        tmp_path, dataset, search=search, changes={**SHORT, "optim.duration": "120 steps", "resources.max_failures": 0}
    )
    killer = Killer(results / "sweeps" / plan_sweep(sweep).name, {1: OF_TRIAL, 2: OF_WORKER})
    killer.start()
    report = tune(sweep)
    assert killer.killed == [(1, 1), (2, 1)]
    assert killer.statuses == ["FAILED"], "the end of the sweep is not waited for"
    without_trial, without_worker = report.trials[:2]
    assert [trial.status for trial in report.trials] == ["failed", "failed", "finished"]
    died = "a process died: it was killed, or the machine ran out of memory"
    assert (without_trial.reason, without_worker.reason) == (died, f"training failed: {died}")
    check_accounted(report)
    for trial in (without_trial, without_worker):
        assert {stage.info.status for stage in children_of(trial.mlflow_run_id).values()} == {"FAILED"}
    assert f"Trial 1 failed: {died}" in (report.folder / "report.md").read_text()
    again = tune(sweep, restore=True)
    assert again.was_known and again.trials == report.trials, "failed trials are left alone"

    retried = tune(sweep, retry=True)
    assert [trial.status for trial in retried.trials] == ["finished"] * 3
    assert retried.trials[2] == report.trials[2], "only failed trials are tried again"
    steps = [step for step, _ in retried.trials[1].history]
    assert steps == sorted(set(steps)) and (steps[0], steps[-1]) == (10, 120), "it goes on from its checkpoint"
    assert [trial.mlflow_run_id for trial in retried.trials] == [trial.mlflow_run_id for trial in report.trials]
    assert len(list((results / STAGES_DIR).glob("hdam-*"))) == 3
    check_accounted(retried)
