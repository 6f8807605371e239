"""Telling real frames from painted ones, patch by patch."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from hdam.models.blocks import AntiAliasDownsample, Maps
from hdam.models.config import DiscriminatorConfig
from hdam.models.structures import Image


class Judgement(NamedTuple):
    """What one scale of the discriminator says of an image."""

    score: Maps
    """One number per patch; 1 is real."""
    features: list[Maps]
    """Output of every block, for feature matching."""


class PatchBlock(nn.Module):
    """4×4 convolution without padding, instance norm, leaky ReLU, pooling."""

    def __init__(self, inputs: int, outputs: int, *, has_norm: bool, has_pool: bool, spectral: bool) -> None:
        super().__init__()
        self.conv = _convolution(inputs, outputs, kernel=4, spectral=spectral)
        self.norm = nn.InstanceNorm2d(outputs, affine=True) if has_norm else nn.Identity()
        self.has_pool = has_pool

    def forward(self, x: Maps) -> Maps:
        """Features of at most half the resolution."""
        out = F.leaky_relu(self.norm(self.conv(x)), 0.2)
        return F.avg_pool2d(out, 2) if self.has_pool else out


class PatchDiscriminator(nn.Module):
    """A chain of blocks and a 1×1 score, at one scale."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        last = config.num_blocks - 1
        widths = [3] + [min(config.max_width, config.width * 2 ** (i + 1)) for i in range(config.num_blocks)]
        self.blocks = nn.ModuleList(
            PatchBlock(widths[i], widths[i + 1], has_norm=i > 0, has_pool=i < last, spectral=config.has_spectral_norm)
            for i in range(config.num_blocks)
        )
        self.head = _convolution(widths[-1], 1, kernel=1, spectral=config.has_spectral_norm)

    def forward(self, image: Image) -> Judgement:
        """Judge an image of any size that survives the blocks."""
        features: list[Tensor] = []
        out = image
        for block in self.blocks:
            out = block(out)
            features.append(out)
        return Judgement(self.head(out), features)


class Discriminator(nn.Module):
    """One patch discriminator per scale of the image pyramid."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.scales = config.scales
        self.downsamples = nn.ModuleList(AntiAliasDownsample(s, reading="released") for s in config.scales)
        self.per_scale = nn.ModuleList(PatchDiscriminator(config) for _ in config.scales)

    def forward(self, image: Image) -> list[Judgement]:
        """Judgements, one per scale."""
        pairs = zip(self.downsamples, self.per_scale, strict=True)
        return [judge(downsample(image)) for downsample, judge in pairs]


def _convolution(inputs: int, outputs: int, *, kernel: int, spectral: bool) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, kernel)
    return spectral_norm(convolution) if spectral else convolution
