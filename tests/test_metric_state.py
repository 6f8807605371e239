"""Means over frames: exact, whatever the order of frames, clips and workers."""

import math
import pickle
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hdam.models.joint_metrics import FrameScores
from hdam.models.metric_state import MeanState

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


def state(values):
    return MeanState().add(torch.tensor(values, dtype=torch.float64))


@given(clips=st.lists(numbers, min_size=1, max_size=5), order=st.randoms(use_true_random=False))
def test_the_mean_is_exact_in_any_order(clips, order):
    frames = [value for clip in clips for value in clip]
    exact = statistics.mean(frames)  # which counts in rational numbers, too
    assert state(frames).value == exact
    order.shuffle(frames)
    assert state(frames).value == exact
    parts = [state(clip) for clip in clips]
    order.shuffle(parts)
    merged = MeanState()
    for part in parts:
        merged = part.merge(merged)
    assert merged == state(frames) and merged.value == exact


def test_what_floating_point_loses_is_kept():
    values = [1e16, 1.0, -1e16, 1.0]
    assert sum(values) == 1.0
    assert state(values).value == 0.5
    assert state([0.1] * 10).value == 0.1


def test_nothing_has_no_mean():
    assert math.isnan(MeanState().value)
    assert MeanState().add(torch.zeros(0, dtype=torch.float64)) == MeanState()
    assert MeanState().merge(state([2.0])) == state([2.0])
    none = MeanState().add(torch.tensor([math.nan]), torch.tensor([False]))
    assert math.isnan(none.value) and (none.count, none.num_unmeasured) == (0, 1)


def test_frames_without_a_number_do_not_count():
    scores = FrameScores(torch.tensor([1.0, math.nan, 3.0]), torch.tensor([True, False, True]))
    found = MeanState().add(*scores)
    assert (found.value, found.count, found.num_unmeasured, found.num_broken) == (2.0, 2, 1, 0)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_broken_frame_spoils_the_mean(broken):
    found = state([1.0]).merge(state([broken, 3.0]))
    assert math.isnan(found.value) and (found.count, found.num_broken) == (2, 1)


def test_workers_can_send_it():
    found = state([0.1, 0.2, 0.3])
    assert pickle.loads(pickle.dumps(found)) == found
