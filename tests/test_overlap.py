"""Intermediate anchors against motion anchors: eqs. (6) to (8) against closed-form values, and counts by hand."""

from pathlib import Path

import pytest
import torch
from reference import arrays

from hdam.models.geometry import motion_affine
from hdam.models.overlap import measure_overlap, pair_residual
from hdam.models.structures import Anchors, AnchorTree

EXACT = 1e-11


@pytest.fixture(scope="module")
def constraint(golden: Path):
    return arrays(golden / "constraint.npz")


def overlapping(constraint, second):
    """Trees of an intermediate anchor that lies on motion anchor 0; motion anchor 1 is at `second` in the source."""
    unit = torch.eye(2, dtype=torch.float64).expand(32, 1, 2, 2)
    first = [constraint[name][:, None] for name in ("ov_z1s", "ov_z1d")]
    others = second[:, None], constraint["ov_z2d"][:, None]
    affines = constraint["ov_theta"][:, None], unit
    return [
        AnchorTree(Anchors(torch.cat([a, b], 1), unit.expand(-1, 2, -1, -1)), Anchors(a, affine), None)
        for a, b, affine in zip(first, others, affines, strict=True)
    ]


def test_the_residual_of_eq_8_is_the_loss_of_eq_4_where_anchors_overlap(constraint):
    attention = torch.tensor([[[0.3, 0.7]]], dtype=torch.float64).expand(32, 1, 2)
    found = measure_overlap(*overlapping(constraint, constraint["ov_z2s"]), attention)
    assert (found.nearest == 0).all()
    assert found.is_overlap.all()
    assert found.distance.max() == 0
    assert (found.residual[:, 0] - constraint["ov_loss_eq4"]).abs().max() < EXACT
    assert constraint["ov_loss_eq4"].min() > 100 * EXACT, "an example in which the loss vanishes would show nothing"
    fitting = measure_overlap(*overlapping(constraint, constraint["ov_z2s_zero_loss"]), attention)
    assert fitting.residual.max() < EXACT


def test_the_pair_residual_holds_both_sides_of_eq_8(constraint):
    driving = (constraint["ov_z2d"] - constraint["ov_z1d"])[:, None, None]
    theta = constraint["ov_theta"][:, None]
    assert pair_residual(theta, constraint["ov_delta_eq8"][:, None, None], driving).max() < EXACT
    assert (
        pair_residual(theta, torch.zeros_like(driving), driving)[:, 0, 0]
        - constraint["ov_theta_times_delta_eq8"].norm(dim=-1)
    ).abs().max() < EXACT


def test_residuals_of_anchors_that_do_not_overlap(constraint):
    """Against eq. (8) written out for each intermediate anchor and pair of motion anchors."""
    trees = [
        AnchorTree(
            Anchors(constraint[f"z{side}_k"], torch.eye(2, dtype=torch.float64).expand(4, 10, 2, 2)),
            Anchors(constraint[f"z{side}_i"], constraint[f"J{side}_i"]),
            None,
        )
        for side in "sd"
    ]
    found = measure_overlap(*trees, constraint["attention"], threshold=0.0)
    assert not found.is_overlap.any()
    theta = motion_affine(trees[0].intermediate, trees[1].intermediate)
    for sample in range(4):
        for i in range(3):
            distance = (constraint["zd_i"][sample, i] - constraint["zd_k"][sample]).norm(dim=-1)
            first = int(distance.argmin())
            assert (found.nearest[sample, i], found.distance[sample, i]) == (first, distance[first])
            total = weights = 0.0
            for second in set(range(10)) - {first}:
                source = constraint["zs_k"][sample, second] - constraint["zs_k"][sample, first]
                driving = constraint["zd_k"][sample, second] - constraint["zd_k"][sample, first]
                share = constraint["attention"][sample, i, second]
                total += share * (source - theta[sample, i] @ driving).norm()
                weights += share
            assert abs(found.residual[sample, i] - total / weights) < EXACT


def points(*positions):
    return Anchors(torch.tensor([positions]), torch.eye(2).expand(1, len(positions), 2, 2))


def test_overlap_by_hand():
    """The first intermediate anchor stays 0.02 beside motion anchor 1, the second leaves motion anchor 2."""
    source = AnchorTree(points((-1.0, 0.0), (0.0, 0.0), (0.5, 0.5)), points((0.02, 0.0), (0.5, 0.9)), None)
    driving = AnchorTree(points((-1.0, 0.0), (0.1, 0.0), (0.5, 0.5)), points((0.12, 0.0), (0.5, 0.5)), None)
    attention = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]])
    found = measure_overlap(source, driving, attention)
    assert found.nearest.tolist() == [[1, 2]]
    assert found.distance[0].tolist() == pytest.approx([0.02, 0], abs=1e-6)
    assert found.is_overlap.tolist() == [[True, False]]
    # Motion anchor 0 lies 1.0 to the left of anchor 1 in the source, and 1.1 in the driving image.
    assert found.residual[0, 0].item() == pytest.approx(0.1)
    assert found.residual[0, 1].isnan(), "all attention is on the nearest one"
    left_out = measure_overlap(source, driving, attention, ignored=(1,))
    assert left_out.nearest.tolist() == [[2, 2]]
    with pytest.raises(ValueError, match="all motion anchors are ignored"):
        measure_overlap(source, driving, attention, ignored=(0, 1, 2))
    with pytest.raises(ValueError, match="none"):
        measure_overlap(source._replace(intermediate=None), driving, attention)
