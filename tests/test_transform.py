"""Cutting a clip in space and time: squares, masks and points that move together, spans of frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdam.pipelines.clips import CropBox, Trim
from hdam.pipelines.errors import InputError
from hdam.pipelines.transform import cut, cut_mask, frame_span, move_points, square_window

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
