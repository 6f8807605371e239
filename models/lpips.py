"""LPIPS: how different two images look, by what a network sees in them (Zhang et al., CVPR 2018; heads of version 0.1).

Weights have torchvision's names, `features.N.weight`; those of the heads are `heads.I.weight`, counted from 0.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdam.models.blocks import Maps
from hdam.models.image_metrics import PerImage
from hdam.models.perceptual import IMAGENET_MEAN, IMAGENET_STD
from hdam.models.structures import Image

SMALLEST_LENGTH = 1e-10
"""Added to the length of a pixel's features before they are divided by it, as published."""
SMALLEST_SIDE = 32
"""Pixels; of smaller images AlexNet's last layers see nothing."""


class Layer(NamedTuple):
    """A convolution and its ReLU."""

    number: int
    """Among torchvision's `features`."""
    width: int
    kernel: int = 3
    stride: int = 1
    pool: int = 0
    """Side of the max pooling before it, which halves the maps; 0: none."""
    is_compared: bool = False


LPIPS_LAYOUTS: dict[str, tuple[Layer, ...]] = {
    "lpips-alex": (
        Layer(0, 64, kernel=11, stride=4, is_compared=True),
        Layer(3, 192, kernel=5, pool=3, is_compared=True),
        Layer(6, 384, pool=3, is_compared=True),
        Layer(8, 256, is_compared=True),
        Layer(10, 256, is_compared=True),
    ),
    "lpips-vgg16": (
        Layer(0, 64),
        Layer(2, 64, is_compared=True),
        Layer(5, 128, pool=2),
        Layer(7, 128, is_compared=True),
        Layer(10, 256, pool=2),
        Layer(12, 256),
        Layer(14, 256, is_compared=True),
        Layer(17, 512, pool=2),
        Layer(19, 512),
        Layer(21, 512, is_compared=True),
        Layer(24, 512, pool=2),
        Layer(26, 512),
        Layer(28, 512, is_compared=True),
    ),
}
PADDINGS = {11: 2, 5: 2, 3: 1}
"""Zeros around the maps, by the kernel's side."""


class Lpips(nn.Module):
    """The frozen network `lpips-alex` or `lpips-vgg16` and its heads, to be filled with weights (`load_lpips`)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: str) -> None:
        super().__init__()
        self.layout = LPIPS_LAYOUTS[network]
        self.features = nn.ModuleDict()
        before = 3
        for layer in self.layout:
            self.features[str(layer.number)] = nn.Conv2d(
                before, layer.width, layer.kernel, stride=layer.stride, padding=PADDINGS[layer.kernel]
            )
            before = layer.width
        compared = [layer.width for layer in self.layout if layer.is_compared]
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in compared)
        # The published scaling, shift (−.030, −.088, −.188) and scale (.458, .448, .450) of images in −1…1, is this.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, result: Image, truth: Image) -> PerImage:
        """Distance of images in 0…1; 0 is ideal. Raises ValueError for images smaller than SMALLEST_SIDE.

        Sum over the compared layers of the mean over pixels of Σ_c w_c (a_c − b_c)², a and b being the features of a
        pixel, scaled to length 1. Convolutions are computed in float32: other batches may give other last digits.
        """
        height, width = result.shape[-2:]
        if min(height, width) < SMALLEST_SIDE:
            raise ValueError(f"images of {height}×{width} pixels; LPIPS needs at least {SMALLEST_SIDE}×{SMALLEST_SIDE}")
        pairs = zip(self.heads, self._directions(result), self._directions(truth), strict=True)
        terms = [head((a - b).square()).double().mean(dim=(1, 2, 3)) for head, a, b in pairs]
        return torch.stack(terms).sum(0)

    def _directions(self, image: Image) -> list[Maps]:
        """Maps of the compared layers, the features of every pixel scaled to length 1."""
        out = (image - self.mean) / self.std
        found = []
        for layer in self.layout:
            if layer.pool:
                out = F.max_pool2d(out, layer.pool, stride=2)
            out = F.relu(self.features[str(layer.number)](out))
            if layer.is_compared:
                length = out.square().sum(1, keepdim=True).sqrt()
                found.append(out / (length + SMALLEST_LENGTH))
        return found


def lpips_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a network and its heads."""
    with torch.device("meta"):  # which takes no memory
        return {name: tuple(tensor.shape) for name, tensor in Lpips(network).state_dict().items()}
