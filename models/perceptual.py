"""Comparing two images on several scales by what a fixed network sees in them."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdam.models.blocks import AntiAliasDownsample, Maps
from hdam.models.config import PerceptualConfig
from hdam.models.structures import Image, Scalar

# torchvision's numbering of `features`: the convolutions of each network, None where the maps are halved.
VGG_LAYOUTS: dict[str, tuple[int | None, ...]] = {
    "vgg16": (0, 2, None, 5, 7, None, 10, 12, 14, None, 17, 19, 21, None, 24),
    "vgg19": (0, 2, None, 5, 7, None, 10, 12, 14, 16, None, 19, 21, 23, 25, None, 28),
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FIRST_WIDTH, MAX_WIDTH = 64, 512


def vgg_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that `VggFeatures` takes from a network of full width.

    Widths double wherever the maps are halved (Simonyan & Zisserman, 2015, table 1).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    before, width = 3, FIRST_WIDTH
    for index in VGG_LAYOUTS[network]:
        if index is None:
            width = min(2 * width, MAX_WIDTH)
            continue
        shapes[f"features.{index}.weight"] = (width, before, 3, 3)
        shapes[f"features.{index}.bias"] = (width,)
        before = width
    return shapes


class VggFeatures(nn.Module):
    """relu1_1, relu2_1, relu3_1, relu4_1, relu5_1 of a frozen VGG; its widths are those of the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: str, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layout = VGG_LAYOUTS[network]
        self.convolutions = nn.ModuleDict()
        for index in (i for i in self.layout if i is not None):
            kernel, bias = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
            layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
            layer.load_state_dict({"weight": kernel, "bias": bias})
            self.convolutions[str(index)] = layer
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, image: Image) -> list[Maps]:
        """First activation of each of the five resolutions."""
        out = (image - self.mean) / self.std
        features = []
        is_first = True
        for index in self.layout:
            if index is None:
                out, is_first = F.max_pool2d(out, 2), True
                continue
            out = F.relu(self.convolutions[str(index)](out))
            if is_first:
                features.append(out)
            is_first = False
        return features


class PixelFeatures(nn.Module):
    """The colours themselves: needs no weights, and rewards the L1 that is measured."""

    def forward(self, image: Image) -> list[Maps]:
        """The image as its own only layer."""
        return [image]


class PerceptualPyramid(nn.Module):
    """Mean absolute difference of features, over scales and layers (FOMM, section 3.4; Johnson et al., 2016)."""

    def __init__(self, features: nn.Module, config: PerceptualConfig) -> None:
        super().__init__()
        self.features = features
        self.layer_weights = config.layer_weights
        self.downsamples = nn.ModuleList(AntiAliasDownsample(scale, reading="released") for scale in config.scales)

    def forward(self, result: Image, target: Image) -> Scalar:
        """Weighted difference; no gradient reaches `target`."""
        terms = [
            weight * (a - b).abs().mean()
            for downsample in self.downsamples
            for weight, a, b in self._layers(downsample(result), downsample(target.detach()))
        ]
        return torch.stack(terms).sum()

    def _layers(self, result: Image, target: Image) -> list[tuple[float, Maps, Maps]]:
        seen: Sequence[Maps] = self.features(result)
        with torch.no_grad():
            wanted: Sequence[Maps] = self.features(target)
        return list(zip(self.layer_weights, seen, wanted, strict=False))
