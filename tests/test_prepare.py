"""From a folder of videos to a dataset: what is found, cut and kept, what is rejected, and nothing half-made."""

import csv
import errno

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import moving_square, write_animation, write_folder, write_video
from PIL import Image

from hdam.pipelines import prepare as prepare_module
from hdam.pipelines.clips import CropBox, Trim
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import load_manifest, verify_shards
from hdam.pipelines.prepare import PrepareOptions, Progress, dataset_name, prepare
from hdam.pipelines.shards import iter_clips
from hdam.pipelines.sources import clip_ids, find_sources
from hdam.pipelines.table import parse_crop, parse_trim, read_table
from hdam.pipelines.transform import cut, cut_mask, frame_span, move_points, square_window

OPTIONS = PrepareOptions(size=16, codec="png", max_chunk_frames=4)


def write_table(path, *rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def videos(tmp_path):
    """One clip of each kind, in subfolders, and things that are none."""
    folder = tmp_path / "My Videos"
    (folder / "deep").mkdir(parents=True)
    write_video(folder / "ada#1.mp4", moving_square(9, seed=1))
    write_video(folder / "deep" / "ada#2.mov", moving_square(6, seed=1))
    write_animation(folder / "bob.gif", moving_square(5, seed=2), milliseconds=50)
    write_animation(folder / "deep" / "cyd.webp", moving_square(4, seed=3), milliseconds=100)
    write_folder(folder / "deep" / "dan", moving_square(11, seed=4))
    (folder / "notes.txt").write_text("nothing to see")
    (folder / "._ada#1.mp4").write_text("a shadow of another system")
    Image.new("RGB", (9, 9)).save(folder / "cover1.png")
    return folder


# --- finding


def test_all_kinds_of_clips_are_found(videos):
    found = find_sources(videos)
    assert [(clip.source, clip.identity) for clip in found.clips] == [
        ("ada#1.mp4", "ada"),
        ("bob.gif", "bob"),
        ("deep/ada#2.mov", "ada"),
        ("deep/cyd.webp", "cyd"),
        ("deep/dan", "dan"),
    ]
    assert [clip.clip_id for clip in found.clips] == ["ada_1", "bob", "deep-ada_2", "deep-cyd", "deep-dan"]
    assert (found.rejected, found.notes) == ([], [])


def test_one_file_or_one_folder_of_frames_is_a_source(videos):
    assert [clip.source for clip in find_sources(videos / "bob.gif").clips] == ["bob.gif"]
    assert [clip.source for clip in find_sources(videos / "deep" / "dan").clips] == ["dan"]


def test_nothing_to_find_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        find_sources(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("x")
    for place in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(InputError, match=r"looked for .*\.gif.*\.mp4.*frames"):
            find_sources(place)


@given(st.lists(st.text(max_size=300)))
def test_clip_ids_are_unique_and_safe(names):
    ids = clip_ids(names)
    assert len({clip_id.casefold() for clip_id in ids}) == len(names)
    for clip_id in ids:
        assert 0 < len(clip_id) < 120
        assert all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in clip_id)
        assert clip_id[0] not in "._-"


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
    assert "manifest.csv says which clips to use: 2 of its 4 rows" in found.notes[0]
    assert "3 clip(s)" in found.notes[1]

    below = find_sources(videos / "deep")
    assert [(clip.source, clip.crop) for clip in below.clips] == [("dan", CropBox(4, 2, 40, 30))]
    assert [clip.identity for clip in find_sources(videos / "bob.gif").clips] == ["Robert"]
    detour = videos / "deep" / ".." / "deep"
    assert [clip.source for clip in find_sources(detour, table=videos / "deep" / ".." / "manifest.csv").clips] == [
        "dan"
    ]
    assert [clip.crop for clip in find_sources(detour).clips] == [CropBox(4, 2, 40, 30)]


def test_a_table_elsewhere_is_relative_to_the_folder(videos, tmp_path):
    table = write_table(tmp_path / "t.csv", {"file": "bob.gif"}, {"file": "My Videos/ada#1.mp4"})
    found = find_sources(videos, table=table)
    assert [(clip.source, clip.identity) for clip in found.clips] == [("bob.gif", "bob"), ("ada#1.mp4", "ada")]
    with pytest.raises(InputError, match="no such table"):
        find_sources(videos, table=tmp_path / "none.csv")
    with pytest.raises(InputError, match="names no file in"):
        find_sources(videos, table=write_table(tmp_path / "u.csv", {"file": "/etc/hosts"}))


def test_a_csv_that_is_no_table_of_clips_is_left_alone(videos):
    write_table(videos / "manifest.csv", {"name": "x"})
    assert len(find_sources(videos).clips) == 5
    with pytest.raises(InputError, match="no column 'file'; found name"):
        find_sources(videos, table=videos / "manifest.csv")


def test_one_file_may_give_several_clips(videos, tmp_path):
    rows = [{"file": "deep/dan", "trim": "0:5"}, {"file": "deep/dan", "trim": "5:"}]
    write_table(videos / "manifest.csv", *rows)
    report = prepare(videos, tmp_path / "data", options=OPTIONS)
    found = list(iter_clips(tmp_path / "data"))
    assert [(clip.clip_id, clip.num_frames) for clip in found] == [("deep-dan", 5), ("deep-dan-2", 6)]
    assert report.manifest.counts.identities == 1
    assert {clip.split for clip in found} == {"train"}


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"file": ""}, "line 2: the cell 'file' is empty"),
        ({"crop_xywh": "1 2 3"}, "crop_xywh is '1 2 3'"),
        ({"crop_xywh": "0 0 0 5"}, "crop_xywh"),
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
    with pytest.raises(InputError, match=words) as error:
        read_table(table)
    assert "t.csv" in str(error.value) and "\n" not in str(error.value)


@given(st.text() | st.lists(st.sampled_from("09-: ,x"), max_size=12).map("".join))
def test_any_crop_or_trim_is_read_or_refused(text):
    for parse in (parse_crop, parse_trim):
        try:
            parsed = parse(text)
        except ValueError:
            continue
        assert parse(str(parsed)) == parsed


@given(st.binary(max_size=300))
def test_any_bytes_as_table_are_read_or_refused_in_one_line(tmp_path_factory, content):
    table = tmp_path_factory.getbasetemp() / "bytes.csv"
    table.write_bytes(b"file,identity,crop_xywh,trim,fps,split\n" + content)
    try:
        read_table(table)
    except InputError as error:
        assert "\n" not in str(error)


# --- cutting

boxes = st.tuples(st.integers(4, 80), st.integers(4, 80)).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.integers(0, size[1] - 2).flatmap(lambda left: st.tuples(st.just(left), st.integers(2, size[1] - left))),
        st.integers(0, size[0] - 2).flatmap(lambda top: st.tuples(st.just(top), st.integers(2, size[0] - top))),
    )
)


@given(boxes, st.sampled_from(["crop", "pad"]))
def test_windows_are_squares_inside_the_box(drawn, fit):
    frame_size, (left, width), (top, height) = drawn
    crop = CropBox(left, top, width, height)
    window = square_window(frame_size, crop=crop, fit=fit)
    box = window.box
    assert crop.left <= box.left and box.left + box.width <= crop.left + crop.width
    assert crop.top <= box.top and box.top + box.height <= crop.top + crop.height
    if fit == "crop":
        assert box.width == box.height == window.side == min(width, height)
        before, after = box.left - left, left + width - box.left - box.width
        assert 0 <= after - before <= 1
    else:
        assert box == crop and window.side == max(width, height)
        assert window.offset_left + width <= window.side and window.offset_top + height <= window.side


@given(boxes, st.sampled_from(["crop", "pad"]), st.integers(8, 64))
def test_frames_masks_and_points_move_together(drawn, fit, size):
    frame_size, (left, width), (top, height) = drawn
    window = square_window(frame_size, crop=CropBox(left, top, width, height), fit=fit)
    # A mask of column numbers: where the mask shows column c, the point at column c must lie.
    mask = np.broadcast_to(np.arange(1, frame_size[1] + 1, dtype=np.uint8), frame_size)
    seen = cut_mask(mask, window, size=size)
    frame = cut(np.repeat(mask[..., None], 3, 2), window, size=size, background=(0, 0, 0))
    assert frame.shape == (size, size, 3) and seen.shape == (size, size)
    columns = np.linspace(-1, 1, frame_size[1], dtype=np.float32)
    points = np.stack([columns, np.zeros_like(columns)], 1)
    moved = (move_points(points, window, frame_size=frame_size, size=size)[:, 0] + 1) / 2 * (size - 1)
    row = seen[size // 2]
    for place in np.flatnonzero(row):
        assert abs(moved[row[place] - 1] - place) <= max(size / window.side, 1) / 2 + 1e-3


def test_padding_shows_the_background_and_not_what_was_cropped_away():
    frame = np.full((20, 40, 3), 99, np.uint8)
    frame[:, 10:20] = 50
    window = square_window((20, 40), crop=CropBox(10, 0, 10, 20), fit="pad")
    square = cut(frame, window, size=20, background=(255, 0, 0))
    assert (square[:, 5:15] == 50).all()
    assert (square[:, :5] == [255, 0, 0]).all() and (square[:, 15:] == [255, 0, 0]).all()


@pytest.mark.parametrize("crop", [CropBox(0, 0, 65, 10), CropBox(60, 0, 10, 10), CropBox(0, 40, 5, 9)])
def test_crops_beyond_the_frame_are_refused(crop):
    with pytest.raises(InputError, match="beyond the frame of 64x48"):
        square_window((48, 64), crop=crop, fit="crop")


@given(st.integers(0, 50), st.none() | st.integers(0, 100), st.none() | st.integers(1, 100), st.integers(0, 120))
def test_trim_and_limit_make_one_span(start, stop, max_frames, num_frames):
    first, end = frame_span(Trim(start, stop), max_frames)
    kept = list(range(num_frames))[first:end]
    assert kept == list(range(num_frames))[start:stop][:max_frames]


# --- preparing


def test_a_folder_becomes_a_dataset(videos, tmp_path):
    seen = []
    report = prepare(videos, tmp_path / "Data Set", options=OPTIONS, on_progress=seen.append)
    manifest = load_manifest(tmp_path / "Data Set")
    assert manifest == report.manifest
    verify_shards(tmp_path / "Data Set", manifest)
    assert manifest.name == "data-set"
    assert (manifest.counts.clips, manifest.counts.identities, manifest.counts.frames) == (5, 4, 35)
    assert manifest.splits["test"].identities == 1
    assert seen[0] == Progress(0, 5, "ada#1.mp4") and seen[-1] == Progress(5, 5, "")
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


def test_ground_truth_goes_along(tmp_path):
    frames = np.zeros((6, 40, 60, 3), np.uint8)
    masks = np.zeros((6, 40, 60), np.uint8)
    joints = np.zeros((6, 2, 2), np.float32)
    for index in range(6):
        x, y = 20 + 3 * index, 10 + 2 * index
        frames[index, y - 1 : y + 2, x - 1 : x + 2] = 255
        masks[index, y - 1 : y + 2, x - 1 : x + 2] = 3
        joints[index] = [[x / 59 * 2 - 1, y / 39 * 2 - 1], [0, 0]]
    folder = write_folder(tmp_path / "v" / "puppet", frames)
    np.savez(folder / "truth.npz", joints=joints, centroid=joints[:, 0], part_masks=masks)
    write_table(tmp_path / "v" / "manifest.csv", {"file": "puppet", "identity": "p", "crop_xywh": "8 0 48 40",
                                                  "trim": "1:6", "fps": "12"})  # fmt: skip
    prepare(tmp_path / "v", tmp_path / "data", options=PrepareOptions(size=80, codec="png", max_chunk_frames=2))
    (clip,) = iter_clips(tmp_path / "data")
    assert (clip.num_frames, clip.fps, clip.keypoints.shape) == (5, 12, (5, 2, 2))
    for index in range(5):
        weights = clip.frame(index).astype(float).mean(2)
        rows, columns = np.mgrid[:80, :80]
        centre = np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum() / 79 * 2 - 1
        assert clip.keypoints[index, 0] == pytest.approx(centre, abs=0.01)
        assert clip.centroid[index] == pytest.approx(centre, abs=0.01)
        mask = clip.part_mask(index)
        assert mask.shape == (80, 80) and (mask == 3).sum() == 36 and set(np.unique(mask)) == {0, 3}


def test_ground_truth_that_does_not_fit_rejects_its_clip(tmp_path):
    for name, arrays in (
        ("short", {"joints": np.zeros((2, 3, 2))}),
        ("shape", {"joints": np.zeros((5, 6))}),
        ("ok", {}),
    ):
        folder = write_folder(tmp_path / "v" / name, moving_square(5))
        np.savez(folder / "truth.npz", **arrays)
    folder = write_folder(tmp_path / "v" / "text", moving_square(5))
    (folder / "truth.npz").write_text("no arrays")
    report = prepare(tmp_path / "v", tmp_path / "data", options=OPTIONS)
    assert [rejected.file for rejected in report.rejected] == ["shape", "short", "text"]
    assert all("truth.npz" in rejected.reason for rejected in report.rejected)


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
    with pytest.raises(InputError, match="local folder"):
        prepare(videos, "s3://bucket/data", options=OPTIONS)


@pytest.mark.parametrize(
    ("raised", "expected", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), InputError, "no space left"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
        (RuntimeError("a defect"), RuntimeError, "a defect"),
    ],
)
def test_whatever_happens_nothing_half_made_stays(videos, tmp_path, monkeypatch, raised, expected, words):
    prepare(videos / "bob.gif", tmp_path / "data", options=OPTIONS)
    before = load_manifest(tmp_path / "data")

    def fail(*args):
        raise raised

    monkeypatch.setattr(prepare_module, "save_manifest", fail)
    with pytest.raises(expected, match=words):
        prepare(videos, tmp_path / "data", options=OPTIONS, overwrite=True)
    assert load_manifest(tmp_path / "data") == before
    assert names_in(tmp_path) == ["My Videos", "data"]


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


@given(st.text())
def test_names_are_fit_for_a_registry(text):
    name = dataset_name(text)
    assert name and name == dataset_name(name)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_real_cartoons(clips, tmp_path):
    report = prepare(clips / "cartoons", tmp_path / "cartoons", options=PrepareOptions(size=64, max_frames=4))
    assert (report.manifest.counts.clips, report.rejected) == (22, [])
    assert report.manifest.splits["test"].identities == 2
    cow = next(iter_clips(tmp_path / "cartoons", only={"fluent_cow_1f404"}))
    assert cow.frame(0)[0, 0].min() > 250
    assert cow.fps == pytest.approx(23.81)
