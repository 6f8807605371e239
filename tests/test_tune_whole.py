"""Whole sweeps on real Ray Tune: shared stages, early stopping, searches that learn, killed drivers. Minutes of it."""

import json
import os
import signal
import subprocess
import sys

import pytest
from processes import descendants, is_of_training, wait_until
from small_sweep import LONG, SHORT, small_sweep, write_sweep
from sweep_runs import check_accounted, children_of, status_of

from hdam.experiments.sweep_loading import load_sweep
from hdam.pipelines.errors import InputError
from hdam.platform import tracking
from hdam.platform.registry import load_model
from hdam.platform.runs import STAGES_DIR, StageRecord, read_record
from hdam.platform.tune.plan import plan_sweep
from hdam.platform.tune.records import Ledger
from hdam.platform.tune.sweep import tune

pytestmark = [pytest.mark.sweeps, pytest.mark.timeout(1200)]

DELTA, LR = "losses.delta", "optim.lr"


def folders(results, kind):
    return sorted((results / STAGES_DIR).glob(f"{kind}-*"))


def test_six_trials_share_one_dam(dataset, ray_session, results, tmp_path, caplog):
    search = {
        "model.anchors.num_intermediate": {"grid": [1, 2, 3]},
        DELTA: {"grid": [0.3]},
        "screen.epsilon": {"grid": [0.3, 100.0]},
    }
    caplog.set_level("INFO", logger="hdam")
    report = tune(small_sweep(tmp_path, dataset, search=search))
    assert [trial.status for trial in report.trials] == ["finished"] * 6
    assert [len(folders(results, kind)) for kind in ("dam", "screen", "hdam")] == [1, 2, 6]
    assert caplog.text.count("before the trials, which share it: ") == 2
    check_accounted(report)
    (dam,) = folders(results, "dam")
    record = read_record(dam, StageRecord)
    assert record.parent_run_id == report.mlflow_run_id and children_of(report.mlflow_run_id)["dam"]
    for trial in report.trials:
        stages = children_of(trial.mlflow_run_id)
        assert stages["dam"].data.tags["reused_from"] == record.mlflow_run_id
        assert "reused_from" not in stages["hdam"].data.tags
    work = sum(read_record(path, StageRecord).result["seconds"] for path in (dam, *folders(results, "hdam")))
    print(f"six trials in {report.seconds:.0f} s; one DAM and the HDAMs alone {work:.0f} s")  # noqa: T201


def test_a_hopeless_trial_is_stopped_early(dataset, ray_session, results, tmp_path):
    search = {LR: {"grid": [1e-3, 1e-9]}}
    report = tune(small_sweep(tmp_path, dataset, search=search, scheduler="asha", grace=0.1, changes=LONG))
    good, hopeless = report.trials
    assert (good.status, hopeless.status) == ("finished", "stopped")
    assert len(good.history) == 10 and len(hopeless.history) < 8
    step, value = hopeless.history[-1]
    assert hopeless.reason == f"by asha at step {step} of 200: held_out/ratio {value:.4g}"
    check_accounted(report)
    (stage,) = children_of(hopeless.mlflow_run_id).values()
    assert stage.info.status == "KILLED"
    assert report.best.number == 1


def test_median_stopping_ends_hopeless_trials_also_those_of_a_later_start(dataset, ray_session, results, tmp_path):
    search = {LR: {"grid": [1e-3, 1e-9, 1e-10]}}
    sweep = small_sweep(
        tmp_path, dataset, search=search, scheduler="median", grace=0.3, seeds=[0, 1], num_trials=2, changes=SHORT
    )
    first = tune(sweep)
    assert [trial.status for trial in first.trials] == ["finished"] * 2 + ["stopped"] * 2
    extended = tune(sweep, num_trials=3)
    assert extended.trials[:4] == first.trials
    assert [trial.status for trial in extended.trials[4:]] == ["stopped"] * 2
    for trial in extended.trials[2:]:
        step, value = trial.history[-1]
        assert trial.reason == f"by median at step {step} of 60: held_out/ratio {value:.4g}" and 20 <= step < 60
        assert {stage.info.status for stage in children_of(trial.mlflow_run_id).values()} == {"KILLED"}
    assert [step for step, _ in extended.trials[0].history] == [10, 20, 30, 40, 50, 60]
    check_accounted(extended)


class Driver:
    """`hdam tune` in a process group of its own, as a shell would start it."""

    def __init__(self, path):
        command = [sys.executable, "-m", "hdam.platform.cli", "tune", str(path)]
        self.process = subprocess.Popen(
            command, cwd=path.parent, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait_for(self, results, number):
        """Until the trial has told its first figures."""

        def has_told():
            assert self.process.poll() is None, self.process.stderr.read()
            found = list(results.glob("sweeps/*/sweep.json"))
            trials = json.loads(found[0].read_text())["trials"] if found else []
            return len(trials) >= number and trials[number - 1]["history"]

        assert wait_until(has_told, seconds=240)

    def end(self, by):
        """Returns what was said."""
        below = [pid for pid, command in descendants(self.process.pid) if is_of_training(command)]
        assert len(below) >= 3
        (os.killpg if by == signal.SIGINT else os.kill)(self.process.pid, by)
        _, said = self.process.communicate(timeout=180)
        return " ".join(said.split())


def test_every_trial_is_accounted_for_after_ctrl_c_and_a_kill(dataset, ray_session, results, tmp_path):
    search = {DELTA: {"grid": [0.1, 0.2, 0.3]}}
    path = write_sweep(tmp_path, dataset, search=search, changes=LONG)
    driver = Driver(path)
    driver.wait_for(results, 1)
    said = driver.end(signal.SIGINT)
    assert driver.process.returncode == 130, said
    assert "stopping all trials, with checkpoints" in said and "Traceback" not in said
    folder = results / "sweeps" / plan_sweep(load_sweep(path)).name
    interrupted = Ledger(folder)
    assert [trial.status for trial in interrupted.trials] == ["interrupted"]
    run_id = interrupted.record.mlflow_run_id
    (stage,) = folders(results, "hdam")
    assert read_record(stage, StageRecord).status == "interrupted", "it has taken its leave"
    assert {status_of(run_id), *(run.info.status for run in children_of(run_id).values())} == {"KILLED"}

    driver = Driver(path)
    driver.wait_for(results, 2)
    driver.end(signal.SIGKILL)
    killed = Ledger(folder)
    assert [trial.status for trial in killed.trials] == ["finished", "running"]
    left = [run_id, read_record(folders_of_running(results), StageRecord).mlflow_run_id]
    assert wait_until(lambda: {status_of(each) for each in left} == {"KILLED"}, seconds=90)

    report = tune(load_sweep(path), restore=True)
    assert [trial.status for trial in report.trials] == ["finished"] * 3
    assert report.mlflow_run_id == run_id and len(folders(results, "hdam")) == 3
    assert report.trials[0].seconds == killed.trials[0].seconds, "it is not done again"
    check_accounted(report)
    client = tracking.connect()
    runs = client.search_runs([client.get_experiment_by_name("sweep").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"} and len(runs) == 1 + 3 + 3 * 2


def folders_of_running(results):
    (running,) = [each for each in folders(results, "hdam") if read_record(each, StageRecord).status == "running"]
    return running


def test_optuna_learns_two_at_a_time_and_is_extended(dataset, ray_session, results, tmp_path):
    search = {LR: {"loguniform": [1e-5, 1e-2]}, DELTA: {"choice": [0.1, 0.3]}}
    sweep = small_sweep(
        tmp_path,
        dataset,
        search=search,
        algorithm="optuna",
        num_trials=2,
        concurrency=2,
        resources={"cpus_per_worker": 0.25, "data_cpus": 0.5},
        changes={"procedure": "scratch"},
    )
    first = tune(sweep)
    assert [trial.status for trial in first.trials] == ["finished"] * 2
    more = tune(sweep, num_trials=3)
    assert more.trials[:2] == first.trials and more.trials[2].status == "finished"
    assert len({trial.settings[LR] for trial in more.trials}) == 3
    assert more.mlflow_run_id == first.mlflow_run_id
    check_accounted(more)
    assert load_model("models:/hdam-squares@candidate").version == more.model_uri.rpartition("/")[2]


def test_a_population_takes_over_weights_and_settings(dataset, ray_session, results, tmp_path):
    search = {LR: {"grid": [1e-3, 1e-9]}}
    report = tune(small_sweep(tmp_path, dataset, search=search, scheduler="pbt", grace=0.4, changes=LONG))
    good, hopeless = report.trials
    assert (good.status, hopeless.status) == ("finished", "finished")
    assert hopeless.changes and hopeless.settings[LR] > 1e-4, "it has the other one's, more or less"
    until = [step for step, _ in hopeless.history].index(hopeless.changes[0][0]) + 1
    values = [value for _, value in hopeless.history]
    assert min(values[:until]) > 2 > max(values[until:]), "and its weights"
    assert len(folders(results, "hdam")) == 2
    check_accounted(report)
    tags = children_of(report.mlflow_run_id)["trial-002"].data.tags
    assert tags[f"setting.{LR}"] == str(hopeless.settings[LR]) and tags["setting.changes"] == str(hopeless.changes)
    with pytest.raises(InputError, match="changes the settings under"):
        small_sweep(tmp_path, dataset, search=search, scheduler="pbt", algorithm="optuna", num_trials=2)
