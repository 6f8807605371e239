"""Where runs are kept, and what is said when the store cannot be reached."""

import logging
import os
import socket

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from ports import free_port

from hdam.pipelines.errors import InputError
from hdam.platform import tracking


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


def test_connecting_leaves_the_environment_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setenv("HDAM_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking.connect()
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert (tmp_path / "results" / "mlflow.db").exists()


def test_a_server_that_is_not_there_is_one_line(monkeypatch, caplog):
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(InputError) as told,
    ):
        tracking.connect()
    assert str(told.value) == (
        f"MLflow at http://127.0.0.1:{port} does not answer ([Errno 111] Connection refused); "
        "look at MLFLOW_TRACKING_URI"
    )
    assert not caplog.records, "the retries are not told"


@pytest.mark.parametrize("retries", ["0", "1"])
def test_a_warning_names_the_store_and_what_the_connection_died_of(monkeypatch, caplog, retries):
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:s3cret@{address}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", retries)
    with tracking.tolerated("the scores were not logged"):
        MlflowClient(tracking.tracking_uri()).search_experiments()
    assert caplog.messages == [
        f"MLflow at http://***@{address}: the scores were not logged ([Errno 111] Connection refused)"
    ]


def test_a_server_that_never_answers_is_told_as_short(monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"http://127.0.0.1:{silent.getsockname()[1]}")
        with tracking.tolerated("the scores were not logged"):
            MlflowClient(uri).search_experiments()
    assert caplog.messages == [f"MLflow at {uri}: the scores were not logged (timed out)"]


def test_the_cause_of_what_is_no_outage_is_its_first_line(tmp_path):
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "none").read_bytes()
    assert tracking.cause_of(missing.value) == f"[Errno 2] No such file or directory: '{tmp_path / 'none'}'"
    assert tracking.cause_of(MlflowException("no such run\nat all")) == "no such run"
    circle = MlflowException("a circle")
    circle.__cause__ = ValueError("of two")
    circle.__cause__.__context__ = circle
    assert tracking.cause_of(circle) == "a circle"


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


def test_results_that_cannot_be_written_are_one_line(monkeypatch):
    monkeypatch.setenv("HDAM_RESULTS", "/proc")  # a folder that is there, in which nobody can write, root neither
    with (
        pytest.raises(InputError, match=r"no results can be kept in /proc \(.+\); set HDAM_RESULTS"),
        tracking.keeping_results() as folder,
    ):
        (folder / "probe").touch()
