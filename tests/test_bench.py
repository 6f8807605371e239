"""The benchmark of the data road: its shape and its honesty, not its figures."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import load_manifest
from hdam.platform.bench import scale
from hdam.platform.bench.clips import export_frames, puppet_clips, stored_clips, write_dataset
from hdam.platform.bench.contenders import FramePairs
from hdam.platform.bench.cost import measured
from hdam.platform.bench.data import BenchSettings, Round, Stream, compare, prepare_contest
from hdam.platform.commands.bench import bench_app
from hdam.platform.datasets import open_dataset

SETTINGS = BenchSettings(size=32, num_clips=3, num_frames=8, batch_size=8, num_pairs=64, rounds=1)


@pytest.fixture(scope="module")
def contest(tmp_path_factory):
    return prepare_contest(SETTINGS, tmp_path_factory.mktemp("cache"))


@pytest.mark.whole
def test_one_run_tells_what_every_contender_costs(tmp_path, monkeypatch):
    monkeypatch.setenv("HDAM_RESULTS", str(tmp_path))
    arguments = ["data", "--size", "32", "--clips", "3", "--batch-size", "8", "--pairs", "64", "--rounds", "1"]
    done = CliRunner().invoke(bench_app, [*arguments, "--profile"], catch_exceptions=False)
    assert done.exit_code == 0
    report = json.loads((tmp_path / "bench_data.json").read_text())
    assert set(report["contenders"]) == {"stream", "shard_loader", "frame_folders"}
    assert {found["pairs"] for found in report["contenders"].values()} == {64 - 8}, "all deliver the same"
    for found in report["contenders"].values():
        [own] = found["rounds"]
        for part, pairs in (("short", 8), ("long", 64)):
            assert own[part]["pairs"] == pairs
            assert own[part]["cpu_seconds"] > 0 and own[part]["wall_seconds"] > own[part]["first_batch_seconds"] > 0
            assert own[part]["peak_mib"] > 10
        assert found["pairs_per_second"] > 0 and found["pairs_per_cpu_second"] > 0
    assert {found["against"]: found["target"] for found in report["comparisons"]} == {
        "frame_folders": 5,
        "shard_loader": 0.9,
    }
    assert sum(word in done.output for word in ("PASS", "MISS")) and "Pairs/CPU s" in done.output
    assert "augment" in (tmp_path / "bench_data.profile.txt").read_text()


def test_starts_cancel_and_medians_compare():
    def made(pairs, cpu):
        return Stream(pairs, 0.1, 2 * cpu, cpu, {}, 100.0)

    slow_start = Round(made(10, 3.0 + 1.0), made(110, 3.0 + 11.0))
    no_start = Round(made(10, 2.0), made(110, 22.0))
    assert slow_start.pairs == 100
    assert slow_start.pairs_per_cpu_second == pytest.approx(10)
    assert slow_start.pairs_per_second == pytest.approx(5)
    assert slow_start.start_cpu_seconds == pytest.approx(3)
    rounds = {
        "stream": [slow_start] * 3,
        "shard_loader": [no_start] * 3,
        "frame_folders": [slow_start, *[no_start] * 2],
    }
    assert [(found["ratio"], found["is_met"]) for found in compare(rounds)] == [(2.0, False), (2.0, True)]


def test_cost_counts_those_that_ended_too():
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    with measured() as cost:
        subprocess.run([sys.executable, "-c", busy], check=True)
    assert cost.cpu_seconds == pytest.approx(0.5, abs=0.3)
    assert cost.wall_seconds >= 0.5 and cost.peak_mib > 10


def test_both_ways_of_storing_hold_the_same_clips(contest):
    clips = {clip.name.removesuffix("~0"): clip for clip in stored_clips(contest.data.path)}
    assert sorted(clips) == sorted(folder.name for folder in contest.frames_dir.iterdir())
    assert all(
        len(list((contest.frames_dir / name).iterdir())) == len(clip.frames) == 8 for name, clip in clips.items()
    )
    item = FramePairs(contest.frames_dir, contest.data, 4)[0]
    assert item["source"].shape == item["driving"].shape == (3, 32, 32)
    assert item["source"].dtype == np.float32 and 0 <= item["source"].min() < item["source"].max() <= 1


def test_what_is_there_is_not_made_again(tmp_path, contest):
    dataset = puppet_clips(tmp_path, num_clips=2, num_frames=4, size=32)
    before = load_manifest(dataset).fingerprint
    assert puppet_clips(tmp_path, num_clips=2, num_frames=4, size=32) == dataset
    assert load_manifest(dataset).fingerprint == before
    frames = export_frames(str(dataset), tmp_path / "frames")
    assert export_frames("nothing is read", tmp_path / "frames") == frames


def test_clips_are_split_into_as_many_shards_as_are_asked(tmp_path, contest):
    write_dataset(tmp_path / "many", stored_clips(contest.data.path, copies=5), size=32, num_shards=7)
    manifest = open_dataset(contest.data.model_copy(update={"path": str(tmp_path / "many")}))
    assert [shard.rows for shard in manifest.shards] == [3, 2, 2, 2, 2, 2, 2]
    assert manifest.counts.clips == 15
    with pytest.raises(InputError, match="15 rows cannot fill 16 shards"):
        write_dataset(tmp_path / "more", stored_clips(contest.data.path, copies=5), size=32, num_shards=16)


@pytest.mark.whole
def test_growth_is_measured_against_its_targets(contest, monkeypatch):
    monkeypatch.setattr(scale, "MANY_SHARDS", 20)
    monkeypatch.setattr(scale, "SPLIT_ROWS", 20)
    found = scale.measure_scale(contest, num_pairs=64)
    assert set(found["memory"]["peak_mib"]) == {"once", "ten_times"}
    assert len(found["epochs"]["first_batch_seconds"]) == 4
    assert set(found["starts"]["seconds_by_shards"]) == {10, 20}
    assert all(isinstance(part["is_met"], bool) and part["target"] > 0 for part in found.values())


def test_pairs_have_to_be_whole_batches(tmp_path):
    with pytest.raises(InputError, match="--pairs 60 are no whole batches of 8"):
        prepare_contest(BenchSettings(size=32, num_clips=2, num_frames=4, batch_size=8, num_pairs=60), tmp_path)
