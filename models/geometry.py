"""Coordinates, sampling and the motion of anchors.

One convention: −1 and 1 are the centres of the border pixels, in the grid and in every sampler, so that warping
by the identity changes nothing. The published code mixes in a second one (its samplers take −1 and 1 as the outer
edges); the reading `released` reproduces that, in `sample` and `resize` alone.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hdam.models.config import Reading
from hdam.models.structures import Affines, Anchors, Grid, Points

SMALLEST_DETERMINANT = 1e-3
"""Affines with a smaller determinant, in units of the mean square of their columns' lengths, are inverted as if it were
this large, so that no step divides by zero. 1 for the identity at any scale, 0 for what maps the plane to a line."""
SMALLEST_SQUARE = 1e-9
"""Added to that unit, for matrices of zeros."""


def coordinate_grid(height: int, width: int, *, like: Tensor) -> Float[Tensor, "height width 2"]:
    """Coordinates (x, y) of every pixel centre; dtype and device of `like`."""
    x = torch.linspace(-1, 1, width, dtype=like.dtype, device=like.device)
    y = torch.linspace(-1, 1, height, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def sample(
    image: Float[Tensor, "batch channel height width"],
    grid: Float[Tensor, "batch out_height out_width 2"],
    *,
    reading: Reading,
    padding: Literal["zeros", "reflection"] = "zeros",
) -> Float[Tensor, "batch channel out_height out_width"]:
    """Take `image` bilinearly at the coordinates `grid`; outside lies `padding`."""
    return F.grid_sample(image, grid, mode="bilinear", padding_mode=padding, align_corners=reading == "paper")


def resize(
    maps: Float[Tensor, "batch channel height width"], size: tuple[int, int], *, reading: Reading
) -> Float[Tensor, "batch channel out_height out_width"]:
    """Bilinear interpolation of flow and occlusion maps to (height, width); values are left as they are."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=reading == "paper")


def resize_flow(
    flow: Grid, size: tuple[int, int], *, reading: Reading
) -> Float[Tensor, "batch out_height out_width 2"]:
    """`resize` for a sampling grid."""
    return resize(flow.permute(0, 3, 1, 2), size, reading=reading).permute(0, 2, 3, 1)


def gaussian_maps(position: Points, size: tuple[int, int], *, variance: float) -> Float[Tensor, "batch anchor h w"]:
    """exp(−½‖z − p‖²/variance) at every pixel z, for every position p; not normalised."""
    grid = coordinate_grid(*size, like=position)
    squared = (grid - position[:, :, None, None, :]).square().sum(-1)
    return torch.exp(-0.5 * squared / variance)


def region_maps(regions: Anchors, size: tuple[int, int]) -> Float[Tensor, "batch anchor h w"]:
    """exp(−½ (z − p)ᵀ C⁻¹ (z − p)) at every pixel z, C being the region's covariance; not normalised (RegionMM)."""
    assert regions.covariance is not None
    offset = coordinate_grid(*size, like=regions.position) - regions.position[:, :, None, None, :]
    # Its determinant is the square of the affine's.
    inverted = inverse(regions.covariance, smallest=SMALLEST_DETERMINANT**2)
    spread = torch.einsum("bahwi,baij,bahwj->bahw", offset, inverted, offset)
    return torch.exp(-0.5 * spread)


def inverse(
    affine: Float[Tensor, "*rest 2 2"], *, smallest: float = SMALLEST_DETERMINANT
) -> Float[Tensor, "*rest 2 2"]:
    """Inverse of 2×2 matrices, finite for singular ones too (see SMALLEST_DETERMINANT)."""
    a, b, c, d = affine[..., 0, 0], affine[..., 0, 1], affine[..., 1, 0], affine[..., 1, 1]
    determinant = a * d - b * c
    unit = (a * a + b * b + c * c + d * d).detach() / 2 + SMALLEST_SQUARE
    floor = (smallest * unit).copysign(determinant)
    safe = torch.where(determinant.abs() < floor.abs(), floor, determinant)
    adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    return adjugate / safe[..., None, None]


def motion_affine(source: Anchors, driving: Anchors) -> Affines:
    """θ = θ^s (θ^d)⁻¹, the linear part of each anchor's motion from driving to source (main paper, eq. 2).

    Regions turn by at most a quarter: their axes have no direction.
    """
    motion = source.affine @ inverse(driving.affine)
    return motion if source.covariance is None else without_half_turns(motion)


def without_half_turns(affine: Float[Tensor, "*rest 2 2"]) -> Float[Tensor, "*rest 2 2"]:
    """The affine, or its negative where the x axis would be turned around; 0 stays 0 (RegionMM's axis swap)."""
    return affine * affine[..., :1, :1].detach().sign()


def expected_position(
    source: Anchors, driving: Anchors, points: Float[Tensor, "batch child 2"]
) -> Float[Tensor, "batch anchor child 2"]:
    """T_k(z) = z_k^s + θ_k (z − z_k^d): where each parent's motion puts each of the driving `points` (eqs. 2, 5)."""
    offset = points[:, None] - driving.position[:, :, None]
    moved = torch.einsum("baij,bacj->baci", motion_affine(source, driving), offset)
    return source.position[:, :, None] + moved


def transform_homogeneous(
    matrix: Float[Tensor, "batch 3 3"], grid: Float[Tensor, "height width 2"]
) -> Float[Tensor, "batch height width 2"]:
    """Apply 3×3 matrices to coordinates and divide by the third one."""
    ones = torch.ones_like(grid[..., :1])
    moved = torch.einsum("bij,hwj->bhwi", matrix, torch.cat([grid, ones], -1))
    return moved[..., :2] / moved[..., 2:]
