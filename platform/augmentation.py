"""The published augmentation, on whole batches where the model is: the same for both frames of a pair."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hdam.experiments.experiment import DataConfig
from hdam.models.structures import Image

Adjustment = Callable[[Tensor, Tensor], Tensor]
"""Images [..., 3, height, width] in 0…1 and a factor that broadcasts over them → images in 0…1."""

LUMA = (0.299, 0.587, 0.114)
SEXTANTS = (0.0, 2.0, 4.0)
"""Where red, green and blue lie on a colour circle of length 6."""


class Draws(NamedTuple):
    """What happens to each pair of a batch."""

    is_swapped: Tensor
    """[pair]: source and driving change places."""
    is_mirrored: Tensor
    """[pair]"""
    order: Tensor
    """[turn, pair]: the adjustment whose turn it is."""
    factors: Tensor
    """[adjustment, pair]"""

    def of(self, part: slice) -> "Draws":
        """The same for some of the pairs."""
        return Draws(*(values[..., part] for values in self))


def augment(source: Tensor, driving: Tensor, data: DataConfig, draws: Draws) -> tuple[Image, Image]:
    """From frames, uint8 [pair, height, width, 3], to images in 0…1 with the flips and colour jitter of `data`.

    Runs on the frames' device; `draws` are those of `draw` for these pairs. As published, but for the rounding to 8
    bits after each adjustment, which is left out.
    """
    num_pairs, height, width, channels = source.shape
    adjustments = [adjust for adjust, _, _ in adjustments_of(data)]
    pairs = torch.empty(num_pairs, 2, channels, height, width, device=source.device)
    # A CPU is some ten times faster on one pair, which its cache holds, than on a batch, which is always new memory.
    at_once = 1 if source.device.type == "cpu" else num_pairs
    for start in range(0, num_pairs, at_once):
        part = slice(start, start + at_once)
        pairs[part, 0], pairs[part, 1] = source[part].movedim(-1, 1), driving[part].movedim(-1, 1)
        pairs[part] = jitter(flip(pairs[part].div_(255), draws.of(part)), draws.of(part), adjustments)
    return pairs[:, 0], pairs[:, 1]


def draw(num_pairs: int, data: DataConfig, *, generator: torch.Generator) -> Draws:
    """Time flips with probability `time_flip`, mirror images of the others with `horizontal_flip`, and colours.

    The colours of a pair follow from its own order of the adjustments and its own factors.
    """
    flips = torch.rand(2, num_pairs, generator=generator)
    is_swapped = flips[0] < data.time_flip
    adjustments = adjustments_of(data)
    turns, places = torch.rand(2, len(adjustments), num_pairs, generator=generator)
    centre = torch.tensor([[centre] for _, centre, _ in adjustments]).view(-1, 1)
    width = torch.tensor([[width] for _, _, width in adjustments]).view(-1, 1)
    return Draws(
        is_swapped=is_swapped,
        is_mirrored=~is_swapped & (flips[1] < data.horizontal_flip),
        order=turns.argsort(dim=0),
        factors=centre + width * (2 * places - 1),
    )


def adjustments_of(data: DataConfig) -> list[tuple[Adjustment, float, float]]:
    """The adjustments with a width, and the range of their factors as its centre and half-width."""
    adjustments: list[tuple[Adjustment, float, float]] = [
        (brightness, 1.0, data.brightness),
        (saturation, 1.0, data.saturation),
        (hue, 0.0, data.hue),
        (contrast, 1.0, data.contrast),
    ]
    return [adjustment for adjustment in adjustments if adjustment[2] > 0]


def flip(pairs: Tensor, draws: Draws) -> Tensor:
    """Change places and mirror, [pair, 2, 3, height, width]."""
    pairs = _change(pairs, draws.is_swapped, lambda chosen: chosen.flip(1))
    return _change(pairs, draws.is_mirrored, lambda chosen: chosen.flip(-1))


def jitter(pairs: Tensor, draws: Draws, adjustments: Sequence[Adjustment]) -> Tensor:
    """Each pair's adjustments in its order, [pair, 2, 3, height, width]."""
    for turn in draws.order:
        for index, adjust in enumerate(adjustments):
            pairs = _change(pairs, turn == index, adjust, draws.factors[index])
    return pairs


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` times as bright."""
    return (images * factor).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Away from the mean grey of each image, or towards it."""
    mean = _grey(images).mean(dim=(-1, -2), keepdim=True)
    return (images * factor).add_(mean * (1 - factor)).clamp_(0, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Away from the grey of each pixel, or towards it."""
    return (images * factor).add_(_grey(images).mul_(1 - factor)).clamp_(0, 1)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the colour circle by `shift` (1 is once round), as in HSV, but without its cases.

    On a circle of length 6 from red over green to blue, with L the least of the channels and C the largest less L,

        H = ±(1 + (G + B − R − L) / C), negative where B > G
        channel = L + C·clamp(2 − distance of the turned H to the channel's place, 0, 1)
    """
    red, green, blue = images.split(1, dim=-3)
    lowest = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue).sub_(lowest)
    angle = (green + blue).sub_(red).sub_(lowest)
    angle = angle.div_(chroma.clamp_min(torch.finfo(chroma.dtype).tiny)).add_(1).copysign_(green - blue)
    places = torch.tensor(SEXTANTS, device=images.device, dtype=images.dtype).view(3, 1, 1)
    # Both terms lie in −3…3, so that the distance is | |sum| − 6 | or |sum|, and 2 − distance is | |sum| − 3 | − 1.
    sums = angle + ((6 * shift - places + 3) % 6 - 3)
    return sums.abs_().sub_(3).abs_().sub_(1).clamp_(0, 1).mul_(chroma).add_(lowest)


def _change(pairs: Tensor, is_chosen: Tensor, change: Callable[..., Tensor], *factors: Tensor) -> Tensor:
    """`pairs` with the chosen ones changed, by `factors` where there are any; on the CPU it is known which they are."""
    if not is_chosen.any():
        return pairs
    if is_chosen.all():
        return change(pairs, *(_of_pair(factor, pairs) for factor in factors))
    there = is_chosen.nonzero().flatten()
    chosen = pairs[there.to(pairs.device)]
    changed = change(chosen, *(_of_pair(factor[there], chosen) for factor in factors))
    return pairs.index_copy(0, there.to(pairs.device), changed)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=-3)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _of_pair(value: Tensor, pairs: Tensor) -> Tensor:
    """One value per pair, so that it broadcasts over `pairs`."""
    return value.to(pairs.device).view(-1, *[1] * (pairs.dim() - 1))
