"""Animation via disentanglement, AVD: one object takes the pose of another one (RegionMM, section 3.4).

Absolute anchors carry the driving object's build along, relative ones ask for a first frame in the source's pose. The
AVD network looks at the anchors alone, no images: it learns to make a person's anchors in some pose of that person's
anchors in another pose (identity), and of the first ones stretched at random (pose).
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdam.models.config import AvdConfig
from hdam.models.geometry import inverse
from hdam.models.structures import Affines, Anchors

NUMBERS_PER_ANCHOR = 6
WIDTHS = (256, 512, 1024)
"""Of the hidden layers of the encoders; the decoder has them in the opposite order."""


class AvdNetwork(nn.Module):
    """Two encoders and a decoder, all of them fully connected, over positions and affines of all anchors."""

    def __init__(self, config: AvdConfig, num_anchors: int) -> None:
        super().__init__()
        numbers = NUMBERS_PER_ANCHOR * num_anchors
        self.identity_encoder = _layers(numbers, *WIDTHS, config.identity_width)
        self.pose_encoder = _layers(numbers, *WIDTHS, config.pose_width)
        self.decoder = _layers(config.pose_width + config.identity_width, *reversed(WIDTHS), numbers)

    def forward(self, identity: Anchors, pose: Anchors) -> Anchors:
        """Anchors of the object that `identity` was detected on, in the pose that `pose` shows."""
        if identity.covariance is not None:
            identity = identity._replace(affine=_turned_alike(identity.affine, pose.affine))
        encoded = torch.cat([self.pose_encoder(_numbers(pose)), self.identity_encoder(_numbers(identity))], 1)
        decoded = self.decoder(encoded).unflatten(1, (-1, NUMBERS_PER_ANCHOR))
        affine = decoded[..., 2:].unflatten(-1, (2, 2))
        covariance = None if identity.covariance is None else affine @ affine.transpose(-1, -2)
        return Anchors(decoded[..., :2], affine, covariance)


class PoseScales(NamedTuple):
    """By how much the poses of one training step are stretched."""

    scale: Float[Tensor, "batch 2"]
    """Along x and y."""

    def of(self, part: slice) -> "PoseScales":
        """Those of some pairs of the batch."""
        return PoseScales(self.scale[part])

    def stretch(self, anchors: Anchors) -> Anchors:
        """Anchors of every pair of the batch, as if its image were stretched about its middle."""
        scale = self.scale.to(anchors.position)
        affine = scale[:, None, :, None] * anchors.affine
        covariance = None if anchors.covariance is None else affine @ affine.transpose(-1, -2)
        return Anchors(scale[:, None] * anchors.position, affine, covariance)


def draw_scales(batch: int, config: AvdConfig, *, generator: torch.Generator | None) -> PoseScales:
    """Factors in 1 ± `config.stretch`, evenly distributed."""
    return PoseScales(1 + config.stretch * (2 * torch.rand(batch, 2, generator=generator) - 1))


def _numbers(anchors: Anchors) -> Float[Tensor, "batch number"]:
    return torch.cat([anchors.position, anchors.affine.flatten(2)], 2).flatten(1)


def _turned_alike(affine: Affines, other: Affines) -> Affines:
    """Axes turned around where they would otherwise point away from those of the other object."""
    return affine * (affine @ inverse(other))[..., :1, :1].sign()


def _layers(*widths: int) -> nn.Sequential:
    """Linear layers, with batch norm and ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-2])
