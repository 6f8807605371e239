"""Regions: their axes against an eigendecomposition, their motion, their heat maps, and that round ones do no harm."""

import pytest
import torch
from narrow import narrow_model, random_images
from torch import Tensor

from hdam.models.animation import relative_motion
from hdam.models.config import AnchorConfig, ModelConfig
from hdam.models.families import build_model
from hdam.models.geometry import coordinate_grid, motion_affine, region_maps
from hdam.models.losses import equivariance_affine
from hdam.models.regions import ROUND_REGION, SMALLEST_VARIANCE, RegionDetector, principal_axes
from hdam.models.structures import Anchors

REGIONS = AnchorConfig(num_motion=4, num_intermediate=0, has_root=False)


def region_model(**changes) -> ModelConfig:
    return narrow_model(family="regionmm", anchors=REGIONS, **changes)


def covariances(*, seed: int = 0, batch: int = 50) -> Tensor:
    roots = torch.randn(batch, 4, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return roots @ roots.mT + 0.01 * torch.eye(2, dtype=torch.float64)


def rotation(degrees: float) -> Tensor:
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])


def region(covariance: Tensor, x: float = 0.0, y: float = 0.0) -> Anchors:
    covariance = covariance.expand(1, 1, 2, 2)
    position = torch.tensor([[[x, y]]], dtype=torch.float64)
    return Anchors(position, principal_axes(covariance, damping=0.0), covariance)


def test_axes_are_the_eigenvectors_times_the_roots_of_the_eigenvalues():
    covariance = covariances()
    axes = principal_axes(covariance, damping=ROUND_REGION)
    torch.testing.assert_close(axes @ axes.mT, covariance)
    lengths, directions = torch.linalg.eigh(covariance)
    expected = directions.flip(-1) * lengths.flip(-1).sqrt()[..., None, :]
    torch.testing.assert_close(axes.abs(), expected.abs())
    assert (torch.linalg.det(axes) < 0).all() and (axes[..., 0, 0] <= 0).all()


def test_the_derivative_is_exact_without_damping_and_nearly_so_for_clear_axes():
    covariance = covariances(batch=1)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda c: principal_axes((c + c.mT) / 2, damping=0.0), (covariance,))
    long = torch.diag(torch.tensor([1.0, 0.01], dtype=torch.float64)).requires_grad_()
    gradients = [
        torch.autograd.grad(principal_axes(long, damping=damping).sum(), long)[0] for damping in (0.0, ROUND_REGION)
    ]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.01, atol=0)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-6, 1e-3])
def test_a_round_region_has_a_gradient_within_bounds(gap: float):
    covariance = torch.diag(torch.tensor([0.04 + gap, 0.04], dtype=torch.float64)).requires_grad_()
    axes = principal_axes(covariance, damping=ROUND_REGION)
    torch.testing.assert_close(axes @ axes.mT, covariance)
    mixed = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((axes * mixed).sum(), covariance)
    # Clear axes: dA/dC is about ½ / √m each; round ones may have 1 / (4 · ROUND_REGION) of that, not more.
    assert gradient.isfinite().all() and gradient.abs().max() < 10 * 0.5 / 0.04**0.5 / (4 * ROUND_REGION)


def test_one_spot_has_axes_of_the_smallest_size():
    axes = principal_axes(torch.zeros(2, 2, dtype=torch.float64, requires_grad=True), damping=ROUND_REGION)
    torch.testing.assert_close(axes @ axes.mT, SMALLEST_VARIANCE * torch.eye(2, dtype=torch.float64))
    axes.sum().backward()


@pytest.mark.parametrize("degrees", [-80.0, -30.0, 10.0, 45.0, 85.0])
def test_a_region_moves_as_it_was_turned_and_stretched(degrees: float):
    """Whatever the signs of the axes are; a turn by more than a right angle looks like one by less."""
    turn = rotation(degrees)
    for base in (0.0, 40.0, 89.0, 91.0, 179.0):
        shape = rotation(base) @ torch.diag(torch.tensor([0.09, 0.01], dtype=torch.float64)) @ rotation(base).T
        motion = motion_affine(region(4 * turn @ shape @ turn.T), region(shape))[0, 0]
        torch.testing.assert_close(motion, 2 * turn)
    assert motion_affine(region(turn @ shape @ turn.T), region(shape))[0, 0, 0, 0] > 0


def test_heat_maps_have_the_shape_of_the_region():
    shape = rotation(30.0) @ torch.diag(torch.tensor([0.04, 0.01], dtype=torch.float64)) @ rotation(30.0).T
    (heat,) = region_maps(region(shape, 0.1, -0.2), (101, 101))[0]
    grid = coordinate_grid(101, 101, like=heat)
    share = heat / heat.sum()
    centre = (share[..., None] * grid).sum((0, 1))
    torch.testing.assert_close(centre, torch.tensor([0.1, -0.2], dtype=torch.float64), atol=1e-4, rtol=0)
    offset = grid - centre
    torch.testing.assert_close(torch.einsum("hw,hwi,hwj->ij", share, offset, offset), shape, atol=1e-4, rtol=0)
    assert heat.max() == pytest.approx(1, abs=0.02)


def test_axes_turned_around_are_no_error_of_equivariance():
    shapes = covariances(batch=1)
    found = Anchors(torch.zeros(1, 4, 2, dtype=torch.float64), principal_axes(shapes, damping=0.0), shapes)
    identity = torch.eye(2, dtype=torch.float64).expand(1, 4, 2, 2)
    assert equivariance_affine(found, found._replace(affine=-found.affine), identity) < 1e-9
    points = found._replace(covariance=None)
    assert equivariance_affine(points, points._replace(affine=-points.affine), identity) == pytest.approx(1)


def test_relative_motion_turns_the_sources_own_region():
    first, driving = (region(shape[None]) for shape in (covariances()[0, 0], covariances(seed=1)[0, 0]))
    source = region(covariances(seed=2)[0, 0][None])
    moved = relative_motion(source, driving, first)
    torch.testing.assert_close(moved.affine, motion_affine(driving, first) @ source.affine)
    torch.testing.assert_close(moved.covariance, moved.affine @ moved.affine.mT)
    still = relative_motion(source, first, first)
    torch.testing.assert_close(still.covariance, source.covariance)


def test_a_model_of_regions_is_sound_and_learns():
    torch.manual_seed(0)
    model = build_model(region_model())
    assert isinstance(model.detector, RegionDetector)
    transfer = model(random_images(64), random_images(64, seed=1))
    assert transfer.image.shape == (2, 3, 64, 64) and transfer.attention is None
    tree = transfer.source
    assert tree.root is None and tree.intermediate is None and tree.motion.covariance is not None
    assert tree.all.covariance is not None and tree.all.covariance.shape == (2, 4, 2, 2)
    transfer.image.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_regions_have_no_latent_anchors():
    for anchors in (AnchorConfig(num_intermediate=0), AnchorConfig()):
        with pytest.raises(ValueError, match=r"regionmm has no latent anchors; set model.anchors.has_root: false"):
            build_model(narrow_model(family="regionmm", anchors=anchors))
