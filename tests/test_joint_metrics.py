"""AKD, MKR and AED against the published definitions, worked out joint by joint; frames in which detection fails."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from hdam.models.joint_metrics import (
    Embeddings,
    Joints,
    embedding_distance,
    found_share,
    keypoint_distance,
    missing_rate,
)

NAN = math.nan


def joints(positions):
    """Joints of frames as lists of (x, y), None where a joint was not found."""
    is_found = torch.tensor([[joint is not None for joint in frame] for frame in positions])
    position = torch.tensor([[joint or (NAN, NAN) for joint in frame] for frame in positions])
    return Joints(position, is_found)


TRUTH = joints([
    [(10, 10), (20, 30)],   # both joints in both
    [(10, 10), (20, 30)],   # one is lost
    [(10, 10), None],       # one is lost, the other is made up
    [(10, 10), (20, 30)],   # nothing in the result
    [None, None],           # nothing in the truth
    [None, None],           # nothing in both
])  # fmt: skip
RESULT = joints([
    [(13, 14), (20, 29)],
    [(12, 10), None],
    [None, (20, 30)],
    [None, None],
    [(1, 2), (3, 4)],
    [None, None],
])  # fmt: skip


def test_by_hand():
    value, is_measured = keypoint_distance(RESULT, TRUTH)
    assert is_measured.tolist() == [True, True, False, False, False, False]
    assert value.tolist() == pytest.approx([((3 + 4) / 2 + (0 + 1) / 2) / 2, 1.0, NAN, NAN, NAN, NAN], nan_ok=True)
    assert missing_rate(RESULT, TRUTH).tolist() == [0, 0.5, 0.5, 1, 0, 0]
    assert found_share(RESULT).tolist() == [1, 1, 1, 0, 1, 0]
    assert found_share(TRUTH).tolist() == [1, 1, 1, 1, 0, 0]


def test_the_distance_of_embeddings_is_squared():
    truth = Embeddings(torch.tensor([[1.0, 2.0], [0.0, 0.0], [NAN, NAN], [NAN, NAN]]), torch.arange(4) < 2)
    result = Embeddings(torch.tensor([[4.0, 6.0], [NAN, NAN], [1.0, 1.0], [NAN, NAN]]), torch.arange(4) % 2 == 0)
    value, is_measured = embedding_distance(result, truth)
    assert is_measured.tolist() == [True, False, False, False]
    assert value.tolist() == pytest.approx([25, NAN, NAN, NAN], nan_ok=True)
    assert embedding_distance(truth, truth).value[:2].tolist() == [0, 0]


def test_a_clip_without_frames_has_no_numbers():
    none = Joints(torch.zeros(0, 17, 2), torch.zeros(0, 17, dtype=torch.bool))
    nobody = Embeddings(torch.zeros(0, 128), torch.zeros(0, dtype=torch.bool))
    assert [len(part) for part in keypoint_distance(none, none)] == [0, 0]
    assert [len(part) for part in embedding_distance(nobody, nobody)] == [0, 0]
    assert len(missing_rate(none, none)) == len(found_share(none)) == 0


def as_stored(found):
    """As the published scripts keep joints: numpy arrays with -1 for what is missing."""
    return np.where(found.is_found[..., None], found.position, -1.0)


def published(result, truth):
    """AKD and MKR as published: frame by frame over stored arrays, frames without common joints left out."""
    distances, missing = [], []
    for a, b in zip(as_stored(result), as_stored(truth), strict=True):
        lost = [(q != -1).all() and (p == -1).all() for p, q in zip(a, b, strict=True)]
        missing.append(sum(lost) / len(lost))
        numbers = [abs(p[i] - q[i]) for p, q in zip(a, b, strict=True) for i in (0, 1) if p[i] != -1 and q[i] != -1]
        if numbers:
            distances.append(np.mean(numbers))
    return distances, missing


def detected(frames, num_joints):
    """What a detector may find; what it does not is NaN."""
    position = st_numpy.arrays(np.float32, (frames, num_joints, 2), elements=st.floats(0, 255, width=32))
    is_found = st_numpy.arrays(bool, (frames, num_joints))
    return st.builds(
        lambda where, found: Joints(
            torch.from_numpy(np.where(found[..., None], where, np.float32(NAN))), torch.from_numpy(found)
        ),
        position,
        is_found,
    )


@settings(max_examples=50, deadline=None)
@given(pair=st.tuples(st.integers(1, 4), st.integers(1, 5)).flatmap(lambda n: st.tuples(detected(*n), detected(*n))))
def test_as_published_whatever_is_found(pair):
    result, truth = pair
    distances, missing = published(result, truth)
    value, is_measured = keypoint_distance(result, truth)
    assert value[is_measured].tolist() == pytest.approx(distances) and value[~is_measured].isnan().all()
    assert missing_rate(result, truth).tolist() == pytest.approx(missing)


@settings(max_examples=50, deadline=None)
@given(truth=detected(3, 4), pixels=st.integers(1, 50))
def test_the_truth_is_ideal_and_all_else_is_worse(truth, pixels):
    value, is_measured = keypoint_distance(truth, truth)
    assert is_measured.tolist() == truth.is_found.any(1).tolist() and (value[is_measured] == 0).all()
    assert (missing_rate(truth, truth) == 0).all()
    shifted = keypoint_distance(truth._replace(position=truth.position + pixels), truth)
    assert shifted.value[is_measured].tolist() == pytest.approx([pixels] * int(is_measured.sum()), rel=1e-5)
    nothing = truth._replace(is_found=torch.zeros_like(truth.is_found))
    assert not keypoint_distance(nothing, truth).is_measured.any()
    assert missing_rate(nothing, truth).tolist() == truth.is_found.double().mean(1).tolist()
