"""Building blocks against the published code's, in float64."""

from pathlib import Path

import pytest
import torch
from reference import arrays
from torch import Tensor

from hdam.models.animation import relative_motion, size_ratio
from hdam.models.background import background_matrix
from hdam.models.blocks import AntiAliasDownsample
from hdam.models.config import GeneratorConfig
from hdam.models.deformation import Deformation
from hdam.models.flow import candidate_flows, heatmap_difference, warp_candidates
from hdam.models.generator import Generator
from hdam.models.geometry import coordinate_grid, gaussian_maps, resize, resize_flow, sample
from hdam.models.structures import Anchors, DenseMotion

EXACT = 1e-12
"""These references are stored in float64."""


@pytest.fixture(scope="module")
def units(golden: Path) -> dict[str, Tensor]:
    return arrays(golden / "units.npz")


def assert_close(ours: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() < tolerance


def anchors(units: dict[str, Tensor], name: str) -> Anchors:
    return Anchors(units[f"{name}.value"], units[f"{name}.jacobian"])


@pytest.mark.parametrize("scale", [0.5, 0.25, 0.125])
def test_anti_aliased_downsampling(units, scale: float):
    downsample = AntiAliasDownsample(scale, reading="released")
    kernel = units[f"aa{scale}.kernel"]
    for channel in kernel:
        assert_close(downsample.kernel[0].double(), channel, 1e-8)
    assert_close(downsample.double()(units["img"]), units[f"aa{scale}.out"], 1e-7)


def test_coordinate_grid_and_gaussians(units):
    assert_close(coordinate_grid(5, 7, like=units["kp"]), units["grid_5x7"])
    assert_close(gaussian_maps(units["kp"], (9, 11), variance=0.01), units["kp2gaussian_9x11_var0.01"])


@pytest.mark.parametrize("kind", ["affine", "tps", "strong"])
def test_deformation(units, kind: str):
    weights = units.get(f"T.{kind}.control_params")
    assert (weights is None) == (kind == "affine")
    deformation = Deformation(units[f"T.{kind}.theta"], None if weights is None else weights[:, 0])
    assert_close(deformation.image(units["img"], reading="released"), units[f"T.{kind}.frame"])
    assert_close(deformation.points(units["kp"]), units[f"T.{kind}.warp_kp"])
    assert_close(deformation.jacobian(units["kp"]), units[f"T.{kind}.jacobian_kp"])
    if weights is not None:
        control = coordinate_grid(5, 5, like=units["kp"])
        assert_close(control[None], units[f"T.{kind}.control_points"])


def test_heat_maps_and_candidate_flows(units):
    source, driving, image = anchors(units, "dm.ks"), anchors(units, "dm.kd"), units["dm.src"]
    size = (image.shape[-2], image.shape[-1])
    assert_close(heatmap_difference(source, driving, size, variance=0.01)[:, :, None], units["dm.heatmaps"])
    for kind in ("none", "affine", "perspective"):
        flows = candidate_flows(source, driving, size, background=units.get(f"dm.bg_{kind}"))
        assert_close(flows, units[f"dm.sparse_motion_bg_{kind}"])
        if kind == "affine":
            assert_close(warp_candidates(image, flows, reading="released"), units["dm.deformed_bg_affine"])
    unit = torch.eye(2, dtype=torch.float64).expand_as(source.affine)
    still = candidate_flows(source._replace(affine=unit), driving._replace(affine=unit), size, background=None)
    assert_close(still, units["dm.sparse_motion_no_jacobian"])


def test_warping_and_blending_over_resolutions(units):
    image, painted, occlusion = units["img"], units["deform.prev"], units["deform.occ"]
    motion = DenseMotion(units["deform.flow"], torch.ones_like(occlusion), occlusion)
    generator = Generator(GeneratorConfig(width=2, max_width=2, num_bottleneck_blocks=1), reading="released")
    warped = generator.warp(image, motion)
    assert_close(warped, units["deform.warped"])
    size = (image.shape[-2], image.shape[-1])
    assert_close(sample(image, resize_flow(motion.flow, size, reading="released"), reading="released"), warped)
    shown = resize(occlusion, size, reading="released")
    assert_close(warped * shown, units["deform.first"])
    assert_close(warped * shown + painted * (1 - shown), units["deform.skip_blend"])


@pytest.mark.parametrize("kind", ["shift", "affine", "perspective"])
def test_background_matrix(units, kind: str):
    assert_close(background_matrix(units[f"bg.{kind}.vec"], kind), units[f"bg.{kind}.matrix"])


def test_absolute_and_relative_motion(units):
    source, driving, first = (anchors(units, f"norm.{which}") for which in ("src", "drv", "drv0"))
    assert_close(driving.position, units["norm.absolute.value"])
    assert_close(driving.affine, units["norm.absolute.jacobian"])
    for name, scale in (("rel", 1.0), ("rel_adapt", size_ratio(source.position, first.position))):
        moved = relative_motion(source, driving, first, scale=scale)
        assert_close(moved.position, units[f"norm.{name}.value"])
        assert_close(moved.affine, units[f"norm.{name}.jacobian"])
    # The published code can move positions alone; ours moves both, so that only the positions have a counterpart.
    assert_close(relative_motion(source, driving, first).position, units["norm.rel_nojac.value"])
    assert_close(driving.affine, units["norm.rel_nojac.jacobian"])
