"""Who holds a place in the shared store: one driver at a time, on whatever machine, and until it is gone."""

import json
import logging
from types import SimpleNamespace

import pytest
from media_files import assert_one_line
from processes import wait_until

from hdam.pipelines.errors import InputError
from hdam.platform import holds, store
from hdam.platform.holds import held, is_holder, read_hold
from hdam.platform.procedure import ending
from hdam.platform.runs import StageRecord, holding, is_held, write_record
from hdam.platform.shared_checkpoints import TakenOverError
from hdam.platform.store import StoreError, place_of


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
