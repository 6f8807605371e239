"""The structure scores against values computed by hand."""

import math

import pytest
import torch

from hdam.models.structure_scores import (
    adjusted_rand_index,
    best_overlaps,
    count_labels,
    fit_joints,
    score_looks,
    score_positions,
)


def draw(*shape, seed=0):
    """Numbers in −1…1."""
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def regress(anchors, joints):
    """Fit on the first half, score on the second."""
    half = len(joints) // 2
    predicted = fit_joints(anchors[:half], joints[:half]).predict(anchors[half:])
    return score_positions(predicted, joints[half:], guess=joints[:half].mean(0))


def test_anchors_that_are_a_linear_map_of_the_joints_tell_them_all():
    joints = draw(400, 3, 2)
    mixing = draw(6, 6, seed=1) + 2 * torch.eye(6, dtype=torch.float64)
    anchors = (joints.flatten(1) @ mixing + 0.3).unflatten(1, (3, 2))
    score = regress(anchors, joints)
    assert score.error < 1e-4
    assert score.relative < 1e-3


def test_anchors_that_follow_nothing_tell_no_more_than_the_mean_pose():
    score = regress(draw(4000, 5, 2, seed=1), draw(4000, 3, 2))
    assert score.relative == pytest.approx(1, abs=0.01)
    assert score.error > 0.3


def test_anchors_that_never_move_are_no_harm():
    joints, anchors = draw(400, 2, 2), torch.zeros(400, 4, 2)
    assert regress(anchors, joints).relative == pytest.approx(1)


def test_the_ridge_by_hand():
    """One anchor on a line, x = ±1 and y = 2x: W = 2 / (1 + ridge)."""
    anchors = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]])
    regression = fit_joints(anchors, 2 * anchors + 0.5, ridge=1.0)
    assert regression.predict(torch.tensor([[[1.0, 7.0]]])).tolist() == [[[1.5, 0.5]]]


def test_positions_by_hand():
    """Distances 5 and 0 in coordinates are 2.5 and 0 sides; the guess is off by 3 and 4."""
    truth = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]])
    found = torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]]])
    score = score_positions(found, truth, guess=torch.tensor([[3.0, 0.0]]))
    assert score == (1.25, pytest.approx(5 / 7))
    assert score_positions(truth, truth, guess=torch.tensor([[3.0, 0.0]])) == (0, 0)
    assert math.isnan(score_positions(truth[:1], truth[:1], guess=truth[0]).relative), "nothing to tell"


def test_anchors_that_follow_the_pose_alone_do_not_move_with_the_look():
    positions = draw(4, 3, 1, 5, 2).expand(-1, -1, 4, -1, -1)
    assert score_looks(positions) == (0, 0)


def test_anchors_that_ignore_the_image_move_with_the_look_as_with_anything():
    score = score_looks(draw(30, 4, 4, 3, 2))
    assert score.relative == pytest.approx(1, abs=0.05)
    assert score.error == pytest.approx(0.5214, abs=0.01), "of two random points in a square"


def test_looks_by_hand():
    """Two figures, one pose, two looks: 0 and 1 of the one, 10 and 11 of the other, along x."""
    positions = torch.zeros(2, 1, 2, 1, 2)
    positions[..., 0, 0] = torch.tensor([[[0.0, 1.0]], [[10.0, 11.0]]])
    score = score_looks(positions)
    assert score.error == 0.5
    assert score.relative == pytest.approx(1 / 10)  # mean of 10, 11, 9, 10
    with pytest.raises(ValueError, match="1 figures in 2 looks"):
        score_looks(positions[:1])


def test_labels_are_counted():
    truth, found = torch.tensor([[[0, 1, 1]]]), torch.tensor([[[2, 0, 0]]])
    counts = count_labels(truth, found, num_true=2, num_found=3)
    assert counts.tolist() == [[0, 0, 1], [2, 0, 0]]


def test_rand_index_by_hand():
    """The example of Hubert and Arabie's formula: [[2, 1], [0, 3]]: (4 − 2.8) / (6.5 − 2.8)."""
    expected = 6 * 7 / 15
    assert adjusted_rand_index(torch.tensor([[2, 1], [0, 3]])) == pytest.approx((4 - expected) / (6.5 - expected))


def test_partitions_agree_whatever_their_labels_are_called():
    truth = torch.randint(0, 4, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    renamed = torch.tensor([3, 0, 4, 1])[truth]
    counts = count_labels(truth, renamed, num_true=5, num_found=5)
    assert adjusted_rand_index(counts) == 1
    overlaps = best_overlaps(counts)
    assert overlaps[:4].tolist() == [1, 1, 1, 1]
    assert overlaps[4].isnan(), "a part that is never seen has no overlap"
    mixed = torch.randint(0, 4, truth.shape, generator=torch.Generator().manual_seed(1))
    assert adjusted_rand_index(count_labels(truth, mixed, num_true=4, num_found=4)) == pytest.approx(0, abs=0.02)


def test_everything_in_one_mask_is_chance_unless_it_is_the_truth():
    assert adjusted_rand_index(torch.tensor([[5, 0], [3, 0]])) == 0
    assert adjusted_rand_index(torch.tensor([[8, 0], [0, 0]])) == 1
    with pytest.raises(ValueError, match="1 pixels"):
        adjusted_rand_index(torch.tensor([[1]]))


def test_overlaps_by_hand():
    """Part 0: 2 of 3 pixels in mask 0, which holds 4: 2 / (3 + 4 − 2). Part 1: best in mask 0 too."""
    counts = torch.tensor([[2, 1], [2, 0]])
    assert best_overlaps(counts).tolist() == pytest.approx([2 / 5, 2 / 4])
