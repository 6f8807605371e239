"""Every loss as a small pure function; weights are applied in `objective` alone.

Where the supplementary and the published code reduce differently, `reading` says which is meant.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hdam.models.attention import Attention
from hdam.models.config import Reading
from hdam.models.discriminator import Judgement
from hdam.models.geometry import expected_position, inverse, without_half_turns
from hdam.models.structures import Affines, Anchors, Points, Scalar

Losses = dict[str, Scalar]
"""By name."""


def mean_difference(found: Tensor, truth: Tensor) -> Scalar:
    """Mean absolute difference."""
    return (found - truth).abs().mean()


def equivariance_position(detected: Points, restored: Points) -> Scalar:
    """Mean absolute error between an anchor and its restored twin (main paper, eq. 11)."""
    return mean_difference(detected, restored)


def equivariance_affine(detected: Anchors, deformed: Anchors, jacobian: Affines) -> Scalar:
    """Mean absolute entry of I − (A)⁻¹ J A', A detected, A' detected on the deformed image (FOMM, eq. 9).

    Axes of regions may come out turned around, which is no error (RegionMM).
    """
    product = inverse(detected.affine) @ jacobian @ deformed.affine
    if detected.covariance is not None:
        product = without_half_turns(product)
    return (torch.eye(2, dtype=product.dtype, device=product.device) - product).abs().mean()


def structure_distance(
    parent_source: Anchors, parent_driving: Anchors, child_source: Points, child_driving: Points
) -> Float[Tensor, "batch parent child"]:
    """‖z_c^s − T_p(z_c^d)‖₂ for every parent p and child c (main paper, eq. 5)."""
    expected = expected_position(parent_source, parent_driving, child_driving)
    return torch.linalg.vector_norm(child_source[:, None] - expected, dim=-1)


def structure(distance: Float[Tensor, "batch parent child"]) -> Scalar:
    """Mean distance over batch, parents and children: DAM by the root, intermediate anchors by the root."""
    return distance.mean()


def attended_structure(distance: Float[Tensor, "batch intermediate motion"], attention: Attention) -> Scalar:
    """Batch mean of Σ_ik ω_ik · distance_ik (supplementary, eq. 5)."""
    return (attention * distance).sum((1, 2)).mean()


def orthogonal(attention: Attention, *, reading: Reading, ignored: Sequence[int] = ()) -> Scalar:
    """L_ortho (supplementary, eq. 2): intermediate anchors shall own different motion anchors.

    `paper`: batch mean of Σ_i Σ_{j≠i} −‖ω_i − ω_j‖₁. `released`: minus the mean over batch, ordered pairs that
    differ, and active motion anchors. Equal rows, a single intermediate anchor or no active motion anchor give 0
    (the published code gives NaN).
    """
    active = active_columns(attention, ignored)
    distance = (active[:, :, None] - active[:, None]).abs()
    if reading == "paper":
        return -distance.sum((1, 2, 3)).mean()
    per_pair = distance.sum(-1) / max(active.shape[-1], 1)
    return -per_pair.sum() / per_pair.count_nonzero().clamp(min=1)


def completeness(attention: Attention, *, delta: float, reading: Reading, ignored: Sequence[int] = ()) -> Scalar:
    """L_compl (supplementary, eq. 3): every motion anchor shall be owned with a share of at least δ.

    `paper`: batch mean of Σ_k max(0, δ − ‖ω_k‖₁) over active motion anchors. `released`: the mean over them.
    """
    active = active_columns(attention, ignored)
    missing = (delta - active.sum(1)).clamp(min=0)
    total = missing.sum(-1).mean()
    return total if reading == "paper" else total / max(active.shape[-1], 1)


def active_columns(attention: Attention, ignored: Sequence[int]) -> Float[Tensor, "batch intermediate active"]:
    """The attention without the columns of ignored motion anchors."""
    kept = [k for k in range(attention.shape[-1]) if k not in set(ignored)]
    return attention[:, :, kept]


def gan_generator(judgements: Sequence[Judgement]) -> Scalar:
    """Least squares: painted frames shall score 1."""
    return torch.stack([(1 - j.score).square().mean() for j in judgements]).sum()


def gan_discriminator(real: Sequence[Judgement], painted: Sequence[Judgement]) -> Scalar:
    """Least squares: real frames shall score 1, painted ones 0."""
    pairs = zip(real, painted, strict=True)
    return torch.stack([((1 - r.score).square() + p.score.square()).mean() for r, p in pairs]).sum()


def feature_matching(real: Sequence[Judgement], painted: Sequence[Judgement]) -> Scalar:
    """Mean absolute difference of the discriminator's features, summed over blocks and scales."""
    differences = [
        (a - b).abs().mean()
        for r, p in zip(real, painted, strict=True)
        for a, b in zip(r.features, p.features, strict=True)
    ]
    return torch.stack(differences).sum()
