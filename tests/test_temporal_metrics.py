"""The warp error against pixels worked out one by one, and motions whose occlusions are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_frames import first_frames

from hdam.models.temporal_metrics import displaced, visible, warp_error


def noise(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def flow(height, width, x, y):
    """The same displacement everywhere."""
    return torch.tensor([x, y], dtype=torch.float32).expand(1, height, width, 2)


def bilinear(image, x, y):
    """[height, width, channel] at a place; zero outside."""
    value = np.zeros(image.shape[2])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                value = value + image[row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return value


def by_pixels(current, previous, there, back):
    """Score and visible pixels; images [height, width, 3] and flows [height, width, 2] as numpy arrays."""
    height, width = there.shape[:2]
    seen = np.zeros((height, width), dtype=bool)
    squares = []
    for row in range(height):
        for column in range(width):
            w = there[row, column]
            x, y = column + w[0], row + w[1]
            v = bilinear(back, x, y)
            is_occluded = ((v + w) ** 2).sum() > 0.01 * ((v**2).sum() + (w**2).sum()) + 0.5
            right, below = there[row, min(column + 1, width - 1)], there[min(row + 1, height - 1), column]
            is_boundary = ((right - w) ** 2).sum() + ((below - w) ** 2).sum() > 0.01 * (w**2).sum() + 0.002
            seen[row, column] = 0 <= x <= width - 1 and 0 <= y <= height - 1 and not is_occluded and not is_boundary
            if seen[row, column]:
                squares.extend((current[row, column] - bilinear(previous, x, y)) ** 2)
    return np.mean(squares) if squares else math.nan, seen


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    move=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    disorder=st.sampled_from([0.0, 0.02, 0.1, 1.0]),
)
def test_as_worked_out_pixel_by_pixel(seed, size, move, disorder):
    there = flow(*size, *move) + disorder * (noise(seed, 1, *size, 2) - 0.5)
    back = -flow(*size, *move) + disorder * (noise(seed + 1, 1, *size, 2) - 0.5)
    current, previous = noise(seed + 2, 1, 3, *size), noise(seed + 3, 1, 3, *size)
    images = (image[0].permute(1, 2, 0).double().numpy() for image in (current, previous))
    expected, seen = by_pixels(*images, there[0].double().numpy(), back[0].double().numpy())
    assert np.array_equal(visible(there, back)[0].numpy(), seen)
    score = warp_error(current, previous, to_previous=there, to_current=back)
    assert score.value.item() == pytest.approx(expected, rel=1e-9, nan_ok=True)
    assert score.is_measured.item() == seen.any()


def test_what_moves_as_the_flow_says_is_steady():
    scene = noise(0, 1, 3, 20, 30)
    current, previous = scene[..., 2:18, 3:27], scene[..., :16, :24]  # the camera goes right by 3 and down by 2
    there, back = flow(16, 24, 3, 2), flow(16, 24, -3, -2)
    seen = visible(there, back)[0]
    assert seen[:14, :21].all() and not seen[14:].any() and not seen[:, 21:].any(), "the rest has just come into sight"
    assert warp_error(current, previous, to_previous=there, to_current=back).value.item() < 1e-20
    flickering = warp_error((current + 0.1), previous, to_previous=there, to_current=back)
    assert flickering.value.item() == pytest.approx(0.01, rel=1e-5)
    still = flow(16, 24, 0, 0)
    assert warp_error(current, previous, to_previous=still, to_current=still).value.item() > 0.1


def test_what_was_hidden_does_not_count():
    """A square moves right by 4 over a still background."""
    background, square = noise(1, 1, 3, 16, 24), noise(2, 1, 3, 6, 6)
    previous, current = background.clone(), background.clone()
    previous[..., 5:11, 4:10], current[..., 5:11, 8:14] = square, square
    there, back = torch.zeros(1, 16, 24, 2), torch.zeros(1, 16, 24, 2)
    there[:, 5:11, 8:14, 0], back[:, 5:11, 4:10, 0] = -4, 4
    seen = visible(there, back)[0]
    assert not seen[5:11, 4:8].any(), "uncovered"
    assert not seen[10, 8:14].any() and not seen[5:11, 13].any(), "at the boundary"
    assert seen[5:10, 8:13].all() and seen[:4].all() and seen[:, 15:].all()
    assert warp_error(current, previous, to_previous=there, to_current=back).value.item() < 1e-20
    assert warp_error(current, previous, to_previous=0 * there, to_current=0 * back).value.item() > 1e-3


def test_a_frame_of_which_nothing_was_seen_has_no_score():
    image = noise(3, 2, 3, 8, 8)
    there = torch.cat([flow(8, 8, 20, 0), flow(8, 8, 0, 0)])
    score = warp_error(image, image, to_previous=there, to_current=-there)
    assert score.is_measured.tolist() == [False, True]
    assert score.value.tolist() == pytest.approx([math.nan, 0.0], nan_ok=True)


def test_a_clip_of_no_or_one_frame_has_no_pairs():
    for count in (0, 1):
        clip, still = noise(4, count, 3, 8, 8), torch.zeros(0, 8, 8, 2)
        score = warp_error(clip[1:], clip[:0], to_previous=still, to_current=still)
        assert [len(part) for part in score] == [0, 0]


def test_displacements_are_in_pixels():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(displaced(image, flow(3, 4, 0, 0)), image)
    assert displaced(image, flow(3, 4, 0.5, 1))[0, 0, 1, 2].item() == pytest.approx(10.5)


def test_a_real_clip_is_steadier_than_one_that_flickers(clips):
    frames = first_frames(clips / "faces" / "lp_d0.mp4", count=3)

    def error(current, previous):
        still = torch.zeros(len(current), 256, 256, 2)
        return warp_error(current, previous, to_previous=still, to_current=still).value

    dimmed = frames * torch.tensor([1.0, 0.9, 1.0]).view(3, 1, 1, 1)
    assert (error(frames, frames) < 1e-30).all()
    assert (error(frames[1:], frames[:-1]) < error(dimmed[1:], dimmed[:-1])).all()
