"""Checkpoints are whole or passed over, and a run is found again by what it trains."""

import multiprocessing

import pytest
import torch
from small_training import small_training

from hdam.pipelines.errors import InputError
from hdam.platform.checkpoints import (
    STATE_NAME,
    is_sound,
    newest_checkpoint,
    read_checkpoint,
    step_of,
    write_checkpoint,
)
from hdam.platform.runs import RunRecord, find_run, is_current, locked, read_record, run_key, write_record


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


@pytest.mark.parametrize("damage", ["truncated", "unsealed", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, caplog, damage):
    older = write_checkpoint(tmp_path, {"step": 5}, step=5, keep=3)
    newest = write_checkpoint(tmp_path, {"step": 10}, step=10, keep=3)
    if damage == "truncated":
        state = (newest / STATE_NAME).read_bytes()
        (newest / STATE_NAME).write_bytes(state[:-1])
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
    (damaged / "checkpoint.json").unlink()
    for step in (10, 15):
        written = write_checkpoint(tmp_path, {"step": step}, step=step, keep=1)
        assert [newest_checkpoint(tmp_path)] == list(tmp_path.iterdir()) == [written]


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


def test_the_key_names_what_shapes_the_result_and_nothing_else():
    base = small_training("here")
    same = [
        small_training("elsewhere"),
        small_training("here", {"resources.workers": 4, "log.metrics_every": 1, "question": "Another?"}),
    ]
    other = [small_training("here", change) for change in ({"seed": 1}, {"optim.lr": 1e-4}, {"data.repeats": 17})]
    assert {run_key(experiment, "data") for experiment in same} == {run_key(base, "data")}
    assert len({run_key(experiment, "data") for experiment in [base, *other]} | {run_key(base, "other data")}) == 5


def test_a_fresh_run_has_a_folder_of_its_own_which_the_next_command_finds(tmp_path):
    def find(fresh):
        return find_run(tmp_path, small_training("here"), fingerprint="data", fresh=fresh)

    first = find(fresh=False)
    assert find(fresh=True) == first
    first.mkdir()
    assert find(fresh=False) == first
    second = find(fresh=True)
    assert second.name == f"{first.name}-2"
    second.mkdir()
    assert find(fresh=False) == second


def test_records_are_read_back_and_broken_ones_named(tmp_path):
    assert read_record(tmp_path) == RunRecord()
    record = RunRecord(status="failed", mlflow_run_id="abc")
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json is broken; .*--fresh"):
        read_record(tmp_path)


def _hold(run_dir, has_lock, may_end):
    with locked(run_dir):
        has_lock.set()
        may_end.wait(60)


def test_two_processes_do_not_train_the_same_run(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    has_lock, may_end = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(tmp_path, has_lock, may_end))
    other.start()
    try:
        assert has_lock.wait(60)
        with pytest.raises(InputError, match="another process"), locked(tmp_path):
            pytest.fail("the lock was given twice")
    finally:
        may_end.set()
        other.join(60)
    with locked(tmp_path) as attempt:
        assert is_current(tmp_path, attempt)
    with locked(tmp_path):
        assert not is_current(tmp_path, attempt), "what the first attempt left running may not write any more"
