"""The published folders `train/` and `test/`, the lists beside them, MGIF and FashionVideo."""

import pytest
from media_files import (
    assert_one_line,
    encoded,
    moving_square,
    write_animation,
    write_files,
    write_folder,
    write_strip,
    write_video,
)

from hdam.pipelines.errors import InputError
from hdam.pipelines.layouts import find_sources
from hdam.pipelines.splits import given_splits

FRAMES = moving_square(3, height=16, width=16)


def facts(found):
    return [(clip.source, clip.identity, clip.split) for clip in found.clips]


@pytest.fixture
def published(tmp_path):
    """The folders of PNGs that the published preprocessing writes, a film and a GIF among them."""
    root = tmp_path / "vox-png"
    for name in (
        "train/id1#abc#000010#000020.mp4",
        "train/id1#abc#000030#000040.mp4",
        "test/id2#xyz#000000#000003.mp4",
    ):
        folder = write_folder(root / name, [])
        for index in range(3):
            write_strip(folder / f"{index:07d}.png", FRAMES[index : index + 1])
    write_video(root / "train" / "id3#v.mp4", FRAMES)
    write_animation(root / "test" / "id4.gif", FRAMES, milliseconds=40)
    return root


def test_train_and_test_hold_clips_of_any_kind(published):
    found = find_sources(published)
    assert facts(found) == [
        ("train/id1#abc#000010#000020.mp4", "id1", "train"),
        ("train/id1#abc#000030#000040.mp4", "id1", "train"),
        ("train/id3#v.mp4", "id3", "train"),
        ("test/id2#xyz#000000#000003.mp4", "id2", "test"),
        ("test/id4.gif", "id4", "test"),
    ]
    assert [clip.kind for clip in found.clips] == ["frames", "frames", "video", "frames", "animation"]
    assert found.clips[0].clip_id == "train-id1_abc_000010_000020"
    assert found.clips[0].files[0] == "train/id1#abc#000010#000020.mp4/0000000.png"
    assert found.layout == "published"
    assert found.notes == ["layout published: train/ and test/ hold clips (found out; --layout tells another)"]
    assert facts(find_sources(published, layout="published")) == facts(found)


def test_clips_of_any_kind_can_be_read(published):
    found = find_sources(published)
    assert [len(encoded(clip)[0]["frames"]) for clip in found.clips] == [3] * 5
    assert given_splits(found.clips) == {"id1": "train", "id3": "train", "id2": "test", "id4": "test"}


def test_strips_in_train_and_test(tmp_path):
    for name in ("train/00001.png", "train/00002.png", "test/00001.png"):
        write_strip(tmp_path / name, moving_square(5, height=16, width=16))
    found = find_sources(tmp_path)
    assert [(clip.source, clip.kind, clip.split) for clip in found.clips] == [
        ("train/00001.png", "strip", "train"),
        ("train/00002.png", "strip", "train"),
        ("test/00001.png", "strip", "test"),
    ]
    assert found.layout == "published"


def test_strips_and_videos_may_lie_side_by_side(tmp_path):
    write_files(tmp_path, "train/a.mp4", "test/b.gif")
    write_strip(tmp_path / "train" / "c.png", moving_square(5, height=16, width=16))
    assert [clip.kind for clip in find_sources(tmp_path).clips] == ["video", "strip", "animation"]


def test_folders_of_identities_hold_their_clips(tmp_path):
    write_files(tmp_path, "train/id1/abc/1.mp4", "train/id1/abc/2.mp4", "train/id2/x/1.mp4", "test/id3/y/1.mp4")
    assert [clip.identity for clip in find_sources(tmp_path).clips] == ["id1", "id1", "id2", "id3"]


def test_what_lies_elsewhere_is_left_out(published):
    write_files(published, "more/a.mp4")
    assert "1 clip(s)" in find_sources(published).notes[1]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train/a.mp4"], "expected folders train/ and test/"),
        (["train/a.mp4", "test/readme.txt"], "test: holds no clip; looked for"),
        (["train/f0.png", "train/f1.png", "test/b.mp4"], "train: holds no clip"),
    ],
)
def test_half_a_published_layout_is_none(tmp_path, names, words):
    write_files(tmp_path, *names)
    with pytest.raises(InputError) as error:
        find_sources(tmp_path, layout="published")
    assert_one_line(error, words)


def test_an_identity_on_both_sides_is_refused(tmp_path):
    write_files(tmp_path, "train/ada#1.gif", "train/bob#1.gif", "test/ada#2.gif")
    with pytest.raises(InputError) as error:
        given_splits(find_sources(tmp_path).clips)
    assert_one_line(error, "identity 'ada' is in", "test/ada#2.gif")


@pytest.mark.parametrize("suffix", ["", ".txt"])
def test_lists_say_which_clips_of_one_folder_are_used(tmp_path, suffix):
    write_files(tmp_path, "a#1.mp4", "a#2.mp4", "b#1.gif", "deep/c#1.mp4", "d.mp4", "e#1.mp4/f0.png", "e#1.mp4/f1.png")
    (tmp_path / f"train_list{suffix}").write_text("a#1.mp4\na#2\n\n e#1.mp4 \na#1.mp4\ngone.mp4\n")
    (tmp_path / f"test_list{suffix}").write_text("\ufeffb#1.mp4\r\ndeep/c#1\r\n", encoding="utf-8")
    found = find_sources(tmp_path)
    assert facts(found) == [
        ("a#1.mp4", "a", "train"),
        ("a#2.mp4", "a", "train"),
        ("e#1.mp4", "e", "train"),
        ("b#1.gif", "b", "test"),
        ("deep/c#1.mp4", "c", "test"),
    ]
    assert [rejected.file for rejected in found.rejected] == ["gone.mp4"]
    assert f"named in train_list{suffix}, but there is no such clip" in found.rejected[0].reason
    assert f"clips are named in train_list{suffix}, test_list{suffix}" in found.notes[0]
    assert "1 clip(s)" in found.notes[1] and "named in neither list" in found.notes[1]


def test_lists_choose_from_train_and_test(published):
    (published / "train_list.txt").write_text("train/id3#v.mp4\nid1#abc#000010#000020\nid2#xyz#000000#000003.mp4\n")
    (published / "test_list.txt").write_text("id4\n")
    found = find_sources(published)
    assert facts(found) == [
        ("train/id3#v.mp4", "id3", "train"),
        ("train/id1#abc#000010#000020.mp4", "id1", "train"),
        ("test/id4.gif", "id4", "test"),
    ]
    assert [rejected.file for rejected in found.rejected] == ["id2#xyz#000000#000003.mp4"]


def test_lists_that_name_nothing_or_are_no_text(tmp_path):
    write_files(tmp_path, "a.mp4")
    (tmp_path / "train_list.txt").write_text("b\nc\n")
    with pytest.raises(InputError, match=r"none of the 2 clips named in train_list\.txt is there"):
        find_sources(tmp_path)
    (tmp_path / "train_list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"train_list\.txt: no text in UTF-8"):
        find_sources(tmp_path)


def test_a_clip_in_both_lists_is_refused(tmp_path):
    write_files(tmp_path, "a.gif")
    for split in ("train", "test"):
        (tmp_path / f"{split}_list.txt").write_text("a\n")
    with pytest.raises(InputError, match="identity 'a' is in"):
        given_splits(find_sources(tmp_path).clips)


@pytest.mark.parametrize(("layout", "suffix"), [("mgif", ".gif"), ("fashion", ".mp4")])
@pytest.mark.parametrize("base", ["", "moving-gif/"])
def test_files_of_one_kind_are_identities(tmp_path, layout, suffix, base):
    write_files(tmp_path, f"{base}train/91+bCF#1{suffix}", f"{base}train/b{suffix}", f"{base}test/c{suffix}")
    write_files(tmp_path, f"{base}train/x.webm")
    found = find_sources(tmp_path, layout=layout)
    assert [(clip.identity, clip.split) for clip in found.clips] == [
        ("91+bCF#1", "train"), ("b", "train"), ("c", "test")
    ]  # fmt: skip
    assert found.layout == layout and f"1 clip(s) that are no {suffix} are left out" in found.notes[1]


def test_a_side_without_the_kind_is_named(tmp_path):
    write_files(tmp_path, "train/a.gif", "test/b.mp4")
    with pytest.raises(InputError, match=r"test: holds no \.gif file, which layout mgif needs"):
        find_sources(tmp_path, layout="mgif")
