"""Faults that are caused for real in the middle of a training; nothing is lost. Slow: `make test-faults`."""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch
import yaml
from local_store import keep_results_in
from mlflow_server import MlflowServer
from processes import descendants, is_of_training, wait_until
from small_training import small_training

from hdam.pipelines.errors import InputError
from hdam.platform import tracking
from hdam.platform.checkpoints import STATE_NAME, newest_checkpoint, read_checkpoint, step_of
from hdam.platform.failures import TrainingError
from hdam.platform.runs import StageRecord, read_record
from hdam.platform.status import examine_experiment
from hdam.platform.train import train

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

STEPS = 200
ONE_WORKER = {
    "resources.workers": 1,
    "optim.duration": f"{STEPS} steps",
    "log.metrics_every": 1,
    "log.checkpoint_every": 40,
    "log.pictures_every": 100,
}


def statuses():
    """Status of every MLflow run."""
    client = tracking.connect()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [run.info.status for run in client.search_runs(experiments)]


def history_of(run_id):
    """Every value that MLflow was told of every loss, by name and step."""
    client = tracking.connect()
    names = [name for name in client.get_run(run_id).data.metrics if name.startswith(("loss/", "lr", "held_out/l1"))]
    told = {}
    for name in names:
        for metric in client.get_metric_history(run_id, name):
            told.setdefault((name, metric.step), set()).add(metric.value)
    return told


def leaves(state, prefix=""):
    """Nested state as one dictionary."""
    if not isinstance(state, dict | list):
        return {prefix: state}
    parts = state.items() if isinstance(state, dict) else enumerate(state)
    return {name: leaf for key, part in parts for name, leaf in leaves(part, f"{prefix}.{key}").items()}


def are_equal(one, other):
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def newest_step(results):
    return max((step_of(path) for path in results.glob("stages/*/step-*")), default=0)


class Driver:
    """`hdam train` in a process group of its own, as a shell would start it."""

    def __init__(self, folder, experiment):
        path = folder / "squares.yaml"
        path.write_text(yaml.safe_dump(experiment.settings()))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hdam.platform.cli", "train", str(path)],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def stop(self, *, by):
        """Press Ctrl-C, or ask the process to end; returns what was said, in one line."""
        below = [pid for pid, command in descendants(self.process.pid) if is_of_training(command)]
        assert len(below) >= 3
        if by == signal.SIGINT:
            os.killpg(self.process.pid, by)
        else:
            self.process.send_signal(by)
        _, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 128 + by, said
        assert not any(is_of_training(command) for pid, command in descendants(1) if pid in below)
        return " ".join(said.split())


def test_stopping_and_resuming_gives_the_run_that_was_never_stopped(dataset, ray_session, results, monkeypatch, caplog):
    """By Ctrl-C, then by a signal and with the newest checkpoint truncated; losses are equal to the last digit."""
    experiment = small_training(dataset, ONE_WORKER)
    stops = []
    for least, by in ((40, signal.SIGINT), (120, signal.SIGTERM)):
        driver = Driver(results.parent, experiment)
        assert wait_until(lambda least=least: newest_step(results) >= least, seconds=90)
        said = driver.stop(by=by)
        stops.append(newest_step(results))
        assert "stopping after this step, with a checkpoint" in said
        assert f"interrupted in stage hdam; the same command goes on from step {stops[-1]}" in said
        assert "Traceback" not in said
        assert statuses() == ["KILLED"] * 2
        assert examine_experiment(experiment).stages[0].state == "interrupted"
    assert 40 <= stops[0] < stops[1] < STEPS, stops
    (stage_dir,) = results.glob("stages/hdam-*")
    newest = newest_checkpoint(stage_dir)
    state = (newest / STATE_NAME).read_bytes()
    (newest / STATE_NAME).write_bytes(state[: len(state) // 2])
    with caplog.at_level(logging.INFO, logger="hdam"):
        stopped = train(experiment)
    assert f"checkpoint {newest} is damaged; going back to the one before" in caplog.text
    assert int(re.search(r"going on from the checkpoint of step (\d+)", caplog.text)[1]) < stops[1]
    assert set(statuses()) == {"FINISHED"}
    found = history_of(stopped.stages[0].mlflow_run_id)
    resumed = read_checkpoint(newest_checkpoint(stopped.training_dir))

    monkeypatch.setenv("HDAM_RESULTS", str(results.parent / "straight"))
    straight = train(experiment)
    expected = history_of(straight.stages[0].mlflow_run_id)
    assert {step for _, step in expected} == set(range(1, STEPS + 1))
    assert all(
        found[place] == values and len(values) == 1 for place, values in expected.items() if "held" not in place[0]
    )
    one, other = leaves(read_checkpoint(newest_checkpoint(straight.training_dir))), leaves(resumed)
    assert one.keys() == other.keys() and all(are_equal(one[name], other[name]) for name in one)
    assert {"optimiser", "model", "step", "skipped"} <= {name.split(".")[1] for name in one}


def test_a_disk_that_fills_up_costs_what_came_after_the_last_checkpoint(dataset, ray_session, small_disk, monkeypatch):
    keep_results_in(small_disk / "results", monkeypatch)
    experiment = small_training(dataset, ONE_WORKER)
    filler = small_disk / "filler"

    def fill():
        assert wait_until(lambda: newest_step(small_disk / "results") >= 40, seconds=90)
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    filling = threading.Thread(target=fill)
    filling.start()
    with pytest.raises(TrainingError) as told:
        train(experiment)
    filling.join()
    line = str(told.value)
    assert re.search(r"the checkpoint of step \d+ does not fit on the disk of .*\(No space left on device\)", line), (
        line
    )
    kept = int(re.search(r"the checkpoint of step (\d+) is kept, the same command goes on from there", line)[1])
    assert kept >= 40 and "\n" not in line
    assert shutil.disk_usage(small_disk).free < 2**19
    filler.unlink()
    report = train(experiment)
    assert report.num_steps == STEPS and not report.was_known
    assert newest_step(small_disk / "results") == STEPS
    assert set(statuses()) == {"FINISHED"}


def test_losses_that_stay_no_numbers_end_the_run_and_leave_the_batches(dataset, ray_session, results):
    experiment = small_training(dataset, {"optim.lr": 1e30, "resources.max_skipped": 4, "log.metrics_every": 1})
    with pytest.raises(
        TrainingError, match=r"4 steps in a row, up to step 5, were skipped: .* is (nan|inf); .*optim\.lr"
    ):
        train(experiment)
    (stage_dir,) = results.glob("stages/hdam-*")
    record = read_record(stage_dir, StageRecord)
    assert record.status == "failed" and "4 steps in a row" in record.reason
    assert newest_checkpoint(stage_dir) is None, "broken weights are not kept"
    saved = sorted((stage_dir / "skipped").glob("*.pt"))
    assert [path.name for path in saved[:2]] == ["step-00000002-worker-0.pt", "step-00000002-worker-1.pt"]
    batch = torch.load(saved[0], weights_only=True)
    assert batch["source"].shape == (4, 32, 32, 3) and batch["source"].dtype == torch.uint8
    assert (batch["source"][:, 0, 0, 2] == 77).all(), "the frames as they came"
    assert batch["step"] == 2 and re.search("is (nan|inf)", batch["fault"])
    assert saved[0].with_suffix(".png").is_file()
    assert statuses() == ["FAILED"] * 2
    assert "4 steps in a row" in examine_experiment(experiment).stages[0].details


@pytest.fixture
def server(tmp_path, monkeypatch):
    with MlflowServer(tmp_path / "server") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setenv("HDAM_RESULTS", str(tmp_path / "results"))
        yield server


def test_a_server_that_goes_away_does_not_stop_a_training(dataset, ray_session, server, tmp_path, caplog, monkeypatch):
    """Away in the middle and back again; then away at the end, and back before the same command is given again."""
    monkeypatch.setattr(tracking, "SECONDS_OF_PATIENCE", 5.0)  # instead of minutes
    experiment = small_training(dataset, {**ONE_WORKER, "optim.duration": "600 steps"})

    def stop_and_start():
        assert wait_until(lambda: newest_step(tmp_path / "results") >= 40, seconds=90)
        server.stop()
        at = newest_step(tmp_path / "results")
        assert wait_until(lambda: newest_step(tmp_path / "results") >= at + 80, seconds=60), "training goes on"
        server.start()
        assert wait_until(lambda: newest_step(tmp_path / "results") >= 560, seconds=120)
        server.stop()

    away = threading.Thread(target=stop_and_start)
    away.start()
    with (
        caplog.at_level(logging.INFO, logger="hdam"),
        pytest.raises(InputError, match=r"does not answer .*the same command"),
    ):
        train(experiment)
    away.join()
    (stage_dir,) = (tmp_path / "results").glob("stages/hdam-*")
    record = read_record(stage_dir, StageRecord)
    assert record.status == "finished" and not record.is_published
    # Metrics or pictures, whichever come first while the server is away.
    away_lines = re.findall(rf"MLflow at {re.escape(server.uri)} does not take \w+ \(", caplog.text)
    assert len(away_lines) == 2, "once for each time"
    assert caplog.text.count("the results of stage hdam are kept in") == 1
    assert "MLflow answers again" in caplog.text
    assert "they are kept in" in caplog.text and (stage_dir / "unsent.jsonl").stat().st_size > 0
    server.start()
    report = train(experiment)
    assert [stage.kind for stage in report.stages if stage.was_known] == ["hdam"]
    told = history_of(record.mlflow_run_id)
    assert {step for name, step in told if name == "loss/total"} == set(range(1, 601))
    assert all(len(values) == 1 for values in told.values())
    assert set(statuses()) == {"FINISHED"}
    client = tracking.connect()
    pictures = [item.path for item in client.list_artifacts(record.mlflow_run_id, "images")]
    painted = {int(found[1]) for path in pictures if (found := re.search(r"\bstep\D(\d+)\D.*\.png$", path))}
    assert painted == set(range(100, 601, 100)), pictures
    assert not (stage_dir / "unsent.jsonl").exists()
