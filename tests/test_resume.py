"""`prepare` interrupted, killed, repeated: what is finished stays, is never mixed, and the bytes are the same."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from media_files import assert_one_line, moving_square, write_clips_of_each_kind, write_video

from hdam.pipelines import workspace
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import load_manifest
from hdam.pipelines.prepare import prepare
from hdam.pipelines.prepare_options import PrepareOptions
from hdam.pipelines.shards import iter_clips
from hdam.pipelines.target import open_target
from hdam.pipelines.tasks import Lost
from hdam.pipelines.workspace import work_area
from hdam.platform.preparing import ray_tasks

OPTIONS = PrepareOptions(size=16, codec="png", max_chunk_frames=4)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def digests(dataset):
    """Checksum of every file."""
    return {
        path.relative_to(dataset).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.rglob("*"))
        if path.is_file()
    }


def interrupt_after(num_clips, videos, dataset, options):
    def stop(progress):
        if progress.done == num_clips:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(videos, dataset, options=options, on_progress=stop)
    assert len(stored(dataset)) == num_clips


def stored(dataset):
    """The finished clips beside a dataset in the making."""
    return sorted(dataset.with_name(f".{dataset.name}.partial").glob("clips/*.parquet"))


@pytest.fixture
def videos(tmp_path):
    return write_clips_of_each_kind(tmp_path / "My Videos")


@pytest.mark.parametrize(
    ("raised", "expected", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), InputError, "no space left .* finished clips are kept"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
        (RuntimeError("a defect"), RuntimeError, "a defect"),
    ],
)
def test_whatever_happens_the_old_dataset_and_finished_clips_stay(
    videos, tmp_path, monkeypatch, raised, expected, words
):
    prepare(videos / "bob.gif", tmp_path / "data", options=OPTIONS)
    before = load_manifest(tmp_path / "data")

    def fail(*args):
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr(workspace, "save_manifest", fail)
        with pytest.raises(expected, match=words):
            prepare(videos, tmp_path / "data", options=OPTIONS, overwrite=True)
    assert load_manifest(tmp_path / "data") == before
    assert names_in(tmp_path) == [".data.partial", "My Videos", "data"]
    assert names_in(tmp_path / ".data.partial") == [".lock", "clips"]
    seen = []
    prepare(videos, tmp_path / "data", options=OPTIONS, overwrite=True, on_progress=seen.append)
    assert seen[0].num_ready == 5 and all(progress.num_frames == 0 for progress in seen)
    assert load_manifest(tmp_path / "data").counts.clips == 5
    assert names_in(tmp_path) == ["My Videos", "data"]


@pytest.fixture
def old_dataset(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old.txt").touch()
    return tmp_path / "data"


def change_places(dataset):
    """What `prepare --overwrite` does at its end."""
    with work_area(open_target(str(dataset))) as area:
        area.begin_dataset()
        Path(area.dataset, "new.txt").touch()
        area.publish(None)


@pytest.mark.parametrize(
    ("step", "is_done", "left"), [(0, False, "old"), (0, True, "old"), (1, False, "old"), (1, True, "new")]
)
def test_ctrl_c_while_datasets_change_places_leaves_one_whole(old_dataset, tmp_path, monkeypatch, step, is_done, left):
    rename, calls = Path.rename, []

    def interrupted(path, target):
        calls.append(path)
        if len(calls) - 1 != step:
            return rename(path, target)
        if is_done:
            rename(path, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(workspace, "save_manifest", lambda *_: None)
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        change_places(old_dataset)
    assert names_in(old_dataset) == [f"{left}.txt"] and names_in(tmp_path) == ["data"]


def test_death_while_datasets_change_places_is_mended(old_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "save_manifest", lambda *_: None)
    (tmp_path / ".data.partial").mkdir()
    old_dataset.rename(tmp_path / ".data.partial" / "old")
    with pytest.raises(InputError), work_area(open_target(str(old_dataset))):
        raise InputError("nothing to read")
    assert names_in(old_dataset) == ["old.txt"] and names_in(tmp_path) == ["data"]
    change_places(old_dataset)
    assert names_in(old_dataset) == ["new.txt"] and names_in(tmp_path) == ["data"]


def test_two_at_once_are_refused(videos, tmp_path):
    with work_area(open_target(str(tmp_path / "data"))):
        with pytest.raises(InputError) as error:
            prepare(videos, tmp_path / "data", options=OPTIONS)
        assert_one_line(error, "data is being prepared by another process")
    prepare(videos, tmp_path / "data", options=OPTIONS)


def test_the_same_command_again_finds_its_work_done(videos, tmp_path):
    first = prepare(videos, tmp_path / "data", options=OPTIONS)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    (tmp_path / ".data.partial" / "clips").mkdir(parents=True)  # as left by a process that died at the very end
    again = prepare(str(videos), str(tmp_path / "data"), options=OPTIONS, on_progress=pytest.fail)
    assert again.was_ready and not first.was_ready and again.manifest == first.manifest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == made
    assert names_in(tmp_path) == ["My Videos", "data"]
    for changed in ({"options": replace(OPTIONS, seed=1)}, {"options": OPTIONS, "name": "other"}):
        with pytest.raises(InputError, match=r"of other inputs or options; .* --overwrite"):
            prepare(videos, tmp_path / "data", **changed)
    (videos / "bob.gif").touch()
    with pytest.raises(InputError, match=r"of other inputs or options; .* --overwrite"):
        prepare(videos, tmp_path / "data", options=OPTIONS)


def test_a_finished_dataset_that_lost_a_shard_is_told(videos, tmp_path):
    report = prepare(videos, tmp_path / "data", options=OPTIONS)
    (tmp_path / "data" / report.manifest.shards[0].path).unlink()
    with pytest.raises(InputError) as error:
        prepare(videos, tmp_path / "data", options=OPTIONS)
    assert_one_line(error, "is missing", "--overwrite")


def test_clips_of_other_options_are_never_mixed_in(videos, tmp_path):
    interrupt_after(2, videos, tmp_path / "data", replace(OPTIONS, size=32))
    seen = []
    prepare(videos, tmp_path / "data", options=OPTIONS, on_progress=seen.append)
    assert seen[0].num_ready == 0
    assert {clip.frame(0).shape for clip in iter_clips(tmp_path / "data")} == {(16, 16, 3)}
    assert names_in(tmp_path) == ["My Videos", "data"]


def test_a_damaged_stored_clip_is_made_again(videos, tmp_path):
    prepare(videos, tmp_path / "whole", options=OPTIONS, name="data")
    interrupt_after(4, videos, tmp_path / "data", OPTIONS)
    first, second, *_ = sorted((tmp_path / ".data.partial" / "clips").iterdir())
    first.write_bytes(first.read_bytes()[:-9])
    second.write_bytes(b"")
    prepare(videos, tmp_path / "data", options=OPTIONS)
    assert digests(tmp_path / "data") == digests(tmp_path / "whole")


@pytest.fixture
def many_videos(tmp_path):
    (tmp_path / "films").mkdir()
    for number in range(12):
        frames = moving_square(40, height=96, width=96, seed=number)
        write_video(tmp_path / "films" / f"person{number % 5}#{number}.mp4", frames)
    return tmp_path / "films"


def begin(videos, dataset, *options):
    """`hdam prepare` as a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "hdam.platform.cli",
        "prepare",
        str(videos),
        str(dataset),
        "--size",
        "64",
        *options,
    ]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)


def kill_after(num_clips, process, dataset):
    """Kill the whole group when that many clips are finished."""
    deadline = time.monotonic() + 60
    while len(stored(dataset)) < num_clips:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(("cpus", "kills"), [("1", [3, 7]), pytest.param("2", [6], marks=pytest.mark.whole)])
def test_killed_and_resumed_it_equals_an_undisturbed_run(many_videos, tmp_path, cpus, kills):
    prepare(many_videos, tmp_path / "whole", options=PrepareOptions(size=64), name="data")
    data = tmp_path / "data"
    for num_clips in kills:
        kill_after(num_clips, begin(many_videos, data, "--cpus", cpus), data)
        assert not data.exists()
    there = stored(data)
    assert kills[-1] <= len(there) < 12
    last = begin(many_videos, data, "--cpus", cpus)
    errors = last.communicate(timeout=120)[1]
    assert last.returncode == 0, errors
    ready = re.search(r"going on: (\d+) of 12 clips are there", " ".join(errors.split()))
    # Workers of Ray outlive the group by a moment, in which they may finish a clip.
    assert ready and len(there) <= int(ready[1]) <= 12
    assert digests(data) == digests(tmp_path / "whole")
    assert names_in(tmp_path) == ["data", "films", "whole"]


def test_ctrl_c_says_how_to_go_on(many_videos, tmp_path):
    process = begin(many_videos, tmp_path / "data", "--cpus", "1")
    while not stored(tmp_path / "data"):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert "the same command goes on from there" in " ".join(errors.split()) and "Traceback" not in errors
    assert stored(tmp_path / "data") and not (tmp_path / "data").exists()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("cpus", [None, 2])
def test_ray_gives_the_same_bytes(videos, tmp_path, cpus):
    (videos / "text.mp4").write_text("I am no film")
    prepare(videos, tmp_path / "one" / "data", options=OPTIONS)
    with ray_tasks(cpus=cpus, min_bytes=0) as run_tasks:
        report = prepare(videos, tmp_path / "two" / "data", options=OPTIONS, run_tasks=run_tasks)
    assert [rejected.file for rejected in report.rejected] == ["text.mp4"]
    assert digests(tmp_path / "one" / "data") == digests(tmp_path / "two" / "data")


@pytest.mark.usefixtures("ray_session")
def test_a_task_that_kills_its_process_is_lost_alone():
    def die_at_three(number):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with ray_tasks() as run_tasks:
        done = list(run_tasks(die_at_three, range(6)))
    assert sorted(number for number in done if not isinstance(number, Lost)) == [0, 1, 2, 4, 5]
    assert [lost.number for lost in done if isinstance(lost, Lost)] == [3]


@pytest.mark.usefixtures("ray_session")
def test_an_error_of_a_task_comes_home_as_it_is():
    def fail_at_three(number):
        if number == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return number

    with ray_tasks() as run_tasks, pytest.raises(OSError, match="No space left") as error:
        list(run_tasks(fail_at_three, range(6)))
    assert error.value.errno == errno.ENOSPC
