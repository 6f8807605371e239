"""The table of clips: which files it names, and what its cells say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import assert_one_line, write_clips_of_each_kind, write_table

from hdam.pipelines.clips import CropBox, Trim
from hdam.pipelines.errors import InputError
from hdam.pipelines.layouts import find_sources
from hdam.pipelines.layouts.cells import parse_crop, parse_trim
from hdam.pipelines.layouts.table import read_table


@pytest.fixture
def videos(tmp_path):
    return write_clips_of_each_kind(tmp_path / "My Videos")


def sources_of(found):
    return [clip.source for clip in found.clips]


def test_a_table_beside_or_above_the_folder_is_used(videos):
    rows = [
        {"file": "bob.gif", "identity": "Robert", "trim": "1:4", "fps": "12.5", "split": "test"},
        {"file": "deep/dan", "identity": "dan", "crop_xywh": "4 2 40 30"},
        {"file": "deep/gone.mp4", "identity": "x"},
        {"file": "../elsewhere.mp4", "identity": "x"},
    ]
    write_table(videos / "manifest.csv", *rows)
    found = find_sources(videos)
    bob, dan = found.clips
    assert (bob.identity, bob.trim, bob.fps, bob.split, bob.crop) == ("Robert", Trim(1, 4), 12.5, "test", None)
    assert (dan.crop, dan.split, dan.trim) == (CropBox(4, 2, 40, 30), None, None)
    assert [rejected.file for rejected in found.rejected] == ["deep/gone.mp4"]
    assert found.layout == "table" and "manifest.csv names files there" in found.notes[0]
    assert "manifest.csv says which clips to use: 2 of its 4 rows" in found.notes[1]
    assert "3 clip(s)" in found.notes[2]
    assert sources_of(find_sources(videos, layout="table")) == ["bob.gif", "deep/dan"]
    assert len(find_sources(videos, layout="videos").clips) == 5

    below = find_sources(videos / "deep")
    assert [(clip.source, clip.crop) for clip in below.clips] == [("dan", CropBox(4, 2, 40, 30))]
    assert [clip.identity for clip in find_sources(videos / "bob.gif").clips] == ["Robert"]
    detour = videos / "deep" / ".." / "deep"
    assert sources_of(find_sources(detour, table=videos / "deep" / ".." / "manifest.csv")) == ["dan"]
    assert [clip.crop for clip in find_sources(detour).clips] == [CropBox(4, 2, 40, 30)]


def test_a_table_elsewhere_is_relative_to_the_folder(videos, tmp_path):
    table = write_table(tmp_path / "t.csv", {"file": "bob.gif"}, {"file": "My Videos/ada#1.mp4"})
    found = find_sources(videos, table=table)
    assert [(clip.source, clip.identity) for clip in found.clips] == [("bob.gif", "bob"), ("ada#1.mp4", "ada")]
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        find_sources(videos, table=tmp_path / "none.csv")
    with pytest.raises(InputError, match="names no file in"):
        find_sources(videos, table=write_table(tmp_path / "u.csv", {"file": "/etc/hosts"}))


def test_a_csv_that_is_no_table_of_clips_is_left_alone(videos):
    write_table(videos / "manifest.csv", {"name": "x"})
    assert len(find_sources(videos).clips) == 5
    with pytest.raises(InputError, match="no column 'file'; found name"):
        find_sources(videos, table=videos / "manifest.csv")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"file": ""}, "line 2: the cell 'file' is empty"),
        ({"file": "a\0b"}, "null character"),
        ({"crop_xywh": "1 2 3"}, "crop_xywh is '1 2 3'"),
        ({"crop_xywh": "0 0 0 5"}, "crop_xywh"),
        ({"crop_xywh": f"0 0 1{'0' * 30} 5"}, "crop_xywh"),
        ({"trim": "5"}, "trim is '5'"),
        ({"trim": "7:7"}, "trim is '7:7'"),
        ({"trim": "-3:7"}, "trim"),
        ({"fps": "fast"}, "fps is 'fast'"),
        ({"fps": "nan"}, "fps"),
        ({"fps": "-1"}, "fps"),
        ({"split": "val"}, "split is 'val'; expected train or test"),
    ],
)
def test_wrong_cells_are_named_by_line(tmp_path, cells, words):
    table = write_table(tmp_path / "t.csv", {"file": "a.mp4", **cells})
    with pytest.raises(InputError) as error:
        read_table(table.read_bytes(), "t.csv")
    assert_one_line(error, "t.csv", words)


@given(st.text() | st.lists(st.sampled_from("09-: ,x"), max_size=12).map("".join))
def test_any_crop_or_trim_is_read_or_refused(text):
    for parse in (parse_crop, parse_trim):
        try:
            parsed = parse(text)
        except ValueError:
            continue
        assert parse(str(parsed)) == parsed


@given(st.binary(max_size=300))
def test_any_bytes_as_table_are_read_or_refused_in_one_line(content):
    try:
        read_table(b"file,identity,crop_xywh,trim,fps,split\n" + content, "bytes.csv")
    except InputError as error:
        assert "\n" not in str(error)
