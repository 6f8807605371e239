"""Training of the AVD network, after the rest of a model (RegionMM, section 3.4)."""

import torch
from torch import nn

from hdam.models import losses
from hdam.models.avd import PoseScales, draw_scales
from hdam.models.config import LossConfig
from hdam.models.losses import Losses
from hdam.models.model import MotionModel
from hdam.models.structures import Anchors, Image, Transfer


class AvdObjective(nn.Module):
    """The AVD network shall find the driving anchors from those of the source, and from stretched driving ones.

    Source and driving are frames of one clip. The rest of the model stays as it is, running statistics included.
    """

    discriminator: None = None

    def __init__(self, model: MotionModel, config: LossConfig) -> None:
        """Raises ValueError for a model without an AVD network."""
        super().__init__()
        if model.avd is None:
            raise ValueError("a model without an AVD network; set model.has_avd: true")
        self.model = model
        self.avd = model.avd
        self.config = config
        model.requires_grad_(False)
        model.avd.requires_grad_(True)

    def train(self, mode: bool = True) -> "AvdObjective":
        """Training mode for the AVD network alone."""
        super().train(False)
        self.avd.train(mode)
        return self

    def draw(self, batch: int, *, generator: torch.Generator | None = None) -> PoseScales:
        """The random numbers of one step."""
        return draw_scales(batch, self.model.config.avd, generator=generator)

    def forward(self, source: Image, driving: Image, scales: PoseScales) -> tuple[Losses, None]:
        """Weighted losses by name, their plain sum being the total; nothing is painted."""
        with torch.no_grad():
            identity, truth = self.model.detect(source).motion, self.model.detect(driving).motion
        found: Anchors = self.avd(identity, scales.stretch(truth))
        config = self.config
        return {
            "avd_position": config.avd_position * losses.mean_difference(found.position, truth.position),
            "avd_affine": config.avd_affine * losses.mean_difference(found.affine, truth.affine),
        }, None

    def preview(self, source: Image, driving: Image) -> Transfer:
        """The source in the driving pose, by way of the AVD network; for pictures and scores."""
        return self.model.repose(source, driving)
