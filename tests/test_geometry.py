"""Coordinates and motion: the identity changes nothing, known maps are found again, nothing divides by zero."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hdam.models.blocks import AntiAliasDownsample
from hdam.models.config import DeformationConfig, GeneratorConfig
from hdam.models.deformation import Deformation, draw_affine, draw_thin_plate
from hdam.models.flow import candidate_flows
from hdam.models.generator import Generator
from hdam.models.geometry import (
    SMALLEST_DETERMINANT,
    coordinate_grid,
    expected_position,
    gaussian_maps,
    inverse,
    resize,
    resize_flow,
    sample,
    transform_homogeneous,
)
from hdam.models.losses import equivariance_affine, equivariance_position, structure_distance
from hdam.models.structures import Anchors, DenseMotion

SEEDS = st.integers(0, 2**31 - 1)
quickly = settings(max_examples=25, deadline=None)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_anchors(seed: int, count: int = 5) -> Anchors:
    """Anchors whose frames are well away from singular."""
    noise = drawn(seed)
    position = torch.rand(2, count, 2, generator=noise, dtype=torch.float64) * 2 - 1
    affine = torch.eye(2, dtype=torch.float64) + 0.2 * torch.randn(
        2, count, 2, 2, generator=noise, dtype=torch.float64
    ).clamp(-1.5, 1.5)
    return Anchors(position, affine)


def identity_motion(height: int, width: int) -> DenseMotion:
    occlusion = torch.ones(1, 1, height, width, dtype=torch.float64)
    return DenseMotion(coordinate_grid(height, width, like=occlusion)[None], occlusion, occlusion)


@pytest.mark.parametrize("flow_size", [(16, 16), (32, 24), (8, 11), (5, 64)])
@pytest.mark.parametrize("size", [(64, 64), (32, 48), (33, 17)])
def test_warping_by_the_identity_changes_nothing(flow_size: tuple[int, int], size: tuple[int, int]):
    image = torch.rand(1, 3, *size, generator=drawn(0), dtype=torch.float64)
    motion = identity_motion(*flow_size)
    generator = Generator(GeneratorConfig(width=2, num_bottleneck_blocks=1), reading="paper")
    assert torch.allclose(generator.warp(image, motion), image, atol=1e-12)
    assert torch.allclose(resize_flow(motion.flow, size, reading="paper"), identity_motion(*size).flow, atol=1e-12)
    grid = identity_motion(*size).flow
    assert torch.allclose(sample(image, grid, reading="paper", padding="reflection"), image, atol=1e-12)
    unmoved = Deformation(torch.eye(2, 3, dtype=torch.float64)[None], torch.zeros(1, 25, dtype=torch.float64))
    assert torch.allclose(unmoved.image(image, reading="paper"), image, atol=1e-12)


def test_the_published_identity_darkens_the_border():
    ones = torch.ones(1, 3, 8, 8, dtype=torch.float64)
    warped = sample(ones, coordinate_grid(8, 8, like=ones)[None], reading="released")[0, 0]
    expected = torch.ones(8, 8, dtype=torch.float64)
    expected[[0, -1]] *= 0.5
    expected[:, [0, -1]] *= 0.5
    assert torch.allclose(warped, expected, atol=1e-12)


@pytest.mark.parametrize("reading", ["paper", "released"])
def test_resizing_keeps_constants_and_does_nothing_at_the_same_size(reading: str):
    maps = torch.rand(2, 3, 8, 12, generator=drawn(1))
    assert resize(maps, (8, 12), reading=reading) is maps
    assert torch.allclose(resize(torch.full_like(maps, 0.3), (20, 5), reading=reading), torch.tensor(0.3))


@pytest.mark.parametrize("scale", [0.5, 0.25, 0.125])
def test_downsampling_keeps_the_place_of_things(scale: float):
    downsample = AntiAliasDownsample(scale, reading="paper").double()
    grid = coordinate_grid(96, 128, like=torch.zeros(1, dtype=torch.float64)).permute(2, 0, 1)[None]
    small = downsample(grid)
    expected = coordinate_grid(round(96 * scale), round(128 * scale), like=small).permute(2, 0, 1)[None]
    assert small.shape == expected.shape
    margin = downsample.kernel.shape[-1] // 2 // downsample.stride + 1
    inside = slice(margin, -margin)
    assert (small - expected)[..., inside, inside].abs().max() < 1e-6
    # Beyond the border the picture is repeated, which draws its outermost pixels inwards by less than one blur radius.
    sigma = (downsample.stride - 1) / 2
    assert (small - expected).abs().max() < sigma * 2 / 95
    assert torch.allclose(downsample(torch.full_like(grid, 0.7)), torch.tensor(0.7, dtype=torch.float64), atol=1e-6)


def test_downsampling_by_one_is_the_identity_and_other_scales_are_refused():
    image = torch.rand(1, 3, 8, 8)
    assert AntiAliasDownsample(1, reading="paper")(image) is image
    with pytest.raises(ValueError, match=r"scale=0\.3.*use 1, 0\.5"):
        AntiAliasDownsample(0.3, reading="paper")


@given(seed=SEEDS)
@quickly
def test_inverse_is_the_inverse(seed: int):
    matrices = torch.randn(20, 2, 2, generator=drawn(seed), dtype=torch.float64)
    matrices = matrices[torch.linalg.det(matrices).abs() > SMALLEST_DETERMINANT]
    assert torch.allclose(inverse(matrices) @ matrices, torch.eye(2, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-12, 1e-4, 1e-2])
def test_nearly_singular_frames_have_finite_inverses_and_gradients(size: float):
    rank_one = torch.tensor([[1.0, 2.0], [0.5, 1.0]])
    matrices = torch.stack([torch.eye(2) * size, rank_one, rank_one + torch.eye(2) * size, -rank_one * size])
    matrices.requires_grad_()
    inverted = inverse(matrices)
    inverted.square().sum().backward()
    assert inverted.isfinite().all()
    assert matrices.grad.isfinite().all()


@given(seed=SEEDS)
@quickly
def test_anchors_that_move_by_one_affine_map_predict_each_other(seed: int):
    noise = drawn(seed)
    linear = torch.eye(2, dtype=torch.float64) + 0.3 * torch.randn(2, 2, generator=noise, dtype=torch.float64)
    shift = torch.randn(2, generator=noise, dtype=torch.float64)
    driving, children = random_anchors(seed), random_anchors(seed + 1, count=7).position
    source = Anchors(driving.position @ linear.T + shift, linear @ driving.affine)
    moved = children @ linear.T + shift
    expected = expected_position(source, driving, children)
    assert torch.allclose(expected, moved[:, None].expand_as(expected), atol=1e-9)
    assert structure_distance(source, driving, moved, children).max() < 1e-9
    assert structure_distance(source, driving, moved + torch.tensor([3.0, 4.0]), children).sub(5).abs().max() < 1e-9


def test_every_anchor_alone_maps_its_driving_position_to_its_source():
    source, driving = random_anchors(3), random_anchors(4)
    own = expected_position(source, driving, driving.position).diagonal(dim1=1, dim2=2)
    assert torch.allclose(own.transpose(1, 2), source.position, atol=1e-12)


def test_a_background_of_none_stands_still():
    flows = candidate_flows(random_anchors(5), random_anchors(6), (6, 9), background=None)
    assert flows.shape == (2, 6, 6, 9, 2)
    assert torch.equal(flows[0, 0], coordinate_grid(6, 9, like=flows))
    unit = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    assert torch.allclose(transform_homogeneous(unit, flows[0, 0]), flows[:, 0])


def test_gaussians_are_one_at_their_anchor():
    maps = gaussian_maps(torch.tensor([[[0.0, 0.5], [-1.0, 1.0]]]), (5, 3), variance=0.01)
    assert maps[0, 0, 3, 1] == maps[0, 1, 4, 0] == 1
    assert maps.max() == 1
    assert maps[0, 0, 4, 1] == pytest.approx(torch.tensor(-0.5 * 0.25 / 0.01).exp().item())


def random_deformation(seed: int) -> Deformation:
    return draw_thin_plate(2, DeformationConfig(), generator=drawn(seed)).to(torch.zeros((), dtype=torch.float64))


def autograd_jacobian(deformation: Deformation, points: Tensor) -> Tensor:
    points = points.clone().requires_grad_()
    moved = deformation.points(points)
    rows = [torch.autograd.grad(moved[..., axis].sum(), points, retain_graph=True)[0] for axis in (0, 1)]
    return torch.stack(rows, -2)


@given(seed=SEEDS)
@quickly
def test_jacobian_of_a_deformation_is_its_derivative(seed: int):
    points = random_anchors(seed, count=9).position
    for deformation in (random_deformation(seed), random_deformation(seed)._replace(thin_plate=None)):
        assert torch.allclose(deformation.jacobian(points), autograd_jacobian(deformation, points), atol=1e-10)


@given(seed=SEEDS)
@quickly
def test_a_deformed_image_shows_at_z_what_was_at_the_map_of_z(seed: int):
    deformation = random_deformation(seed)
    grid = coordinate_grid(20, 30, like=deformation.affine)
    image = torch.cat([grid.permute(2, 0, 1), torch.zeros(1, 20, 30)]).expand(2, -1, -1, -1)
    shown = deformation.image(image, reading="paper")[:, :2].permute(0, 2, 3, 1)
    moved = deformation.points(grid.reshape(1, -1, 2).expand(2, -1, -1)).view(2, 20, 30, 2)
    inside = (moved.abs() < 1).all(-1)
    assert inside.float().mean() > 0.2
    assert torch.allclose(shown[inside], moved[inside], atol=1e-9)


@given(seed=SEEDS)
@quickly
def test_equivariance_losses_of_a_perfect_detector_are_zero(seed: int):
    deformation, seen = random_deformation(seed), random_anchors(seed)
    jacobian = deformation.jacobian(seen.position)
    found = Anchors(deformation.points(seen.position), jacobian @ seen.affine)
    assume(torch.linalg.det(found.affine).abs().min() > SMALLEST_DETERMINANT)
    assert equivariance_position(found.position, deformation.points(seen.position)) == 0
    assert equivariance_affine(found, seen, jacobian) < 1e-9
    assert equivariance_affine(found, seen._replace(affine=2 * seen.affine), jacobian) == pytest.approx(0.5)


def test_drawing_depends_on_its_generator_alone():
    config = DeformationConfig(num_points=4)
    first, again = (draw_thin_plate(3, config, generator=drawn(9)) for _ in range(2))
    assert torch.equal(first.affine, again.affine)
    assert first.thin_plate.shape == (3, 16)
    assert torch.equal(first.thin_plate, again.thin_plate)
    assert not torch.equal(draw_affine(3, config, generator=drawn(8)).affine, first.affine)
    assert draw_affine(3, config, generator=None).thin_plate is None
