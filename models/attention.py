"""How much each intermediate anchor owns each motion anchor (supplementary, eq. 1).

Two readings: `AnchorAttention` is the supplementary's, linear projections without bias; `ProjectedAttention` is the
published code's, two branches of 1×1 convolution, batch norm and ReLU.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdam.models.config import Reading
from hdam.models.geometry import sample
from hdam.models.structures import AnchorTree, Points

Attention = Float[Tensor, "batch intermediate motion"]
Features = Float[Tensor, "batch channel height width"]


def scaled_attention(
    key: Float[Tensor, "batch intermediate channel"],
    query: Float[Tensor, "batch motion channel"],
    *,
    divisor: float,
    ignored: Sequence[int] = (),
) -> Attention:
    """softmax(key queryᵀ / divisor) over the motion anchors; `ignored` ones get exactly zero.

    With every motion anchor ignored there is nothing to own, and all shares are zero.
    """
    scores = key @ query.transpose(1, 2) / divisor
    if not ignored:
        return scores.softmax(-1)
    kept = torch.ones(scores.shape[-1], dtype=torch.bool, device=scores.device)
    kept[list(ignored)] = False
    if not kept.any():
        return scores * 0  # and not zeros: parameters without a gradient would stop a distributed step
    return scores.masked_fill(~kept, -torch.inf).softmax(-1)


def features_at(features: Features, position: Points, *, reading: Reading) -> Float[Tensor, "batch anchor channel"]:
    """Features sampled bilinearly at the anchors."""
    return sample(features, position[:, None], reading=reading)[:, :, 0].transpose(1, 2)


class AnchorAttention(nn.Module):
    """ω = softmax(F_I W_key (F_K W_que)ᵀ / √c), without bias (supplementary, eq. 1)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(features, width, bias=False)
        self.query = nn.Linear(features, width, bias=False)

    def forward(self, tree: AnchorTree, *, ignored: Sequence[int] = ()) -> Attention:
        """Attention among the driving anchors of `tree`."""
        intermediate, motion = _level_features(tree, reading="paper")
        divisor = self.key.out_features**0.5
        return scaled_attention(self.key(intermediate), self.query(motion), divisor=divisor, ignored=ignored)


class ProjectedAttention(nn.Module):
    """The published code's form; in training its batch norm sees only batch × anchors samples.

    Its scores are divided by √I, the number of intermediate anchors, where the supplementary has √c.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.key = _branch(features, width)
        self.query = _branch(features, width)

    def forward(self, tree: AnchorTree, *, ignored: Sequence[int] = ()) -> Attention:
        """Attention among the driving anchors of `tree`."""
        key, query = (
            branch(level.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
            for branch, level in zip((self.key, self.query), _level_features(tree, reading="released"), strict=True)
        )
        return scaled_attention(key, query, divisor=key.shape[1] ** 0.5, ignored=ignored)


def _branch(features: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(features, width, 1), nn.BatchNorm2d(width), nn.ReLU())


def _level_features(tree: AnchorTree, *, reading: Reading) -> tuple[Tensor, Tensor]:
    if tree.features is None or tree.intermediate is None:
        raise ValueError("attention needs detected anchors with an intermediate level; this tree has none")
    intermediate = features_at(tree.features, tree.intermediate.position, reading=reading)
    return intermediate, features_at(tree.features, tree.motion.position, reading=reading)
