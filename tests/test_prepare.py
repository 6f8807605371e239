"""From a folder of videos to a dataset: what is kept, what is rejected, and nothing half-made."""

import csv
import os
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import (
    assert_one_line,
    moving_square,
    write_animation,
    write_clips_of_each_kind,
    write_folder,
    write_table,
    write_video,
)
from PIL import Image

from hdam.pipelines import encode
from hdam.pipelines.encode import encode_clip
from hdam.pipelines.errors import InputError
from hdam.pipelines.layouts import LayoutName, find_sources
from hdam.pipelines.manifest import load_manifest, verify_shards
from hdam.pipelines.prepare import Progress, prepare
from hdam.pipelines.prepare_options import PrepareOptions, dataset_name, parse_colour
from hdam.pipelines.shards import iter_clips
from hdam.platform.cli import Layout

OPTIONS = PrepareOptions(size=16, codec="png", max_chunk_frames=4)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def videos(tmp_path):
    return write_clips_of_each_kind(tmp_path / "My Videos")


def test_a_folder_becomes_a_dataset(videos, tmp_path):
    seen = []
    report = prepare(videos, tmp_path / "Data Set", options=OPTIONS, on_progress=seen.append)
    manifest = load_manifest(tmp_path / "Data Set")
    assert manifest == report.manifest
    verify_shards(tmp_path / "Data Set", manifest)
    assert manifest.name == "data-set"
    assert (manifest.counts.clips, manifest.counts.identities, manifest.counts.frames) == (5, 4, 35)
    assert manifest.splits["test"].identities == 1
    assert seen[:2] == [Progress("clips", 0, 5, 0, 0), Progress("clips", 1, 5, 0, 9)]
    assert seen[5] == Progress("clips", 5, 5, 0, 35)
    assert seen[-1] == Progress("shards", len(manifest.shards), len(manifest.shards), 0, 0)
    names = {path.name for path in (tmp_path / "Data Set").iterdir()}
    assert names == {"manifest.json", "shards", "contact_sheet.png"}
    with Image.open(tmp_path / "Data Set" / "contact_sheet.png") as sheet:
        assert sheet.width > 500
    assert names_in(tmp_path) == ["Data Set", "My Videos"]


def test_every_frame_is_where_it_belongs(videos, tmp_path):
    prepare(videos, tmp_path / "data", options=PrepareOptions(size=48, codec="png", max_chunk_frames=4))
    found = {clip.source: clip for clip in iter_clips(tmp_path / "data")}
    for source, seed, tolerance in (
        ("ada#1.mp4", 1, 6),
        ("bob.gif", 2, 1),
        ("deep/cyd.webp", 3, 0),
        ("deep/dan", 4, 0),
    ):
        clip = found[source]
        for index, frame in enumerate(moving_square(clip.num_frames, seed=seed)):
            assert np.abs(clip.frame(index).astype(int) - frame[:, 8:56]).mean() <= tolerance
    assert {source: clip.fps for source, clip in found.items()} == {
        "ada#1.mp4": 25, "deep/ada#2.mov": 25, "bob.gif": 20, "deep/cyd.webp": 10, "deep/dan": 25
    }  # fmt: skip


def test_one_file_may_give_several_clips(videos, tmp_path):
    rows = [{"file": "deep/dan", "trim": "0:5"}, {"file": "deep/dan", "trim": "5:"}]
    write_table(videos / "manifest.csv", *rows)
    report = prepare(videos, tmp_path / "data", options=OPTIONS)
    found = list(iter_clips(tmp_path / "data"))
    assert [(clip.clip_id, clip.num_frames) for clip in found] == [("deep-dan", 5), ("deep-dan-2", 6)]
    assert report.manifest.counts.identities == 1
    assert {clip.split for clip in found} == {"train"}


@pytest.mark.parametrize("seed", range(6))
def test_no_identity_is_on_both_sides(tmp_path, seed):
    for number in range(12):
        write_folder(
            tmp_path / "v" / f"person{number % 6}#{number}", moving_square(3, height=16, width=16, seed=number)
        )
    options = PrepareOptions(size=8, test_share=0.34, seed=seed)
    prepare(tmp_path / "v", tmp_path / "data", options=options)
    sides = {}
    for clip in iter_clips(tmp_path / "data"):
        sides.setdefault(clip.split, set()).add(clip.identity)
    assert len(sides["test"]) == 2 and len(sides["train"]) == 4
    assert not sides["test"] & sides["train"]


def test_a_table_that_splits_one_identity_is_refused(videos, tmp_path):
    write_table(
        videos / "manifest.csv",
        {"file": "ada#1.mp4", "identity": "ada", "split": "train"},
        {"file": "deep/ada#2.mov", "identity": "ada", "split": "test"},
    )
    with pytest.raises(InputError, match=r"identity 'ada' is in 'train' and in 'test' \(deep/ada#2\.mov\)"):
        prepare(videos, tmp_path / "data", options=OPTIONS)
    assert not (tmp_path / "data").exists()


def test_bad_files_are_named_and_the_rest_is_prepared(videos, tmp_path):
    whole = write_video(tmp_path / "w.mp4", moving_square(60), faststart=True).read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: int(0.6 * len(whole))])
    (videos / "text.mp4").write_text("I am no film")
    write_folder(videos / "many", moving_square(3))
    (videos / "many" / "f1.png").write_text("broken")
    write_animation(videos / "still.gif", moving_square(1), milliseconds=40)
    report = prepare(videos, tmp_path / "data", options=OPTIONS)
    assert report.manifest.counts.clips == 5
    with (tmp_path / "data" / "rejected.csv").open(newline="") as stream:
        rows = {row["file"]: row["reason"] for row in csv.DictReader(stream)}
    assert rows == {rejected.file: rejected.reason for rejected in report.rejected}
    assert set(rows) == {"cut.mp4", "text.mp4", "many", "still.gif"}
    assert "cut short" in rows["cut.mp4"] and "no video" in rows["text.mp4"]
    assert "f1.png" in rows["many"] and "at least 2" in rows["still.gif"]


def test_only_bad_files_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "text.mp4").write_text("I am no film")
    with pytest.raises(InputError, match=r"none of 1 clips can be used; first: .*text\.mp4"):
        prepare(tmp_path / "v", tmp_path / "data", options=OPTIONS)
    assert names_in(tmp_path) == ["v"]


def test_a_crop_beyond_the_frame_rejects_its_clip_alone(videos, tmp_path):
    write_table(videos / "manifest.csv", {"file": "bob.gif", "crop_xywh": "0 0 99 9"}, {"file": "deep/dan"})
    report = prepare(videos, tmp_path / "data", options=OPTIONS)
    assert [rejected.file for rejected in report.rejected] == ["bob.gif"]
    assert "beyond the frame of 64x48" in report.rejected[0].reason


def test_taken_targets_are_refused(videos, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not empty and no dataset"):
            prepare(videos, taken, options=OPTIONS, overwrite=overwrite)
    assert names_in(taken) == ["thesis.txt"]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        prepare(videos, tmp_path / "file", options=OPTIONS)
    (tmp_path / "empty").mkdir()
    prepare(videos / "bob.gif", tmp_path / "empty", options=OPTIONS)
    with pytest.raises(InputError, match="--overwrite"):
        prepare(videos, tmp_path / "empty", options=OPTIONS)
    prepare(videos, tmp_path / "empty", options=OPTIONS, overwrite=True)
    assert load_manifest(tmp_path / "empty").counts.clips == 5
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize("name", ["file.txt/data", "file.txt/deep/data", "d" * 300])
def test_a_target_that_cannot_be_written_is_named_before_anything_is_read(tmp_path, name):
    (tmp_path / "file.txt").touch()
    write_animation(tmp_path / "bob.gif", moving_square(5), milliseconds=50)
    with pytest.raises(InputError) as error:
        prepare(tmp_path / "bob.gif", tmp_path / name, options=OPTIONS, on_progress=pytest.fail)
    assert_one_line(error, str(tmp_path / name), "cannot be written")
    assert names_in(tmp_path) == ["bob.gif", "file.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_target_without_permission_is_named(tmp_path, mode):
    closed = tmp_path / "closed"
    closed.mkdir()
    write_animation(tmp_path / "bob.gif", moving_square(5), milliseconds=50)
    closed.chmod(mode)
    try:
        with pytest.raises(InputError) as error:
            prepare(tmp_path / "bob.gif", closed / "data", options=OPTIONS)
    finally:
        closed.chmod(0o700)
    assert_one_line(error, str(closed / "data"), "Permission denied")


def test_the_same_input_gives_the_same_dataset(videos, tmp_path):
    one = prepare(videos, tmp_path / "one", options=OPTIONS).manifest
    two = prepare(videos, tmp_path / "two", options=OPTIONS).manifest
    assert one.fingerprint == two.fingerprint
    write_folder(videos / "more", moving_square(3, seed=9))
    assert prepare(videos, tmp_path / "three", options=OPTIONS).manifest.fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 4}, "size is 4"),
        ({"size": 64, "fit": "stretch"}, "fit is 'stretch'; expected crop or pad"),
        ({"size": 64, "codec": "bmp"}, "codec"),
        ({"size": 64, "test_share": 1.0}, "test_share"),
        ({"size": 64, "background": (0, 0, 300)}, "background"),
        ({"size": 64, "max_chunk_frames": 1}, "max_chunk_frames"),
        ({"size": 64, "min_frames": 5, "max_frames": 4}, "max_frames"),
    ],
)
def test_options_without_sense_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        PrepareOptions(**options)


def test_colours_are_told_by_name_or_number():
    assert parse_colour("#10ff00") == parse_colour(" rgb(16, 255, 0) ") == (16, 255, 0)
    assert parse_colour("white") == (255, 255, 255)
    for text in ("whiteish", "#12345", "#11223344", ""):
        with pytest.raises(InputError, match="background is"):
            parse_colour(text)


def test_the_command_knows_every_layout():
    assert get_args(Layout) == get_args(LayoutName)


@pytest.mark.parametrize("limit", [1, 500])
def test_frames_that_wait_on_disk_come_back_the_same(tmp_path, monkeypatch, limit):
    write_animation(tmp_path / "bob.gif", moving_square(9), milliseconds=50)
    (clip,) = find_sources(tmp_path / "bob.gif").clips
    in_memory = list(encode_clip(clip, OPTIONS.encode_options()))
    monkeypatch.setattr(encode, "WAITING_BYTES", limit)
    (tmp_path / "waiting").mkdir()
    assert list(encode_clip(clip, OPTIONS.encode_options(), waiting_dir=tmp_path / "waiting")) == in_memory
    assert names_in(tmp_path / "waiting") == []


@given(st.text())
def test_names_are_fit_for_a_registry(text):
    name = dataset_name(text)
    assert name and name == dataset_name(name)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_real_cartoons(clips, tmp_path):
    report = prepare(clips / "cartoons", tmp_path / "cartoons", options=PrepareOptions(size=64, max_frames=4))
    assert (report.manifest.counts.clips, report.rejected) == (22, [])
    assert report.manifest.splits["test"].identities == 2
    cow = next(clip for clip in iter_clips(tmp_path / "cartoons") if clip.clip_id == "fluent_cow_1f404")
    assert cow.frame(0)[0, 0].min() > 250
    assert cow.fps == pytest.approx(23.81)
