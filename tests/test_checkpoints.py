"""Checkpoints are whole or passed over, and a run is found again by what it trains."""

import json
import logging
import math
import multiprocessing
import shutil
import threading

import pytest
import torch

from hdam.pipelines.errors import InputError
from hdam.platform.checkpoints import (
    STATE_NAME,
    best_checkpoint,
    is_sound,
    newest_checkpoint,
    read_checkpoint,
    step_of,
    write_checkpoint,
)
from hdam.platform.locks import SECONDS_OF_PATIENCE, is_current, is_held, locked
from hdam.platform.runs import RunRecord, find_run, read_record, write_record


def test_the_newest_are_kept_and_read_back(tmp_path):
    for step in (5, 10, 15):
        write_checkpoint(tmp_path, {"step": step, "weights": torch.full((3,), float(step))}, step=step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]
    newest = newest_checkpoint(tmp_path)
    assert step_of(newest) == 15
    assert read_checkpoint(newest)["weights"].tolist() == [15.0] * 3


def test_there_may_be_none(tmp_path):
    assert newest_checkpoint(tmp_path / "missing") is None
    assert step_of(None) == 0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "unsealed", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, caplog, damage):
    older = write_checkpoint(tmp_path, {"step": 5}, step=5, keep=3)
    newest = write_checkpoint(tmp_path, {"step": 10}, step=10, keep=3)
    if damage == "truncated":
        state = (newest / STATE_NAME).read_bytes()
        (newest / STATE_NAME).write_bytes(state[:-1])
    elif damage == "flipped":
        state = bytearray((newest / STATE_NAME).read_bytes())
        state[len(state) // 2] ^= 1
        (newest / STATE_NAME).write_bytes(state)
    elif damage == "unsealed":
        (newest / "checkpoint.json").unlink()
    else:
        for file in newest.iterdir():
            file.unlink()
    assert not is_sound(newest)
    assert newest_checkpoint(tmp_path) == older
    assert newest.name in caplog.text and "damaged" in caplog.text


def test_a_damaged_newer_checkpoint_takes_no_sound_ones_place(tmp_path):
    damaged = write_checkpoint(tmp_path, {"step": 20}, step=20, keep=1)
    state = bytearray((damaged / STATE_NAME).read_bytes())
    state[len(state) // 2] ^= 1
    (damaged / STATE_NAME).write_bytes(state)
    for step in (10, 15):
        written = write_checkpoint(tmp_path, {"step": step}, step=step, keep=1)
        assert [newest_checkpoint(tmp_path)] == list(tmp_path.iterdir()) == [written]


def test_the_best_is_kept_beside_the_newest(tmp_path):
    scores = {5: 0.4, 10: 0.2, 15: 0.3, 20: 0.5, 25: None}
    for step, score in scores.items():
        write_checkpoint(tmp_path, {"step": step}, step=step, keep=2, score=score)
    assert sorted(map(step_of, tmp_path.iterdir())) == [10, 20, 25]
    assert step_of(best_checkpoint(tmp_path)) == 10
    write_checkpoint(tmp_path, {"step": 30}, step=30, keep=2, score=0.1)
    assert sorted(map(step_of, tmp_path.iterdir())) == [25, 30], "the best is the newest"
    assert best_checkpoint(tmp_path / "missing") is None


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_never_the_best(tmp_path, score):
    for step, value in {5: 0.1, 10: score, 15: 0.2, 20: 0.3}.items():
        write_checkpoint(tmp_path, {"step": step}, step=step, keep=1, score=value)
    assert sorted(map(step_of, tmp_path.iterdir())) == [5, 20]
    assert step_of(best_checkpoint(tmp_path)) == 5


def test_a_checkpoint_says_what_it_is_of(tmp_path):
    written = write_checkpoint(tmp_path, {"step": 5}, step=5, keep=2, score=0.5, experiment={"seed": 7})
    seal = json.loads((written / "checkpoint.json").read_text())
    assert seal["num_bytes"] == (written / STATE_NAME).stat().st_size
    assert (seal["step"], seal["score"], seal["experiment"]) == (5, 0.5, {"seed": 7})


def test_a_full_disk_leaves_the_last_good_one(tmp_path, small_disk):
    state = {"weights": torch.rand(100_000)}
    kept = write_checkpoint(small_disk, state, step=5, keep=2)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 200_000))
    with pytest.raises(InputError, match=rf"checkpoint of step 10 does not fit on the disk of {small_disk} \(No space"):
        write_checkpoint(small_disk, state, step=10, keep=2)
    assert newest_checkpoint(small_disk) == kept
    assert torch.equal(read_checkpoint(kept)["weights"], state["weights"])
    assert not list(small_disk.glob(".*.partial")), "what was half written gives its room back"
    filler.unlink()
    assert step_of(write_checkpoint(small_disk, state, step=10, keep=2)) == 10


def test_what_a_kill_left_half_written_is_not_seen_and_is_overwritten(tmp_path):
    (tmp_path / ".step-00000005.partial").mkdir()
    (tmp_path / ".step-00000005.partial" / STATE_NAME).write_bytes(b"half")
    assert newest_checkpoint(tmp_path) is None
    assert step_of(write_checkpoint(tmp_path, {"step": 5}, step=5, keep=2)) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_a_step_written_again_replaces_the_first(tmp_path):
    for value in (1, 2):
        write_checkpoint(tmp_path, {"value": value}, step=5, keep=2)
    assert read_checkpoint(newest_checkpoint(tmp_path))["value"] == 2


def test_a_fresh_run_has_a_folder_of_its_own_which_the_next_command_finds(tmp_path):
    first = find_run(tmp_path, "squares-1234", fresh=False)
    assert find_run(tmp_path, "squares-1234", fresh=True) == first
    first.mkdir()
    assert find_run(tmp_path, "squares-1234", fresh=False) == first
    second = find_run(tmp_path, "squares-1234", fresh=True)
    assert second.name == "squares-1234-2"
    second.mkdir()
    assert find_run(tmp_path, "squares-1234", fresh=False) == second


def test_records_are_read_back_and_broken_ones_named(tmp_path):
    assert read_record(tmp_path, RunRecord) == RunRecord()
    record = RunRecord(status="failed", mlflow_run_id="abc", stages={"dam": "dam-1"})
    write_record(tmp_path, record)
    assert read_record(tmp_path, RunRecord) == record
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json is broken; .*--fresh"):
        read_record(tmp_path, RunRecord)


def _hold(run_dir, has_lock, may_end):
    with locked(run_dir):
        has_lock.set()
        may_end.wait(60)


def test_two_processes_do_not_train_the_same_run(tmp_path, caplog):
    spawn = multiprocessing.get_context("spawn")
    has_lock, may_end = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(tmp_path, has_lock, may_end))
    other.start()
    try:
        assert has_lock.wait(60)
        assert is_held(tmp_path)
        with pytest.raises(InputError, match="another process"), locked(tmp_path):
            pytest.fail("the lock was given twice")
        threading.Timer(SECONDS_OF_PATIENCE + 1, may_end.set).start()
        with caplog.at_level(logging.INFO, logger="hdam"), locked(tmp_path, is_waiting=True):
            assert may_end.is_set()
        assert f"waiting for another process, which is working on {tmp_path}" in caplog.text
    finally:
        may_end.set()
        other.join(60)
    assert not is_held(tmp_path) and not is_held(tmp_path / "missing")
    with locked(tmp_path) as attempt:
        assert is_current(tmp_path, attempt)
    with locked(tmp_path):
        assert not is_current(tmp_path, attempt), "what the first attempt left running may not write any more"
