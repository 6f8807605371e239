"""Regions instead of points (RegionMM; Siarohin et al., CVPR 2021): an anchor reaches as far as its heat map does."""

import torch
from jaxtyping import Float
from torch import Tensor

from hdam.models.blocks import Maps
from hdam.models.config import ModelConfig
from hdam.models.detector import Detector, Heatmaps
from hdam.models.geometry import coordinate_grid
from hdam.models.structures import Anchors

ROUND_REGION = 0.05
"""Below this difference of its variances, relative to their sum, a region counts as round."""
SMALLEST_VARIANCE = 1e-5
"""Of a region along each axis, in coordinates²: a tenth of a pixel at 64 pixels. One spot has no axes to go by."""
ROUNDING = 1e-7
"""The same difference, where no digit of the angle is left and the axes are taken as those of the image."""


class RegionDetector(Detector):
    """Regions: an anchor's affine is how far, and which way, its heat map reaches (RegionMM, section 3.2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        # The published gradient grows beyond bounds where a region is nearly round, and its axes may be any.
        self.damping = ROUND_REGION if config.reading == "paper" else 0.0

    def place(self, position: Float[Tensor, "batch anchor 2"], heatmaps: Heatmaps, features: Maps) -> Anchors:  # noqa: ARG002
        """Regions with their covariance, and its principal axes as their affine."""
        grid = coordinate_grid(*heatmaps.shape[-2:], like=heatmaps)
        offset = grid - position[:, :, None, None]
        covariance = torch.einsum("bahw,bahwi,bahwj->baij", heatmaps, offset, offset)
        affine = principal_axes(covariance, damping=self.damping)
        return Anchors(position, affine, affine @ affine.transpose(-1, -2))


def principal_axes(covariance: Float[Tensor, "*rest 2 2"], *, damping: float) -> Float[Tensor, "*rest 2 2"]:
    """A with A Aᵀ = covariance, the columns of A being the principal axes, the longer one first; differentiable.

    In closed form: the variances are m ± r, m = ½ tr C, r = ‖(½(C_xx − C_yy), C_xy)‖, and the longer axis points at
    half the angle φ of that vector. Both columns may be turned around; here the first never points to the right.

    dφ grows as 1/r, since a round region has no axes. `damping` multiplies it by r² / (r² + (damping · m)²): nothing
    for clear axes, 0 for a round region; the value stays exact. 0 is the derivative itself, as that of an SVD.
    """
    mean = (covariance[..., 0, 0] + covariance[..., 1, 1]) / 2
    half, mixed = (covariance[..., 0, 0] - covariance[..., 1, 1]) / 2, covariance[..., 0, 1]
    squared = half.square() + mixed.square()
    is_round = squared <= (ROUNDING * mean).square()
    # Square root and angle have no derivative at 0; there, the variances are equal and the axes those of the image.
    radius = torch.where(is_round, 1.0, squared).sqrt() * ~is_round
    fixed_half, fixed_mixed = half.detach(), mixed.detach()
    floor = squared.detach() + (damping * mean.detach()).square()
    turn = (fixed_half * mixed - fixed_mixed * half) / torch.where(is_round, 1.0, floor) * ~is_round
    angle = (torch.atan2(fixed_mixed, fixed_half) * ~is_round + turn) / 2
    longer = (mean + radius).clamp(min=SMALLEST_VARIANCE).sqrt()
    shorter = (mean - radius).clamp(min=SMALLEST_VARIANCE).sqrt()
    # Signs as LAPACK's nearly always are, a reflection: published weights of the AVD network have seen no others.
    x, y = -angle.cos(), -angle.sin()
    return torch.stack([torch.stack([x * longer, y * shorter], -1), torch.stack([y * longer, -x * shorter], -1)], -2)
