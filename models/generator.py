"""Painting the result: encode the source, warp it by the flow, decode."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

from hdam.models.blocks import ConvBlock, DownBlock, Maps, ResidualBlock, UpBlock
from hdam.models.config import GeneratorConfig, Reading
from hdam.models.geometry import resize, resize_flow, sample
from hdam.models.structures import DenseMotion, Image


class EncodedSource(NamedTuple):
    """A source image and its encoder features, finest first; the same for every driving frame."""

    image: Image
    levels: list[Maps]


class Generator(nn.Module):
    """Encoder, warp × occlusion, residual bottleneck, decoder; with skips every level is blended in the same way."""

    def __init__(self, config: GeneratorConfig, *, reading: Reading) -> None:
        super().__init__()
        self.reading = reading
        self.has_skips = config.has_skips
        widths = [min(config.max_width, config.width * 2**i) for i in range(config.num_down_blocks + 1)]
        self.first = ConvBlock(3, config.width, kernel=7)
        self.down_blocks = nn.ModuleList(DownBlock(a, b) for a, b in pairwise(widths))
        self.bottleneck = nn.Sequential(*(ResidualBlock(widths[-1]) for _ in range(config.num_bottleneck_blocks)))
        up = widths[::-1]
        self.up_blocks = nn.ModuleList(UpBlock(a, b) for a, b in pairwise(up))
        self.final = nn.Conv2d(config.width, 3, 7, padding=3)

    def encode(self, source: Image) -> EncodedSource:
        """Everything that depends on the source alone."""
        levels = [self.first(source)]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return EncodedSource(source, levels)

    def decode(self, source: EncodedSource, motion: DenseMotion) -> Image:
        """The result, 0…1."""
        warped = self.warp(source.levels[-1], motion)
        out = self.bottleneck(warped * self._occlusion(motion, warped))
        for block, skip in zip(self.up_blocks, reversed(source.levels), strict=False):
            out = block(self._blend(out, skip, motion))
        out = self.final(self._blend(out, source.levels[0], motion)).sigmoid()
        return self._blend(out, source.image, motion)

    def warp(self, maps: Maps, motion: DenseMotion) -> Maps:
        """An image or its features warped by the flow, nothing painted."""
        size = (maps.shape[-2], maps.shape[-1])
        return sample(maps, resize_flow(motion.flow, size, reading=self.reading), reading=self.reading)

    def _blend(self, painted: Maps, skip: Maps, motion: DenseMotion) -> Maps:
        """Warped where the occlusion map says so, painted elsewhere; without skips all is painted."""
        if not self.has_skips:
            return painted
        occlusion = self._occlusion(motion, skip)
        return self.warp(skip, motion) * occlusion + painted * (1 - occlusion)

    def _occlusion(self, motion: DenseMotion, like: Maps) -> torch.Tensor:
        return resize(motion.occlusion, (like.shape[-2], like.shape[-1]), reading=self.reading)
