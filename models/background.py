"""Motion of everything that is not the object: one small map per pair of images."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdam.models.blocks import AntiAliasDownsample, Encoder
from hdam.models.config import BackgroundConfig, Reading
from hdam.models.structures import Image

MovingBackground = Literal["shift", "affine", "perspective"]
_IDENTITY: dict[MovingBackground, list[float]] = {
    "shift": [0, 0],
    "affine": [1, 0, 0, 0, 1, 0],
    "perspective": [1, 0, 0, 0, 1, 0, 0, 0],
}


class BackgroundPredictor(nn.Module):
    """Encoder over both images, spatial mean, one linear layer; starts at the identity.

    The supplementary feeds it images at a quarter of the resolution, the published code the full one.
    """

    def __init__(self, config: BackgroundConfig, *, reading: Reading) -> None:
        super().__init__()
        if config.kind == "zero":
            raise ValueError("model.background.kind=zero has no predictor; leave the predictor out")
        self.kind: MovingBackground = config.kind
        self.downsample = AntiAliasDownsample(config.paper_scale if reading == "paper" else 1, reading=reading)
        self.encoder = Encoder(6, width=config.width, max_width=config.max_width, num_blocks=config.num_blocks)
        identity = torch.tensor(_IDENTITY[config.kind], dtype=torch.float32)
        self.head = nn.Linear(self.encoder.widths[-1], len(identity))
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(identity)

    def forward(self, source: Image, driving: Image) -> Float[Tensor, "batch 3 3"]:
        """Homogeneous matrix that maps driving to source coordinates of the background."""
        pair = self.downsample(torch.cat([source, driving], 1))
        if min(pair.shape[-2:]) < 2 ** len(self.encoder.blocks):
            raise ValueError(
                f"the background predictor halves its input {len(self.encoder.blocks)} times, but got "
                f"{pair.shape[-2]}×{pair.shape[-1]} pixels; lower model.background.num_blocks or raise paper_scale"
            )
        return background_matrix(self.head(self.encoder(pair)[-1].mean((2, 3))), self.kind)


def background_matrix(numbers: Float[Tensor, "batch number"], kind: MovingBackground) -> Float[Tensor, "batch 3 3"]:
    """3×3 matrix from a translation (2 numbers), the first two rows (6) or all but the last entry (8)."""
    batch = numbers.shape[0]
    if kind == "shift":
        unit = torch.eye(3, dtype=numbers.dtype, device=numbers.device).expand(batch, 3, 3)
        return torch.cat([unit[:, :, :2], torch.cat([numbers, unit[:, 2:, 2]], 1)[:, :, None]], 2)
    rest = torch.tensor([0.0, 0.0, 1.0], dtype=numbers.dtype, device=numbers.device)[numbers.shape[1] - 9 :]
    return torch.cat([numbers, rest.expand(batch, -1)], 1).view(batch, 3, 3)
