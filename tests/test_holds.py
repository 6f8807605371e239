"""Who holds a place in the shared store: one driver at a time, on whatever machine, and until it is gone."""

import json
import logging
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from media_files import assert_one_line
from processes import wait_until
from small_training import small_training

from hdam.pipelines.errors import InputError
from hdam.platform import locks, tracking
from hdam.platform.locks import holding, is_held
from hdam.platform.procedure import ending
from hdam.platform.runs import RunRecord, StageRecord, write_record
from hdam.platform.sharing import holds, store
from hdam.platform.sharing.checkpoints import TakenOverError
from hdam.platform.sharing.holds import held, is_alive, is_holder, read_hold
from hdam.platform.sharing.store import StoreError, place_of
from hdam.platform.status import examine_experiment
from hdam.platform.tracked_run import begin_run


def test_who_holds_a_place_keeps_other_machines_out(shared, disks):
    place = place_of(disks("first"))
    with held(place, "first", is_waiting=False):
        run_dir = disks("second")
        assert is_held(run_dir)
        with pytest.raises(InputError) as error, holding(run_dir):
            pass
        assert_one_line(error, place.address, "being worked on by another process", "--fresh")
        with pytest.raises(InputError, match="taken over by another process"):
            write_record(run_dir, StageRecord(status="finished"))
        assert is_holder(place, "first")
    assert read_hold(place) is None and not is_held(run_dir)
    with holding(run_dir) as attempt:
        assert is_holder(place, attempt)


def test_a_hold_whose_driver_is_gone_is_taken_over(shared, disks, caplog, monkeypatch):
    monkeypatch.setattr(holds, "SECONDS_TO_STALE", 1.5)
    place = place_of(disks("first"))
    holds._write(place, holds.Hold("dead", holds.disk_name(), "a-host", 7))
    disks("second")
    with caplog.at_level(logging.INFO, logger="hdam"), held(place, "new", is_waiting=False):
        assert is_holder(place, "new") and not is_holder(place, "dead")
    assert "held by a-host" in caplog.text


def test_a_hold_that_stood_still_is_not_looked_at_for_another_minute(shared, disks, monkeypatch):
    monkeypatch.setattr(holds, "SECONDS_TO_STALE", 0.5)
    place, hold = place_of(disks("first")), holds.Hold("stale", "another disk", "a-host", 7)
    holds._write(place, hold)
    assert not is_alive(place, hold)
    with monkeypatch.context() as patch:
        patch.setattr(holds.time, "sleep", lambda _: pytest.fail("it was looked at"))
        assert not is_alive(place, hold)
    assert is_alive(place, hold._replace(beat=8)), "the hold there is another one"


def test_a_process_that_is_gone_from_one_place_is_not_waited_for_long_in_the_next(shared, disks, monkeypatch):
    gone = holds.Hold("one", "another disk", "a-host", 7, "a process")
    places = [shared.folder(name) for name in ("one", "two", "three")]
    for place in places:
        holds._write(place, gone._replace(attempt=place.address))
    monkeypatch.setattr(holds, "SECONDS_TO_SETTLE", 0.05)
    monkeypatch.setattr(holds, "SECONDS_TO_STALE", 0.3)
    assert not is_alive(places[0], gone._replace(attempt=places[0].address))
    monkeypatch.setattr(holds, "SECONDS_TO_STALE", 1e9)
    monkeypatch.setattr(holds, "SECONDS_TO_WAKE", 0.3)
    assert not is_alive(places[1], gone._replace(attempt=places[1].address))
    woken = gone._replace(attempt=places[2].address)
    holds._write(places[2], woken._replace(beat=8))
    assert is_alive(places[2], woken), "it has woken up"


def test_the_status_looks_at_all_that_another_machine_holds_at_once(
    shared, disks, dataset, monkeypatch, tmp_path, caplog
):
    disks("first")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment, client = small_training(dataset), tracking.connect()
    status = examine_experiment(experiment)
    stage_dir = tracking.results_dir() / "stages" / Path(status.stages[0].place).name
    runs_left = {}
    for folder, kind in ((status.run_dir, RunRecord), (stage_dir, StageRecord)):
        folder.mkdir(parents=True)
        runs_left[folder] = begin_run(client, "squares", run_name=folder.name)
        write_record(folder, kind(status="running", mlflow_run_id=runs_left[folder]))
        holds._write(place_of(folder), holds.Hold(folder.name, holds.disk_name(), "a-host", 7))
    disks("second")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(holds, "SECONDS_TO_STALE", 1.5)
    seen, both = set(), threading.Barrier(2, timeout=60)

    def look(place, hold):
        if hold not in seen:
            seen.add(hold)
            both.wait()
        return is_alive(place, hold)

    monkeypatch.setattr(locks, "is_alive", look)
    with caplog.at_level(logging.INFO, logger="hdam"):
        status = examine_experiment(experiment)
    assert (status.state, status.stages[0].state, status.stages[1].state) == ("killed", "killed", "to do")
    assert [client.get_run(run_id).info.status for run_id in runs_left.values()] == ["KILLED"] * 2
    assert caplog.text.count("looking whether a-host still works on it, which takes 2 s at most") == 1


def test_the_same_disk_takes_over_at_once(shared, disks, monkeypatch):
    place = place_of(disks("first"))
    holds._write(place, holds.Hold("dead", holds.disk_name(), "here", 7))
    monkeypatch.setattr(holds, "is_alive", lambda *_: pytest.fail("nobody else can have it: the lock is ours"))
    with held(place, "new", is_waiting=False):
        assert is_holder(place, "new")


def test_who_comes_late_after_an_outage_finds_the_place_taken(shared, disks, monkeypatch):
    """Both have found nobody there; the store went away, and the other one was faster when it came back."""
    place, write, refused = place_of(disks("first")), holds._write, []

    def write_after_an_outage(place, hold):
        if hold.attempt == "late" and not refused:
            refused.append(hold)
            write(place, holds.Hold("early", "another disk", "a-host", 0))
            raise StoreError("no store answers there")
        write(place, hold)

    monkeypatch.setattr(holds, "_write", write_after_an_outage)
    monkeypatch.setattr(holds, "is_alive", lambda *_: True)
    taken = "is being worked on by another process on a-host"
    with pytest.raises(InputError, match=taken), held(place, "late", is_waiting=False):
        pass
    assert is_holder(place, "early") and refused


def test_who_was_taken_over_says_nothing_of_the_run_that_goes_on(shared, disks):
    said = []
    client = SimpleNamespace(set_terminated=lambda *told, **_: said.append(told))
    watchdog = SimpleNamespace(watch=lambda *_: None, unwatch=lambda run_id: said.append(run_id))
    place = place_of(disks("first"))
    with pytest.raises(TakenOverError), held(place, "sleeper", is_waiting=False):
        holds._write(place, holds.Hold("new", "another disk", "a-host", 0))
        with ending(client, watchdog, "run", disks("first"), note=lambda *_: None):
            raise TakenOverError("another attempt has taken over")
    assert said == ["run"], "the watchdog leaves it alone too"


def test_the_end_of_a_stage_is_told_at_once_or_not_at_all(shared, disks, monkeypatch):
    folder = disks("first")
    folder.mkdir(parents=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(store, "SECONDS_OF_PATIENCE", 0.0)
    write_record(folder, StageRecord(status="interrupted"))
    assert json.loads((folder / "stage.json").read_text())["status"] == "interrupted"
    with pytest.raises(StoreError):
        write_record(folder, StageRecord(status="finished"))


def test_a_driver_that_slept_through_its_hold_gives_way(shared, disks, caplog):
    place = place_of(disks("first"))
    with held(place, "sleeper", is_waiting=False):
        holds._write(place, holds.Hold("new", "another disk", "a-host", 0))
        assert wait_until(lambda: "taken over" in caplog.text, seconds=60)
    assert is_holder(place, "new"), "its end removes no other's hold"
