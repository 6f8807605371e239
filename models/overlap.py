"""Where intermediate anchors lie, and what that says about motion anchors (supplementary, section 3).

Where an intermediate anchor coincides with a motion anchor k₁ in both images (eq. 6), its motion maps k₁ onto itself
(eq. 7), and its constraint on another motion anchor k₂ binds the two to each other (eq. 8):
z₂^s − z₁^s = θ (z₂^d − z₁^d).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hdam.models.attention import Attention
from hdam.models.geometry import motion_affine
from hdam.models.structures import Affines, AnchorTree, Points

OVERLAP = 0.05
"""Distance in coordinates below which two anchors overlap: 2.5 % of the image's side."""


class Overlap(NamedTuple):
    """Intermediate anchors against motion anchors; lengths in coordinates."""

    nearest: Int[Tensor, "batch intermediate"]
    """The motion anchor that is nearest in the driving image, k₁."""
    distance: Float[Tensor, "batch intermediate"]
    """How far it is there."""
    is_overlap: Bool[Tensor, "batch intermediate"]
    """Whether it is nearer than the threshold in both images (eq. 6)."""
    residual: Float[Tensor, "batch intermediate"]
    """Mean residual of eq. (8) over the other motion anchors, by their attention; NaN where all attention is on k₁."""


def measure_overlap(
    source: AnchorTree,
    driving: AnchorTree,
    attention: Attention,
    *,
    ignored: Sequence[int] = (),
    threshold: float = OVERLAP,
) -> Overlap:
    """Compare the levels of two trees; `ignored` motion anchors are left out.

    Raises ValueError for trees without intermediate anchors, and where all motion anchors are ignored.
    """
    if source.intermediate is None or driving.intermediate is None:
        raise ValueError("overlap is that of intermediate anchors; these trees have none")
    if len(set(ignored)) >= driving.motion.position.shape[1]:
        raise ValueError("all motion anchors are ignored; none is left that could overlap")
    distances = _distances(driving.intermediate.position, driving.motion.position)
    distances[..., list(ignored)] = torch.inf
    distance, nearest = distances.min(-1)
    at_source = _distances(source.intermediate.position, source.motion.position).gather(-1, nearest[..., None])[..., 0]
    residual = pair_residual(
        motion_affine(source.intermediate, driving.intermediate),
        _offsets(source.motion.position, nearest),
        _offsets(driving.motion.position, nearest),
    )
    # Between k₁ and itself there is nothing to bind.
    others = attention.scatter(-1, nearest[..., None], 0)
    return Overlap(
        nearest=nearest,
        distance=distance,
        is_overlap=(distance < threshold) & (at_source < threshold),
        residual=(others * residual).sum(-1) / others.sum(-1),
    )


def pair_residual(
    theta: Affines, source: Float[Tensor, "batch anchor child 2"], driving: Float[Tensor, "batch anchor child 2"]
) -> Float[Tensor, "batch anchor child"]:
    """‖(z₂^s − z₁^s) − θ (z₂^d − z₁^d)‖ for given differences of every intermediate anchor (eq. 8)."""
    return torch.linalg.vector_norm(source - torch.einsum("baij,bacj->baci", theta, driving), dim=-1)


def _distances(
    intermediate: Float[Tensor, "batch intermediate 2"], motion: Float[Tensor, "batch motion 2"]
) -> Float[Tensor, "batch intermediate motion"]:
    return torch.linalg.vector_norm(intermediate[:, :, None] - motion[:, None], dim=-1)


def _offsets(
    motion: Points, nearest: Int[Tensor, "batch intermediate"]
) -> Float[Tensor, "batch intermediate anchor 2"]:
    """z_k − z_{k₁} for all k, k₁ being the nearest one of each intermediate anchor."""
    at_nearest = motion.gather(1, nearest[..., None].expand(-1, -1, 2))
    return motion[:, None] - at_nearest[:, :, None]
