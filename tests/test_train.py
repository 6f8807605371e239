"""Whole trainings on Ray: they end, they survive a killed worker and a killed driver, and mistakes cost nothing."""

import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import descendants, is_alive, is_of_training, wait_until
from ray.exceptions import RayTaskError
from ray.train import ControllerError, WorkerGroupError
from small_training import small_training

from hdam.pipelines.errors import InputError
from hdam.platform import tracking
from hdam.platform.checkpoints import newest_checkpoint, read_checkpoint, step_of
from hdam.platform.failures import StopOnLasting, describe
from hdam.platform.fit import fit
from hdam.platform.locks import locked
from hdam.platform.messages import Measured, Started
from hdam.platform.prepared import prepare_training
from hdam.platform.registry import load_model
from hdam.platform.runs import StageRecord, read_record
from hdam.platform.step import NonFiniteError
from hdam.platform.train import train

DRIVER = """
import logging, sys
from small_training import small_training
from hdam.platform.train import train

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    train(small_training(sys.argv[1], {"optim.duration": "60 steps"}))
"""


def train_by_hand(dataset, run_dir, *, on_message=None, changes=None):
    """The workers alone, without tracking; returns all messages."""
    prepared = prepare_training(small_training(dataset, changes))
    messages = []

    def listen(message):
        messages.append(message)
        if on_message is not None:
            on_message(message)

    with locked(run_dir) as attempt:
        fit(
            prepared.experiment,
            prepared.plan,
            run_dir=run_dir,
            attempt=attempt,
            lineage="by hand",
            last_step=prepared.num_steps(prepared.trained),
            held_out_split="test",
            on_message=listen,
        )
    return messages


def weights_in(run_dir):
    newest = newest_checkpoint(run_dir)
    assert step_of(newest) == 30
    state = read_checkpoint(newest)
    return {f"{part}.{name}": value for part in ("model", "discriminator") for name, value in state[part].items()}


@pytest.mark.faults
def test_a_killed_worker_costs_nothing_but_time(dataset, ray_session, tmp_path):
    killed = []

    def kill_one(message):
        if isinstance(message, Measured) and message.step >= 10 and not killed:
            workers = [pid for pid, command in descendants(os.getpid()) if "RayTrainWorker" in command]
            assert len(workers) == 2
            killed.append(workers[-1])
            os.kill(workers[-1], signal.SIGKILL)

    changes = {"losses.gan": 1.0, "model.discriminator.num_blocks": 2}
    straight = train_by_hand(dataset, tmp_path / "straight", changes=changes)
    messages = train_by_hand(dataset, tmp_path / "killed", on_message=kill_one, changes=changes)
    assert killed
    assert [message.step for message in straight if isinstance(message, Started)] == [0]
    first, second = [message.step for message in messages if isinstance(message, Started)]
    assert first == 0 and second >= 10 and second % 5 == 0, "it goes on from a checkpoint"
    expected, found = weights_in(tmp_path / "straight"), weights_in(tmp_path / "killed")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.faults
def test_the_same_command_goes_on_after_a_killed_driver(dataset, ray_session, results, caplog):
    (results.parent / "driver.py").write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    driver = subprocess.Popen([sys.executable, "driver.py", str(dataset)], cwd=results.parent, env=environment)
    checkpoints = wait_until(lambda: sorted(results.glob("stages/*/step-0000001*")), seconds=150)
    assert checkpoints and driver.poll() is None
    orphans = {pid: command for pid, command in descendants(driver.pid) if is_of_training(command)}
    assert len(orphans) >= 4, orphans
    driver.kill()
    driver.wait(30)
    stage_dir = checkpoints[0].parent
    record = read_record(stage_dir, StageRecord)
    assert record.status == "running"
    client = tracking.connect()
    left = (record.mlflow_run_id, record.parent_run_id)
    assert wait_until(lambda: {client.get_run(run_id).info.status for run_id in left} == {"KILLED"}, seconds=40)
    with caplog.at_level(logging.INFO, logger="hdam"):
        report = train(small_training(dataset, {"optim.duration": "60 steps"}))
    kept = int(re.search(r"going on from the checkpoint of step (\d+)", caplog.text)[1])
    assert kept >= 10
    assert report.training_dir == stage_dir and report.num_steps == 60 and not report.was_known
    assert wait_until(lambda: not any(is_alive(pid) for pid in orphans), seconds=60), "Ray ends with its driver"
    check_tracked(report, kept=kept)
    check_registered(report)

    started = time.monotonic()
    again = train(small_training(dataset, {"optim.duration": "60 steps"}))
    assert again.was_known and time.monotonic() - started < 10
    assert again.reconstruction == report.reconstruction and again.model_uri == report.model_uri


def check_tracked(report, *, kept):
    client = tracking.connect()
    experiment = client.get_experiment_by_name("squares")
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {report.mlflow_run_id, *(stage.mlflow_run_id for stage in report.stages)}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs[report.mlflow_run_id].data.metrics["test/l1"] == pytest.approx(report.reconstruction.l1)
    run, evaluation = [runs[stage.mlflow_run_id] for stage in report.stages]
    assert evaluation.data.metrics["test/l1"] == pytest.approx(report.reconstruction.l1)
    history = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "loss/total")}
    assert {5, *range(kept + 5, 65, 5)} <= set(history), "of both attempts"
    assert history[60] < 0.8 * history[5]
    assert {"lr", "pairs_per_second", "data_wait", "held_out/l1", "held_out/ratio"} <= set(run.data.metrics)
    pictures = [item.path for item in client.list_artifacts(run.info.run_id, "images") if item.path.endswith(".png")]
    assert len(pictures) >= 2
    assert (report.training_dir / "pictures" / "step-00000060.png").is_file()


def check_registered(report):
    assert report.model_name == "hdam-squares"
    loaded = load_model(f"models:/{report.model_name}@candidate")
    assert loaded.version == report.model_version
    trained = read_checkpoint(newest_checkpoint(report.training_dir))["model"]
    assert all(torch.equal(value, trained[name]) for name, value in loaded.model.state_dict().items())
    assert report.reconstruction.num_clips == 2 and report.reconstruction.num_frames == 24


def test_the_line_about_a_failure_is_the_one_that_helps():
    mistake = InputError("shard 3 is missing")
    mistake.args = (f"{mistake}\nFailed to apply UDF transform after 1/1 attempts",)  # as Ray Data does
    mistake = pickle.loads(pickle.dumps(mistake))
    wrapped = RayTaskError("get", "a long traceback", mistake).as_instanceof_cause()
    assert describe(WorkerGroupError("rank 1", {1: wrapped})) == "shard 3 is missing"
    assert describe(ControllerError(WorkerGroupError("rank 0", {0: NonFiniteError("step 3: ...")}))) == "step 3: ..."
    assert describe(WorkerGroupError("rank 0", {0: RuntimeError("\nno memory")})) == "RuntimeError: no memory"


def test_only_what_would_happen_again_ends_all_attempts():
    stop = StopOnLasting()
    stop.after_exception(run_context=None, worker_exceptions={0: RuntimeError("connection reset")})
    with pytest.raises(InputError, match="shard 3"):
        stop.after_exception(run_context=None, worker_exceptions={0: RuntimeError("reset"), 1: InputError("shard 3")})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resources.workers": 4000, "optim.batch_size": 4000}, "resources.workers=4000, but this machine has"),
        ({"data.path": ""}, "set data.path"),
        ({"data.size": 64}, "prepared at size 32"),
        ({"losses.perceptual.network": "vgg19"}, "needs its weights"),
        ({"optim.batch_size": 4000}, "an epoch has 96 pairs"),
        ({"model.detector.num_blocks": 6}, "do not work at data.size=32: an hourglass of 6 blocks"),
        ({"model.detector.scale": 0.3}, "scale=0.3 of a downsampled image"),
        ({"model.detector.width": -8}, "do not work at data.size=32"),
        ({"losses.perceptual.layer_weights": []}, "do not work at data.size=32"),
        ({"procedure": "paper", "model.ignored": [1]}, "leave model.ignored out, or set procedure: scratch"),
        ({"losses.gan": 1.0}, "do not work at data.size=32"),
        ({"optim.betas": [1.0, 1.0]}, "do not work at data.size=32"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(dataset, results, changes, message):
    with pytest.raises(ValueError) as told:
        train(small_training(dataset, changes))
    assert message in str(told.value) and "\n" not in str(told.value)
    assert not results.exists()
