"""Finding the anchors of one image."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdam.models.attention import AnchorAttention, ProjectedAttention
from hdam.models.blocks import AntiAliasDownsample, Hourglass
from hdam.models.config import AnchorConfig, DetectorConfig, Reading
from hdam.models.geometry import coordinate_grid
from hdam.models.structures import Anchors, AnchorTree, Image


class AnchorDetector(nn.Module):
    """Hourglass with two heads: a heat map per anchor gives its position, maps of 2×2 matrices its affine.

    Positions are the softmax-weighted mean of the coordinate grid, affines the mean of their map under the same
    heat map (FOMM, section 3.1; DAM adds the latent anchors as further heat maps).
    """

    attention: AnchorAttention | ProjectedAttention | None

    def __init__(self, config: DetectorConfig, anchors: AnchorConfig, *, reading: Reading) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.anchors = anchors
        self.downsample = AntiAliasDownsample(config.scale, reading=reading)
        self.hourglass = Hourglass(3, width=config.width, max_width=config.max_width, num_blocks=config.num_blocks)
        width, padding = self.hourglass.outputs, config.heatmap_padding
        affine_maps = 1 if config.has_shared_affine else anchors.total
        # Zeros beyond the border would mark it, and anchors settle on what is marked.
        self.heatmap_head = nn.Conv2d(width, anchors.total, 7, padding=padding, padding_mode="replicate")
        self.affine_head = nn.Conv2d(width, 4 * affine_maps, 7, padding=padding, padding_mode="replicate")
        nn.init.zeros_(self.affine_head.weight)
        with torch.no_grad():
            assert self.affine_head.bias is not None
            self.affine_head.bias.copy_(torch.eye(2).flatten().repeat(affine_maps))
        self.attention = None
        if anchors.num_intermediate:
            form = AnchorAttention if reading == "paper" else ProjectedAttention
            self.attention = form(width, config.attention_width)

    def forward(self, image: Image) -> AnchorTree:
        """Detect all anchors, with the features that the attention needs."""
        features = self.hourglass(self.downsample(image))
        heatmaps = self.heatmaps(features)
        grid = coordinate_grid(*heatmaps.shape[-2:], like=heatmaps)
        position = torch.einsum("bahw,hwc->bac", heatmaps, grid)
        maps = self.affine_head(features).unflatten(1, (-1, 4))
        if maps.shape[1] == 1:
            affine = torch.einsum("bahw,bchw->bac", heatmaps, maps[:, 0])
        else:
            affine = torch.einsum("bahw,bachw->bac", heatmaps, maps)
        return AnchorTree.split(
            Anchors(position, affine.unflatten(2, (2, 2))),
            num_motion=self.anchors.num_motion,
            has_root=self.anchors.has_root,
            features=features,
        )

    def heatmaps(self, features: Float[Tensor, "b channel h w"]) -> Float[Tensor, "b anchor out_h out_w"]:
        """Heat map of every anchor; each sums to 1."""
        logits = self.heatmap_head(features)
        return (logits.flatten(2) / self.temperature).softmax(-1).view_as(logits)
