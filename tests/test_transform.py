"""Cutting a clip in space and time: squares, masks and points that move together, spans of frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdam.pipelines.clips import CropBox, SourceClip, Trim
from hdam.pipelines.errors import InputError
from hdam.pipelines.transform import clip_in_file, cut, cut_mask, frame_span, move_points, square_window

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


def clip(**known):
    """A clip of which nothing but crop and trim counts."""
    return SourceClip(
        root="/v",
        path="a.mp4",
        files=("a.mp4",),
        kind="video",
        stamp="",
        source="a.mp4",
        clip_id="a",
        identity="a",
        **known,
    )


@given(
    st.integers(0, 400),
    st.integers(1, 200),
    st.sampled_from([10.0, 15.79, 23.97, 25.0, 29.97, 30.0]),
    st.sampled_from([24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 12.5]),
)
def test_spans_are_the_frames_that_the_published_rule_takes(start, length, reference, fps):
    _, trim = clip_in_file(clip(trim=Trim(start, start + length), trim_fps=reference), frame_size=(9, 9), fps=fps)
    hundredths, told = round(100 * reference), round(100 * fps)
    taken = [i for i in range(4000) if start * told <= i * hundredths < (start + length) * told]
    assert list(range(4000))[trim.start : trim.stop] == taken


def test_crops_and_spans_of_the_file_itself_stay():
    told = clip(crop=CropBox(1, 2, 30, 40), trim=Trim(3, None))
    assert clip_in_file(told, frame_size=(48, 64), fps=29.97) == (told.crop, told.trim)
    assert clip_in_file(clip(), frame_size=(48, 64), fps=25) == (None, None)
    to_the_end = clip(trim=Trim(3, None), trim_fps=25.0)
    assert clip_in_file(to_the_end, frame_size=(48, 64), fps=50)[1] == Trim(6, None)


@pytest.mark.parametrize(
    ("frame_size", "expected"),
    [
        ((720, 1280), CropBox(624, 48, 394, 505)),
        ((360, 640), CropBox(312, 24, 197, 252)),
        ((480, 854), CropBox(416, 32, 263, 336)),
        ((1080, 1920), CropBox(936, 72, 591, 757)),
    ],
)
def test_boxes_scale_as_published(frame_size, expected):
    crop, _ = clip_in_file(clip(crop=CropBox(624, 48, 394, 505), crop_frame=(720, 1280)), frame_size=frame_size, fps=25)
    assert crop == expected
