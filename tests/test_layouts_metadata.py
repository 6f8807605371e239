"""The metadata tables of VoxCeleb, TaiChiHD and TED-talks: which frames and pixels of a raw video make a clip."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import assert_one_line, difference, encoded, write_files, write_table, write_video

from hdam.pipelines.clips import CropBox, Trim
from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import decode_frame
from hdam.pipelines.layouts import find_sources
from hdam.pipelines.layouts.metadata import read_metadata

ROW = {"video_id": "abc", "start": 4, "end": 9, "bbox": "8-4-40-36", "fps": 25.0, "width": 64, "height": 48}
VOX = [
    {**ROW, "partition": "train", "person_id": "id1"},
    {**ROW, "start": 10, "end": 20, "partition": "train", "person_id": "id1"},
    {**ROW, "video_id": "xyz", "partition": "test", "person_id": "id2", "likes": 7},
    {**ROW, "video_id": "gone", "partition": "test", "person_id": "id2"},
]


def counted(num_frames=30, *, height=48, width=64):
    """Frames whose brightness tells their number, the left half in red."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames += 8 * np.arange(num_frames, dtype=np.uint8)[:, None, None, None]
    frames[:, :, : width // 2, 1:] = 0
    return frames


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    (folder / "more").mkdir(parents=True)
    write_video(folder / "abc.mp4", counted())
    write_video(folder / "more" / "xyz.webm", counted(), codec="libvpx")
    return folder


@pytest.mark.parametrize("place", ["raw/vox-metadata.csv", "vox-metadata.csv"])
def test_voxceleb_is_found_by_its_table(raw, tmp_path, place):
    write_table(tmp_path / place, *VOX)
    for found in (find_sources(raw), find_sources(raw, layout="voxceleb"), find_sources(raw, table=tmp_path / place)):
        assert found.layout == "voxceleb"
        assert [(clip.source, clip.identity, clip.split) for clip in found.clips] == [
            ("abc.mp4", "id1", "train"), ("abc.mp4", "id1", "train"), ("more/xyz.webm", "id2", "test")
        ]  # fmt: skip
        assert [clip.clip_id for clip in found.clips] == [
            "id1_abc_000004_000009", "id1_abc_000010_000020", "id2_xyz_000004_000009"
        ]  # fmt: skip
        first = found.clips[0]
        assert (first.crop, first.crop_frame) == (CropBox(8, 4, 32, 32), (48, 64))
        assert (first.trim, first.trim_fps) == (Trim(4, 9), 25.0)
        (absent,) = found.rejected
        assert absent.file == "id2#gone#000004#000009" and "gone.mp4" in absent.reason
        assert "3 of its 4 rows have their raw video" in found.notes[1]


def test_rows_become_the_frames_and_boxes_they_name(raw):
    write_table(raw / "vox-metadata.csv", *VOX)
    for clip, start, num_frames in zip(find_sources(raw).clips, (4, 10, 4), (5, 10, 5), strict=True):
        (row,) = encoded(clip, size=32)
        expected = counted()[start : start + num_frames, 4:36, 8:40]
        assert difference(np.array([decode_frame(frame) for frame in row["frames"]]), expected) < 8
        assert (row["crop"], row["frame_index"]) == ("8 4 32 32", list(range(num_frames)))


def frames_taken(row, fps, num_frames):
    """The published rule, frame by frame."""
    return [i for i in range(num_frames) if row["start"] * fps <= i * row["fps"] < row["end"] * fps]


@pytest.mark.parametrize("fps", [25, 12.5, 50, 29.97, 23.98])
def test_frames_are_counted_at_the_rate_of_the_table(tmp_path, fps):
    write_video(tmp_path / "abc.mp4", counted(), fps=fps)
    write_table(tmp_path / "taichi-metadata.csv", {**ROW, "start": 5, "end": 11})
    (clip,) = find_sources(tmp_path).clips
    (row,) = encoded(clip)
    shades = [round(decode_frame(frame)[8, 14, 0] / 8) for frame in row["frames"]]
    assert shades == pytest.approx(frames_taken({**ROW, "start": 5, "end": 11}, fps, 30), abs=1)
    assert len(shades) == len(frames_taken({**ROW, "start": 5, "end": 11}, fps, 30))


def test_boxes_scale_to_the_size_of_the_file(tmp_path):
    write_video(tmp_path / "abc.mp4", counted(height=24, width=32))
    write_table(tmp_path / "taichi-metadata.csv", ROW, {**ROW, "start": 10, "end": 19, "bbox": "30-20-70-60"})
    half, beyond = (encoded(clip)[0] for clip in find_sources(tmp_path).clips)
    assert half["crop"] == "4 2 16 16"
    assert beyond["crop"] == "16 10 14 14"  # what lies outside is left out, then the square in the middle is taken
    frame = decode_frame(half["frames"][0])
    assert frame[:, :11, 1].mean() < 12 and frame[:, 13:, 1].mean() > 20  # the red half ends at column 16


def test_taichi_without_partition_is_dealt_out(raw):
    write_table(raw / "metadata.csv", ROW, {**ROW, "video_id": "xyz"})
    found = find_sources(raw)
    assert found.layout == "taichi"
    assert [(clip.identity, clip.split, clip.clip_id) for clip in found.clips] == [
        ("abc", None, "abc_000004_000009"), ("xyz", None, "xyz_000004_000009")
    ]  # fmt: skip
    assert "has no partition" in found.notes[2]


def test_ted_names_cut_videos_by_their_whole_id(tmp_path):
    row = {
        **ROW,
        "video_id": "V-1#016609#016737",
        "start": 0,
        "end": 0,
        "fps": 10.0,
        "size": "384",
        "partition": "train",
    }
    write_video(tmp_path / "V-1#016609#016737.mp4", counted())
    write_files(tmp_path, "V-2.mp4")
    write_table(tmp_path / "ted-metadata.csv", row, {**row, "video_id": "V-2#000001#000009"})
    found = find_sources(tmp_path)
    (clip,) = found.clips
    assert (found.layout, clip.identity, clip.trim) == ("ted", "V-1", None)
    assert clip.clip_id == "016737_016609_V-1_000000_000000"
    assert "start and end are 0: looked for the cut video V-2#000001#000009.mp4" in found.rejected[0].reason


def test_a_raw_video_is_named_by_the_id_up_to_its_first_mark(tmp_path):
    write_files(tmp_path, "abc.mkv", "deep/abc.mp4", "deep/abc.webm")
    write_table(tmp_path / "ted-metadata.csv", {**ROW, "video_id": "abc#7"})
    (clip,) = find_sources(tmp_path).clips
    assert (clip.path, clip.identity, clip.clip_id) == ("abc.mkv", "abc", "7_abc_000004_000009")


def test_all_absent_is_told(tmp_path):
    write_table(tmp_path / "vox-metadata.csv", *VOX)
    with pytest.raises(InputError, match=r"none of its 4 rows has its raw video in .*; first: looked for .*abc\.mp4"):
        find_sources(tmp_path, layout="voxceleb")
    write_files(tmp_path, "other.mp4")
    assert find_sources(tmp_path).layout == "videos"


def test_of_several_tables_the_layout_or_a_person_chooses(raw):
    write_table(raw / "vox-metadata.csv", *VOX)
    write_table(raw / "taichi-metadata.csv", ROW)
    assert len(find_sources(raw, layout="taichi").clips) == 1
    assert len(find_sources(raw, layout="voxceleb").clips) == 3
    for layout in ("ted", None):
        with pytest.raises(InputError, match="holds 2 metadata tables; tell which by --table"):
            find_sources(raw, layout=layout)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"video_id": ""}, "line 2: the cell 'video_id' is empty"),
        ({"start": ""}, "the cell 'start' is empty"),
        ({"start": "x"}, "start is 'x'; expected a whole number"),
        ({"start": "-4"}, "start is '-4'"),
        ({"end": "4"}, "end is 4; expected more than start, which is 4"),
        ({"end": "9" * 5000}, "end is '999"),
        ({"bbox": ""}, "the cell 'bbox' is empty"),
        ({"bbox": "1-2-3"}, "bbox is '1-2-3'; expected 'left-top-right-bottom'"),
        ({"bbox": "9-2-9-5"}, "bbox is '9-2-9-5'"),
        ({"bbox": "64-2-99-5"}, "expected a box in 64x48 pixels"),
        ({"fps": "inf"}, "fps is 'inf'"),
        ({"fps": ""}, "the cell 'fps' is empty"),
        ({"width": "0"}, "width x height is 0x48"),
        ({"partition": "val"}, "partition is 'val'; expected train or test"),
    ],
)
def test_wrong_cells_are_named_by_line_and_column(tmp_path, cells, words):
    table = write_table(tmp_path / "t.csv", {**ROW, **cells})
    with pytest.raises(InputError) as error:
        read_metadata(table.read_bytes(), "t.csv")
    assert_one_line(error, "t.csv, line 2", words)


def test_missing_columns_are_named():
    with pytest.raises(InputError, match=r"t\.csv: no column 'end', 'bbox'; found video_id, start, fps"):
        read_metadata(b"video_id,start,fps,width,height\n", "t.csv")


@given(
    st.binary(max_size=200) | st.lists(st.sampled_from("09-.,#\nax"), max_size=60).map(lambda t: "".join(t).encode())
)
def test_any_bytes_as_metadata_are_read_or_refused_in_one_line(content):
    try:
        read_metadata(b"video_id,start,end,bbox,fps,width,height\n" + content, "bytes.csv")
    except InputError as error:
        assert "\n" not in str(error)
