"""What is written down about a run, and what an outage of the tracking store does: nothing."""

import json
import logging
import os
import socket
from pathlib import Path

import pytest
import yaml
from PIL import Image
from small_training import make_dataset, small_training

from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import load_manifest
from hdam.platform import tracking
from hdam.platform.tracking import MetricBuffer


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A tracking store in SQLite with one run: (client, experiment, manifest, run id)."""
    folder = tmp_path_factory.mktemp("tracking")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HDAM_RESULTS", str(folder / "results"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        dataset = make_dataset(folder, num_clips=4, num_test=1)
        experiment, manifest = small_training(dataset, {"seed": 7}), load_manifest(dataset)
        client = tracking.connect()
        yield client, experiment, manifest, tracking.start_run(client, experiment, manifest, run_name="first")


def test_results_and_store_are_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("HDAM_RESULTS", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking.results_dir() == tmp_path / "results"
    monkeypatch.setenv("HDAM_RESULTS", str(tmp_path / "elsewhere"))
    assert tracking.tracking_uri() == f"sqlite:///{tmp_path}/elsewhere/mlflow.db"
    assert tracking.ui_command() == f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/elsewhere/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert tracking.tracking_uri() == "http://tracking:5000" and tracking.has_server()


def test_a_run_says_what_is_trained_on_what_with_what(store):
    client, experiment, manifest, run_id = store
    run = client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert client.get_experiment(run.info.experiment_id).name == experiment.name
    assert run.data.params["optim.lr"] == "0.001"
    assert run.data.params["model.anchors.num_motion"] == "3"
    assert set(run.data.params) == set(tracking.flatten(experiment.settings()))
    assert run.data.tags["dataset.fingerprint"] == manifest.fingerprint
    assert run.data.tags["variant"] == "hdam"
    assert {"version.torch", "version.ray", "version.hdam"} <= set(run.data.tags)
    assert run.inputs.dataset_inputs[0].dataset.name == manifest.name
    path = Path(client.download_artifacts(run_id, "experiment.yaml"))
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == experiment.settings()
    assert str(tracking.results_dir() / "artifacts") in run.info.artifact_uri


def test_connecting_leaves_the_environment_as_it_was(store, monkeypatch):
    tracking.connect()
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_metrics_go_out_in_batches(store):
    client, _, _, run_id = store
    now = [0.0]
    buffer = MetricBuffer(client, run_id, clock=lambda: now[0])
    for step in range(1, 4):
        buffer.add({"loss/total": 1 / step, "lr": 0.1}, step=step)
    assert buffer.num_kept == 4, "the first went out at once, the others wait for their time"
    now[0] = 10.0
    buffer.add({"loss/total": 0.25}, step=4)
    assert buffer.num_kept == 0
    history = client.get_metric_history(run_id, "loss/total")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1), (2, 0.5), (3, 1 / 3), (4, 0.25)]


def test_metrics_are_kept_while_the_store_refuses_them(store, caplog):
    client, experiment, manifest, _ = store
    run_id = tracking.start_run(client, experiment, manifest, run_name="away")
    now = [0.0]
    buffer = MetricBuffer(client, run_id, clock=lambda: now[0])
    client.delete_run(run_id)  # MLflow takes nothing for a deleted run
    with caplog.at_level(logging.WARNING, logger="hdam"):
        for step in range(1, 4):
            buffer.add({"loss/total": float(step)}, step=step)
            now[0] += 100
    assert buffer.num_kept == 3
    assert caplog.text.count("MLflow does not take metrics") == 1
    client.restore_run(run_id)
    buffer.flush()
    assert buffer.num_kept == 0
    assert [metric.step for metric in client.get_metric_history(run_id, "loss/total")] == [1, 2, 3]


def test_pictures_scores_and_the_end_survive_an_unknown_run(store, caplog, tmp_path):
    client, *_ = store
    Image.new("RGB", (8, 8)).save(tmp_path / "grid.png")
    tracking.log_picture(client, "f" * 32, tmp_path / "grid.png", step=1)
    tracking.log_scores(client, "f" * 32, {"test/l1": 0.1}, {"clip_id": ["a"], "l1": [0.1]}, step=20)
    tracking.end_run(client, "f" * 32, "FINISHED")
    assert caplog.text.count("MLflow:") == 3


def test_pictures_and_scores_are_there_in_the_end(store, tmp_path):
    client, experiment, manifest, _ = store
    run_id = tracking.start_run(client, experiment, manifest, run_name="whole")
    Image.new("RGB", (8, 8)).save(tmp_path / "grid.png")
    tracking.log_picture(client, run_id, tmp_path / "grid.png", step=20)
    for _ in range(2):  # a run resumed after its evaluation is evaluated again
        tracking.log_scores(client, run_id, {"test/l1": 0.1}, {"clip_id": ["a", "b"], "l1": [0.1, 0.2]}, step=20)
    tracking.end_run(client, run_id, "KILLED")
    assert client.get_run(run_id).info.status == "KILLED"
    assert client.get_run(run_id).data.metrics["test/l1"] == 0.1
    assert any(item.path.endswith(".png") for item in client.list_artifacts(run_id, "images"))
    table = json.loads(Path(client.download_artifacts(run_id, "evaluation.json")).read_text(encoding="utf-8"))
    assert table == {"columns": ["clip_id", "l1"], "data": [["a", 0.1], ["b", 0.2]]}
    assert client.load_table(client.get_run(run_id).info.experiment_id, "evaluation.json", [run_id]).shape == (2, 2)
    assert tracking.resume_run(client, run_id)
    assert client.get_run(run_id).info.status == "RUNNING"
    assert not tracking.resume_run(client, "f" * 32)


def test_a_server_that_is_not_there_is_one_line(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        InputError, match=rf"MLflow at http://127\.0\.0\.1:{port} does not answer .*MLFLOW_TRACKING_URI"
    ):
        tracking.connect()


@pytest.mark.parametrize(
    ("uri", "is_server"),
    [
        ("https://tracking:5000", True),
        ("databricks://profile", True),
        ("mysql+pymysql://user@host/runs", False),
        ("postgresql+psycopg2://user@host/runs", False),
        ("./mlruns", False),
    ],
)
def test_a_database_is_no_server_whatever_its_driver(monkeypatch, uri, is_server):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.has_server() == is_server


def test_a_password_is_not_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("HDAM_RESULTS", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+nodriver://me:s3cr@t@host:5432/runs")
    assert tracking.ui_command() == "mlflow ui --backend-store-uri postgresql+nodriver://***@host:5432/runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert tracking.ui_command() == "open http://***@127.0.0.1:1"
    with pytest.raises(InputError, match=r"MLflow at http://\*\*\*@127\.0\.0\.1:1 does not answer") as found:
        tracking.connect()
    assert "s3cret" not in str(found.value)


@pytest.mark.parametrize("name", ["file", "file/results"])
def test_results_that_cannot_be_kept_are_one_line(monkeypatch, tmp_path, name):
    (tmp_path / "file").touch()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HDAM_RESULTS", str(tmp_path / name))
    with pytest.raises(InputError, match=rf"no results can be kept in {tmp_path / name} \(.+\); set HDAM_RESULTS"):
        tracking.connect()
