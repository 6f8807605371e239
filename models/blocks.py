"""Building blocks shared by all networks: convolutions, the hourglass, anti-aliased downsampling."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hdam.models.config import Reading

Maps = Float[Tensor, "batch _channel _height _width"]
"""Channels and resolution may change from argument to result."""


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU; keeps the resolution."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Maps) -> Maps:
        """Maps of the same resolution, not negative."""
        return F.relu(self.norm(self.conv(x)))


class DownBlock(ConvBlock):
    """A 3×3 block at the full resolution, then 2×2 average pooling."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel=3)

    def forward(self, x: Maps) -> Maps:
        """Maps of half the resolution."""
        return F.avg_pool2d(super().forward(x), 2)


class UpBlock(ConvBlock):
    """Nearest-neighbour upsampling by two, then a 3×3 block."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel=3)

    def forward(self, x: Maps) -> Maps:
        """Maps of twice the resolution."""
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class ResidualBlock(nn.Module):
    """Pre-activation residual block: (batch norm, ReLU, 3×3 convolution) twice, plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Maps) -> Maps:
        """Maps of the same shape; nothing is clipped after the sum."""
        out = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(out)))


class Encoder(nn.Module):
    """A chain of down blocks; level i has min(max_width, width·2^(i+1)) channels."""

    def __init__(self, inputs: int, *, width: int, max_width: int, num_blocks: int) -> None:
        super().__init__()
        self.widths = [inputs] + [min(max_width, width * 2 ** (i + 1)) for i in range(num_blocks)]
        self.blocks = nn.ModuleList(DownBlock(self.widths[i], self.widths[i + 1]) for i in range(num_blocks))

    def forward(self, x: Maps) -> list[Maps]:
        """The input and the output of every block, finest first."""
        levels = [x]
        for block in self.blocks:
            levels.append(block(levels[-1]))
        return levels


class Decoder(nn.Module):
    """Up blocks that concatenate, after each, the encoder's maps of the same resolution, down to the raw input."""

    def __init__(self, inputs: int, *, width: int, max_width: int, num_blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for i in reversed(range(num_blocks)):
            below = min(max_width, width * 2 ** (i + 1))
            self.blocks.append(UpBlock(below if i == num_blocks - 1 else 2 * below, min(max_width, width * 2**i)))
        self.outputs = min(max_width, width) + inputs

    def forward(self, levels: list[Maps]) -> Maps:
        """Maps of the finest level's resolution: new channels, then that level itself."""
        out = levels[-1]
        for block, skip in zip(self.blocks, reversed(levels[:-1]), strict=True):
            out = torch.cat([block(out), skip], 1)
        return out


class Hourglass(nn.Module):
    """Encoder and decoder; returns `width` new channels followed by the raw input."""

    def __init__(self, inputs: int, *, width: int, max_width: int, num_blocks: int) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, width=width, max_width=max_width, num_blocks=num_blocks)
        self.decoder = Decoder(inputs, width=width, max_width=max_width, num_blocks=num_blocks)
        self.outputs = self.decoder.outputs
        self.num_blocks = num_blocks

    def forward(self, x: Maps) -> Maps:
        """Maps of the same resolution. Raises ValueError where it cannot be halved often enough."""
        if x.shape[-1] % 2**self.num_blocks or x.shape[-2] % 2**self.num_blocks:
            raise ValueError(
                f"an hourglass of {self.num_blocks} blocks halves its input {self.num_blocks} times, but got "
                f"{x.shape[-2]}×{x.shape[-1]} pixels; use fewer num_blocks or a larger scale"
            )
        return self.decoder(self.encoder(x))


class AntiAliasDownsample(nn.Module):
    """Gaussian blur, then fewer pixels; `scale` is 1, 1/2, 1/4 or 1/8.

    Under `released` every (1/scale)-th pixel is kept, starting with the first, which moves the picture's centre.
    Under `paper` the border pixels' centres stay where they are.
    """

    kernel: Tensor

    def __init__(self, scale: float, *, reading: Reading) -> None:
        super().__init__()
        if scale not in (1, 0.5, 0.25, 0.125):
            raise ValueError(f"scale={scale} of a downsampled image; use 1, 0.5, 0.25 or 0.125")
        self.stride = round(1 / scale)
        self.reading = reading
        self.register_buffer("kernel", gaussian_kernel(scale), persistent=False)

    def forward(self, x: Maps) -> Maps:
        """The same channels at `scale` times the resolution."""
        if self.stride == 1:
            return x
        channels, margin = x.shape[1], self.kernel.shape[-1] // 2
        kernel = self.kernel.expand(channels, 1, -1, -1)
        if self.reading == "released":
            return F.conv2d(F.pad(x, [margin] * 4), kernel, stride=self.stride, groups=channels)
        blurred = F.conv2d(F.pad(x, [margin] * 4, mode="replicate"), kernel, groups=channels)
        size = (x.shape[-2] // self.stride, x.shape[-1] // self.stride)
        return F.interpolate(blurred, size=size, mode="bilinear", align_corners=True)


def gaussian_kernel(scale: float) -> Float[Tensor, "1 1 side side"]:
    """Normalised Gaussian of σ = (1/scale − 1)/2 on 2·round(4σ)+1 pixels."""
    sigma = (1 / scale - 1) / 2
    if sigma == 0:
        return torch.ones(1, 1, 1, 1)
    radius = round(4 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    line = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = line[:, None] * line[None, :]
    return (kernel / kernel.sum())[None, None]
