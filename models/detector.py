"""Finding the anchors of one image."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdam.models.attention import AnchorAttention, ProjectedAttention
from hdam.models.blocks import AntiAliasDownsample, Hourglass, Maps
from hdam.models.config import ModelConfig
from hdam.models.geometry import coordinate_grid
from hdam.models.structures import Anchors, AnchorTree, Image

Heatmaps = Float[Tensor, "batch anchor map_height map_width"]


class Detector(nn.Module, ABC):
    """Hourglass and a heat map per anchor; what else an anchor is, subclasses say in `place`.

    Positions are the mean of the coordinate grid under the heat map, which is a softmax over space (FOMM, section 3.1).
    """

    attention: AnchorAttention | ProjectedAttention | None
    """Among detected anchors, where there is an intermediate level."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        detector, self.anchors = config.detector, config.anchors
        self.temperature = detector.temperature
        self.downsample = AntiAliasDownsample(detector.scale, reading=config.reading)
        self.hourglass = Hourglass(
            3, width=detector.width, max_width=detector.max_width, num_blocks=detector.num_blocks
        )
        self.heatmap_head = self.head(config, self.anchors.total)
        self.attention = None

    def forward(self, image: Image) -> AnchorTree:
        """Detect all anchors, with the features that the attention needs."""
        features = self.hourglass(self.downsample(image))
        heatmaps = self.heatmaps(features)
        grid = coordinate_grid(*heatmaps.shape[-2:], like=heatmaps)
        position = torch.einsum("bahw,hwc->bac", heatmaps, grid)
        return AnchorTree.split(
            self.place(position, heatmaps, features),
            num_motion=self.anchors.num_motion,
            has_root=self.anchors.has_root,
            features=features,
        )

    @abstractmethod
    def place(self, position: Float[Tensor, "batch anchor 2"], heatmaps: Heatmaps, features: Maps) -> Anchors:
        """Anchors at these positions; `features` is what the heat maps were made of."""

    def heatmaps(self, features: Maps) -> Heatmaps:
        """Heat map of every anchor; each sums to 1."""
        logits = self.heatmap_head(features)
        return (logits.flatten(2) / self.temperature).softmax(-1).view_as(logits)

    def head(self, config: ModelConfig, channels: int) -> nn.Conv2d:
        """A 7×7 convolution over the features."""
        # Zeros beyond the border would mark it, and anchors settle on what is marked.
        padding = config.detector.heatmap_padding
        return nn.Conv2d(self.hourglass.outputs, channels, 7, padding=padding, padding_mode="replicate")


class AnchorDetector(Detector):
    """A second head gives maps of 2×2 matrices: an anchor's affine is their mean under its heat map (FOMM, DAM, HDAM).

    DAM adds the latent anchors as further heat maps, HDAM the attention.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        maps = 1 if config.detector.has_shared_affine else self.anchors.total
        self.affine_head = self.head(config, 4 * maps)
        nn.init.zeros_(self.affine_head.weight)
        with torch.no_grad():
            assert self.affine_head.bias is not None
            self.affine_head.bias.copy_(torch.eye(2).flatten().repeat(maps))
        if self.anchors.num_intermediate:
            form = AnchorAttention if config.reading == "paper" else ProjectedAttention
            self.attention = form(self.hourglass.outputs, config.detector.attention_width)

    def place(self, position: Float[Tensor, "batch anchor 2"], heatmaps: Heatmaps, features: Maps) -> Anchors:
        """Points with the affines that the second head gives."""
        maps = self.affine_head(features).unflatten(1, (-1, 4))
        if maps.shape[1] == 1:
            affine = torch.einsum("bahw,bchw->bac", heatmaps, maps[:, 0])
        else:
            affine = torch.einsum("bahw,bachw->bac", heatmaps, maps)
        return Anchors(position, affine.unflatten(2, (2, 2)))
