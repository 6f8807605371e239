"""What an outage of MLflow does to metrics and pictures: they come late, and none is missing."""

import json
import logging
import math
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest
from local_store import keep_results_in
from mlflow_server import MlflowServer
from PIL import Image
from ports import free_port

from hdam.platform import outbox, tracking
from hdam.platform.outbox import Outbox
from hdam.platform.publishing import publish
from hdam.platform.runs import StageRecord


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A tracking store in SQLite: (client, experiment id)."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        keep_results_in(folder, patch)
        client = tracking.connect()
        yield client, client.create_experiment("outbox", artifact_location=(folder / "artifacts").as_uri())


@pytest.fixture
def run(store):
    """A run of its own in the store: (client, run id). It can be away: MLflow takes nothing for a deleted run."""
    client, experiment_id = store
    return client, client.create_run(experiment_id).info.run_id


@pytest.fixture
def unreachable(monkeypatch):
    """A client of a server that is not there."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return MlflowClient(f"http://127.0.0.1:{free_port()}")


def history(client, run_id, name="loss/total"):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]


def pictured_steps(client, run_id):
    paths = [item.path for item in client.list_artifacts(run_id, "images") if item.path.endswith(".png")]
    return sorted(int(path.replace("%", "+").split("+")[2]) for path in paths)


def painted(path):
    Image.new("RGB", (8, 8)).save(path)
    return path


def unsent(folder):
    return [json.loads(line) for line in (folder / "unsent.jsonl").read_text(encoding="utf-8").splitlines()]


def test_metrics_go_out_in_batches(run, clock, tmp_path):
    client, run_id = run
    box = Outbox(client, run_id, folder=tmp_path, clock=clock)
    for step in range(1, 4):
        box.add({"loss/total": 1 / step, "lr": 0.1}, step=step)
    assert box.num_kept == 4, "the first went out at once, the others wait for their time"
    clock.now = 5.0
    box.add({"loss/total": 0.25}, step=4)
    assert box.num_kept == 0
    assert history(client, run_id) == [(1, 1), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert not list(tmp_path.iterdir())


def test_pictures_are_a_series(run, tmp_path, caplog):
    client, run_id = run
    box = Outbox(client, run_id, folder=tmp_path)
    for step in (20, 40):
        box.add_picture(painted(tmp_path / f"{step}.png"), step=step)
    (tmp_path / "40.png").unlink()
    (tmp_path / "cut.png").write_bytes((tmp_path / "20.png").read_bytes()[:20])
    box.add_picture(tmp_path / "cut.png", step=60)
    box.add({"loss/total": 1.0}, step=60)
    box.close()
    assert pictured_steps(client, run_id) == [20], "40 is not on disk any more, and the other is cut"
    assert history(client, run_id) == [(60, 1)]
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        f"{tmp_path / 'cut.png'} is not sent to MLflow"
    ]


def test_numbers_that_are_none_harm_no_others(run, tmp_path):
    client, run_id = run
    box = Outbox(client, run_id, folder=tmp_path)
    values = [1.0, math.nan, math.inf, -math.inf, 2.0]
    for step, value in enumerate(values):
        box.add({"loss/total": value}, step=step)
    box.close()
    found = [value for _, value in history(client, run_id)]
    assert found[0] == 1 and math.isnan(found[1]) and found[4] == 2
    assert found[2:4] == [sys.float_info.max, -sys.float_info.max]


def test_an_outage_is_told_once_and_everything_arrives_after_it(run, clock, tmp_path, caplog):
    client, run_id = run
    box = Outbox(client, run_id, folder=tmp_path, clock=clock)
    client.delete_run(run_id)
    caplog.set_level(logging.INFO, logger="hdam")
    for step in range(1, 4):
        box.add({"loss/total": float(step)}, step=step)
        assert [line["step"] for line in unsent(tmp_path)] == list(range(1, step + 1)), "on disk at once"
        clock.now += 8
    box.add_picture(painted(tmp_path / "3.png"), step=3)
    assert box.num_kept == 4
    (told,) = caplog.messages
    assert told.startswith(f"MLflow at {tracking.tracking_uri()} does not take metrics (The run ") and "\n" not in told
    assert told.endswith(
        f"; training goes on, they are kept in {tmp_path / 'unsent.jsonl'} and sent when it answers again"
    )
    client.restore_run(run_id)
    clock.now = 16 + outbox.SECONDS_AFTER_OUTAGE - 1
    box.add({"loss/total": 4.0}, step=4)
    assert box.num_kept == 5, "the next try waits for its time"
    clock.now += 1
    box.add({"loss/total": 5.0}, step=5)
    assert box.num_kept == 0
    assert history(client, run_id) == [(step, step) for step in range(1, 6)]
    assert pictured_steps(client, run_id) == [3]
    assert caplog.messages[1:] == ["MLflow answers again; 5 metrics were sent"]
    assert [path.name for path in tmp_path.iterdir()] == ["3.png"]


def test_a_second_outage_is_told_again(run, tmp_path, caplog):
    client, run_id = run
    caplog.set_level(logging.INFO, logger="hdam")
    box = Outbox(client, run_id, folder=tmp_path)
    for step in (1, 2):
        client.delete_run(run_id)
        box.add({"loss/total": float(step)}, step=step)
        box.flush()
        client.restore_run(run_id)
        box.flush()
    starts = [message.partition(" (")[0] for message in caplog.messages]
    away = f"MLflow at {tracking.tracking_uri()} does not take metrics"
    assert starts == [away, "MLflow answers again; 1 metrics were sent"] * 2


def test_the_next_process_sends_what_a_killed_one_left(run, unreachable, clock, tmp_path, caplog):
    client, run_id = run
    caplog.set_level(logging.INFO, logger="hdam")
    killed = Outbox(unreachable, run_id, folder=tmp_path, clock=clock)
    killed.add({"loss/total": 1.0, "lr": math.nan}, step=1)
    killed.add_picture(painted(tmp_path / "1.png"), step=1)
    killed.add({"loss/total": 2.0}, step=2)
    with (tmp_path / "unsent.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"metric": "loss/total", "val')
    before_sending = (tmp_path / "unsent.jsonl").read_text(encoding="utf-8")

    still_away = Outbox(unreachable, run_id, folder=tmp_path, clock=clock)
    assert still_away.num_kept == 4
    still_away.add({"loss/total": 3.0}, step=3)
    assert [line["step"] for line in unsent(tmp_path)] == [1, 1, 2, 3, 1], "metrics, then pictures, and no half line"

    Outbox(client, run_id, folder=tmp_path, clock=clock).flush()
    assert history(client, run_id) == [(1, 1), (2, 2), (3, 3)]
    assert [math.isnan(value) for _, value in history(client, run_id, "lr")] == [True]
    assert pictured_steps(client, run_id) == [1]
    assert caplog.messages[-1] == "4 metrics were sent, with those that an earlier process had left"
    assert not (tmp_path / "unsent.jsonl").exists()

    (tmp_path / "unsent.jsonl").write_text(before_sending, encoding="utf-8")  # as if it was killed before removing it
    Outbox(client, run_id, folder=tmp_path, clock=clock).flush()
    assert history(client, run_id) == [(1, 1), (2, 2), (3, 3)], "MLflow knows a metric that comes a second time"


def test_metrics_that_a_killed_process_had_not_sent_yet_are_on_disk(run, clock, tmp_path):
    client, run_id = run
    killed = Outbox(client, run_id, folder=tmp_path, clock=clock)
    killed.add({"loss/total": 1.0}, step=1)
    assert history(client, run_id) == [(1, 1)] and not (tmp_path / "unsent.jsonl").exists()
    killed.add({"loss/total": 2.0}, step=2)
    assert history(client, run_id) == [(1, 1)], "the next ones wait for a few seconds"
    after = Outbox(client, run_id, folder=tmp_path, clock=clock)
    after.close()
    assert history(client, run_id) == [(1, 1), (2, 2)] and not (tmp_path / "unsent.jsonl").exists()


def test_what_is_left_at_the_end_is_told_with_its_place(unreachable, tmp_path, caplog):
    box = Outbox(unreachable, "f" * 32, folder=tmp_path)
    box.add({"loss/total": 1.0, "lr": 0.1}, step=1)
    caplog.clear()
    box.close()
    assert caplog.messages == [
        f"MLflow did not take the last 2 metrics and pictures; they are in {tmp_path / 'unsent.jsonl'}, "
        "and the same command sends them next time"
    ]


def test_a_stage_that_cannot_be_published_is_one_warning(unreachable, tmp_path, caplog):
    """What its training has left is sent first, and says nothing of its own."""
    killed = Outbox(unreachable, "f" * 32, folder=tmp_path)
    killed.add({"loss/total": 1.0}, step=1)
    before = unsent(tmp_path)
    caplog.clear()
    record = StageRecord(status="finished", mlflow_run_id="f" * 32, result={"skipped": 0})
    assert not publish(unreachable, "dam", tmp_path, record)
    (told,) = caplog.messages
    assert f"the results of stage dam are kept in {tmp_path}, and sent" in told
    assert unsent(tmp_path) == before


def test_after_a_failure_nothing_else_is_tried(unreachable, tmp_path):
    """A server that takes connections and never answers costs one time-out, not one for each picture."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.MonkeyPatch.context() as patch:
        from mlflow import MlflowClient

        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        client = MlflowClient(f"http://127.0.0.1:{silent.getsockname()[1]}")
        box = Outbox(client, "f" * 32, folder=tmp_path, clock=Clock())
        box.add({"loss/total": 1.0}, step=1)
        box.add_picture(painted(tmp_path / "1.png"), step=1)
        box.flush()
        silent.setblocking(False)
        num_connections = 0
        while True:
            try:
                silent.accept()[0].close()
            except BlockingIOError:
                break
            num_connections += 1
    assert num_connections == 2, "one for each flush"


def test_a_full_disk_is_told_once_and_training_goes_on(unreachable, clock, tmp_path, caplog):
    box = Outbox(unreachable, "f" * 32, folder=tmp_path, clock=clock)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # no file grows beyond 100 bytes
    try:
        for step in range(1, 6):
            box.add({"loss/total": float(step)}, step=step)
            clock.now += 10
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert box.num_kept == 5
    assert caplog.text.count("cannot be written") == 1
    assert Outbox(unreachable, "f" * 32, folder=tmp_path).num_kept == 1, "the second line is cut"
    box.flush()
    assert [line["step"] for line in unsent(tmp_path)] == [1, 2, 3, 4, 5], "whole as soon as there is room"


def test_what_neither_mlflow_nor_the_disk_took_is_called_lost(unreachable, tmp_path, caplog):
    box = Outbox(unreachable, "f" * 32, folder=tmp_path / "removed")
    box.add({"loss/total": 1.0}, step=1)
    box.close()
    assert caplog.messages[-1] == "the last 1 metrics and pictures are lost to MLflow"


def test_the_oldest_metrics_give_way_when_there_are_too_many(unreachable, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(outbox, "MOST_KEPT_METRICS", 10)
    box = Outbox(unreachable, "f" * 32, folder=tmp_path, clock=clock)
    for step in range(15):
        box.add({"loss/total": 0.0}, step=step)
    box.flush()
    assert [line["step"] for line in unsent(tmp_path)] == list(range(5, 15))


DRIVER = """
import sys
from pathlib import Path
from hdam.platform import tracking
from hdam.platform.outbox import Outbox
box = Outbox(tracking.connect(), sys.argv[1], folder=Path(sys.argv[2]))
for line in sys.stdin:
    box.add({"loss/total": float(line)}, step=int(line))
    print(box.num_kept, flush=True)
"""


def test_an_outage_of_a_real_server_loses_nothing_and_doubles_nothing(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="hdam")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with MlflowServer(tmp_path / "server") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        client = tracking.connect()
        run_id = client.create_run(client.create_experiment("outage")).info.run_id
        command = [sys.executable, "-c", DRIVER, run_id, str(run_dir)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:

            def add(*steps):
                for step in steps:
                    print(step, file=driver.stdin, flush=True)
                return [int(driver.stdout.readline()) for _ in steps]

            assert add(1) == [0]
            add(2)
            server.stop()
            add(*range(3, 2002))
            while not (run_dir / "unsent.jsonl").exists():
                add(2001)
                time.sleep(0.1)
            driver.send_signal(signal.SIGKILL)
        num_lines = len(unsent(run_dir))
        assert num_lines >= 1999, "all that came after the server, which may have had the second"
        server.start()
        box = Outbox(client, run_id, folder=run_dir)
        box.add({"loss/total": 2002.0, "lr": math.nan, "ratio": math.inf}, step=2002)
        assert not list(run_dir.iterdir())
        steps = [step for step, _ in history(client, run_id)]
        assert steps == sorted(steps)
        assert list(dict.fromkeys(steps)) == list(range(1, 2003))
        assert steps.count(2) == steps.count(2000) == 1
        assert math.isnan(history(client, run_id, "lr")[0][1])
        assert history(client, run_id, "ratio") == [(2002, sys.float_info.max)]
        assert caplog.messages == [f"{num_lines + 3} metrics were sent, with those that an earlier process had left"]
        box.add_picture(painted(tmp_path / "picture.png"), step=2002)
        box.close()
        assert pictured_steps(client, run_id) == [2002]
