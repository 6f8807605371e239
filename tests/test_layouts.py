"""Which layout a folder has, what of it is a clip, and what a table beside it says about them."""

import os
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import (
    assert_one_line,
    encoded,
    moving_square,
    write_clips_of_each_kind,
    write_files,
    write_folder,
    write_strip,
    write_table,
    write_video,
)
from PIL import Image

from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import decode_frame
from hdam.pipelines.layouts import LayoutName, find_sources
from hdam.pipelines.layouts.naming import clip_ids


@pytest.fixture
def videos(tmp_path):
    return write_clips_of_each_kind(tmp_path / "My Videos")


def sources_of(found):
    return [clip.source for clip in found.clips]


def test_all_kinds_of_clips_are_found(videos):
    found = find_sources(videos)
    assert [(clip.source, clip.identity, clip.kind) for clip in found.clips] == [
        ("ada#1.mp4", "ada", "video"),
        ("bob.gif", "bob", "animation"),
        ("deep/ada#2.mov", "ada", "video"),
        ("deep/cyd.webp", "cyd", "animation"),
        ("deep/dan", "dan", "frames"),
    ]
    assert [clip.clip_id for clip in found.clips] == ["ada_1", "bob", "deep-ada_2", "deep-cyd", "deep-dan"]
    assert found.clips[-1].files == tuple(f"deep/dan/f{index}.png" for index in range(11))
    assert (found.rejected, found.layout) == ([], "videos")
    assert found.notes == ["layout videos: videos, animations and folders of frames of any name (found out; "
                           "--layout tells another)"]  # fmt: skip


def test_one_file_or_one_folder_of_frames_is_a_source(videos):
    (clip,) = find_sources(videos / "bob.gif").clips
    assert (clip.source, clip.root, clip.path) == ("bob.gif", str(videos), "bob.gif")
    (clip,) = find_sources(videos / "deep" / "dan").clips
    assert (clip.source, clip.root, clip.path) == ("dan", str(videos / "deep" / "dan"), "")
    assert len(encoded(clip)[0]["frames"]) == 11


def test_nothing_to_find_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        find_sources(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("x")
    for place in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(InputError, match=r"looked for .*\.gif.*\.mp4.*frames"):
            find_sources(place)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("frames", "no folder of frames; expected folders of two"),
        ("published", "expected folders train/ and test/ that hold clips, or train_list.txt"),
        ("strips", "no image found; looked for .jpeg, .jpg, .png strips"),
        ("voxceleb", "no metadata table *metadata*.csv in it or beside it, which layout voxceleb needs; tell it by"),
        ("taichi", "no metadata table"),
        ("ted", "no metadata table"),
        ("mgif", "expected folders train/ and test/"),
        ("fashion", "expected folders train/ and test/"),
        ("table", "no manifest.csv in it or beside it names files in it"),
        ("tables", "layout is 'tables'; expected one of videos, frames, published"),
    ],
)
def test_a_layout_that_does_not_fit_says_what_is_missing(tmp_path, layout, words):
    write_files(tmp_path, "v/a.mp4", "v/b.gif")
    with pytest.raises(InputError) as error:
        find_sources(tmp_path / "v", layout=layout)
    assert_one_line(error, words)


def test_a_table_is_refused_where_none_is_used(tmp_path):
    table = write_table(tmp_path / "t.csv", {"file": "a.mp4"})
    write_files(tmp_path, "a.mp4")
    for layout in set(get_args(LayoutName)) - {"table", "voxceleb", "taichi", "ted"}:
        with pytest.raises(InputError, match=f"layout {layout} uses no table"):
            find_sources(tmp_path, layout=layout, table=table)


def test_frames_alone_and_frames_told(videos):
    found = find_sources(videos / "deep", layout="frames")
    assert (sources_of(found), found.layout) == (["dan"], "frames")
    assert "3 video(s)" not in found.notes[1] and "2 video(s) are left out" in found.notes[1]
    write_folder(videos / "only" / "one", moving_square(3))
    assert find_sources(videos / "only").layout == "frames"


def test_folders_of_frames_hide_what_lies_below_and_stills_beside_videos_are_none(tmp_path):
    write_files(tmp_path, "a/f0.png", "a/f1.png", "a/more/f0.png", "a/more/f1.png", "a/more/deep.mp4")
    write_files(tmp_path, "b/x.mp4", "b/still1.png", "b/still2.png", "b/c/f0.jpg", "b/c/f1.jpg", "d/f0.png")
    assert sources_of(find_sources(tmp_path, layout="videos")) == ["a", "b/c", "b/x.mp4"]


@pytest.mark.parametrize("names", [["00001.png", "00002.png", "00003.png"], ["ada#1.png", "ada#2.jpg", "bob.PNG"]])
def test_strips_are_told_by_their_size_not_by_their_names(tmp_path, names):
    for number, name in enumerate(names):
        write_strip(tmp_path / name, moving_square(5 + number, height=24, width=24, seed=number))
    found = find_sources(tmp_path)
    assert found.layout == "strips" and {clip.kind for clip in found.clips} == {"strip"}
    assert sources_of(found) == names
    for number, clip in enumerate(found.clips):
        (row,) = encoded(clip)
        assert len(row["frames"]) == 5 + number and row["crop"] == "0 0 24 24"
    (clip,) = find_sources(tmp_path / names[0], layout="strips").clips
    assert clip.source == names[0]


def test_a_strip_is_cut_into_its_frames(tmp_path):
    frames = moving_square(4, height=20, width=20)
    (clip,) = find_sources(write_strip(tmp_path / "a.png", frames).parent).clips
    (row,) = encoded(clip, size=20)
    assert np.array_equal([decode_frame(frame) for frame in row["frames"]], frames)


@pytest.mark.parametrize(
    ("sizes", "layout"),
    [
        ([(64, 48)] * 3, "frames"),
        ([(48, 48)] * 3, "frames"),
        ([(96, 48)] * 3, "frames"),  # films may be twice as wide as high
        ([(144, 48)] * 3, "strips"),
        ([(96, 48), (144, 48), (96, 48)], "strips"),
        ([(96, 48), (100, 48), (96, 48)], "frames"),
    ],
)
def test_sizes_tell_frames_from_strips(tmp_path, sizes, layout):
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{number:05d}.png")
    assert find_sources(tmp_path).layout == layout


def test_an_image_that_is_no_strip_is_rejected_by_its_size(tmp_path):
    Image.new("RGB", (50, 20)).save(tmp_path / "a.png")
    (clip,) = find_sources(tmp_path, layout="strips").clips
    with pytest.raises(InputError, match=r"a\.png: not a video; an image of 50x20 pixels is no strip"):
        encoded(clip)


@given(st.lists(st.text(max_size=300)))
def test_clip_ids_are_unique_and_safe(names):
    ids = clip_ids(names)
    assert len({clip_id.casefold() for clip_id in ids}) == len(names)
    for clip_id in ids:
        assert 0 < len(clip_id) < 120
        assert all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in clip_id)
        assert clip_id[0] not in "._-"


def test_a_stamp_tells_that_a_file_changed(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_square(3))
    (before,) = find_sources(tmp_path).clips
    assert find_sources(tmp_path).clips == [before]
    write_video(path, moving_square(4))
    (after,) = find_sources(tmp_path).clips
    assert after.stamp != before.stamp


@pytest.mark.parametrize(("domain", "num_clips"), [("faces", 17), ("bodies", 4), ("cartoons", 22)])
def test_the_shared_clips_are_found_by_their_table(clips, domain, num_clips):
    found = find_sources(clips / domain)
    assert (len(found.clips), found.rejected, found.layout) == (num_clips, [], "table")
    assert len({clip.clip_id for clip in found.clips}) == num_clips
    whole = find_sources(clips)
    assert len(whole.clips) == 43 and not whole.rejected
    one = next(clip for clip in found.clips if clip.kind != "frames")
    assert encoded(one, max_frames=3)[0]["num_chunks"] == 1


def test_names_of_any_bytes_are_told_in_one_line_of_text(tmp_path):
    name = b"a\nb\xff#1"
    write_folder(tmp_path / os.fsdecode(name), moving_square(3))
    (tmp_path / os.fsdecode(b"c\n\xfe.mp4")).write_text("I am no film")
    folder, text = find_sources(tmp_path).clips
    assert (folder.source, folder.identity, folder.clip_id) == ("a b\\udcff#1", "a b\\udcff", "a_b_1")
    assert len(encoded(folder)[0]["frames"]) == 3
    with pytest.raises(InputError) as error:
        encoded(text)
    assert_one_line(error, "c \\udcfe.mp4: no video")
    str(error.value).encode()
