"""The published augmentation, on whole batches where the model is: the same for both frames of a pair."""

from collections.abc import Callable

import torch
from torch import Tensor

from hdam.experiments.experiment import DataConfig
from hdam.models.structures import Image

Adjustment = Callable[[Tensor, Tensor], Tensor]
"""Images [..., 3, height, width] in 0…1 and a factor that broadcasts over them → images in 0…1."""

LUMA = (0.299, 0.587, 0.114)


def augment(source: Image, driving: Image, data: DataConfig, *, generator: torch.Generator) -> tuple[Image, Image]:
    """Flips and colour jitter of `data` for a batch of pairs in 0…1; every draw is taken from `generator` (CPU)."""
    pairs = torch.stack([source, driving], dim=1)
    pairs = flip(pairs, time=data.time_flip, horizontal=data.horizontal_flip, generator=generator)
    pairs = jitter(pairs, data, generator=generator)
    return pairs[:, 0], pairs[:, 1]


def flip(pairs: Tensor, *, time: float, horizontal: float, generator: torch.Generator) -> Tensor:
    """Source and driving change places with probability `time`; the other pairs are mirrored with `horizontal`.

    `pairs` is [pair, 2, 3, height, width].
    """
    draws = torch.rand(2, len(pairs), generator=generator)
    is_swapped = draws[0] < time
    is_mirrored = ~is_swapped & (draws[1] < horizontal)
    pairs = torch.where(_of_pair(is_swapped, pairs), pairs.flip(1), pairs)
    return torch.where(_of_pair(is_mirrored, pairs), pairs.flip(-1), pairs)


def jitter(pairs: Tensor, data: DataConfig, *, generator: torch.Generator) -> Tensor:
    """One draw of factors and one random order per pair, [pair, 2, 3, height, width].

    As published, but for the rounding to 8 bits after each adjustment, which is left out.
    """
    widths: list[tuple[Adjustment, float, float]] = [
        (brightness, 1.0, data.brightness),
        (saturation, 1.0, data.saturation),
        (hue, 0.0, data.hue),
        (contrast, 1.0, data.contrast),
    ]
    adjustments = [part for part in widths if part[2] > 0]
    if not adjustments:
        return pairs
    draws = torch.rand(2, len(adjustments), len(pairs), generator=generator)
    order = draws[0].argsort(dim=0)
    for turn in order:
        pairs = pairs.clone()
        for index, (adjust, centre, width) in enumerate(adjustments):
            chosen = (turn == index).nonzero().flatten()
            if len(chosen):
                factor = centre + width * (2 * draws[1, index, chosen] - 1)
                if adjust is not hue:
                    factor = factor.clamp(min=0)
                there = chosen.to(pairs.device)
                pairs[there] = adjust(pairs[there], _of_pair(factor, pairs))
    return pairs


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` times as bright."""
    return (images * factor).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Away from the mean grey of each image, or towards it."""
    mean = _grey(images).mean(dim=(-1, -2), keepdim=True)
    return (mean + factor * (images - mean)).clamp(0, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Away from the grey of each pixel, or towards it."""
    grey = _grey(images)
    return (grey + factor * (images - grey)).clamp(0, 1)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the colour circle by `shift` (1 is once round), in HSV."""
    highest, lowest = images.amax(-3, keepdim=True), images.amin(-3, keepdim=True)
    chroma = highest - lowest
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    red, green, blue = images.split(1, dim=-3)
    sextant = torch.where(
        highest == red,
        ((green - blue) / safe) % 6,
        torch.where(highest == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    turned = sextant + 6 * shift
    # f(n) = V − C·max(0, min(k, 4 − k, 1)), k = (n + H) mod 6, for n = 5, 3, 1: HSV to RGB without cases.
    corner = torch.tensor([5.0, 3.0, 1.0], device=images.device, dtype=images.dtype).view(3, 1, 1)
    k = (corner + turned) % 6
    return highest - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor(LUMA, device=images.device, dtype=images.dtype).view(3, 1, 1)
    return (images * weights).sum(-3, keepdim=True)


def _of_pair(value: Tensor, pairs: Tensor) -> Tensor:
    """One value per pair, so that it broadcasts over `pairs`."""
    return value.to(pairs.device).view(-1, *[1] * (pairs.dim() - 1))
