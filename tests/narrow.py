"""The model's full depth in code, at widths that run in milliseconds."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hdam.models.config import (
    AnchorConfig,
    BackgroundConfig,
    DetectorConfig,
    DiscriminatorConfig,
    FlowConfig,
    GeneratorConfig,
    LossConfig,
    ModelConfig,
    PerceptualConfig,
)
from hdam.models.objective import Objective, build_objective

WIDTHS = {"width": 4, "max_width": 8}
PIXELS = PerceptualConfig(network="pixels", scales=(1.0, 0.5), layer_weights=(10.0,))


def narrow_model(**changes: Any) -> ModelConfig:
    """HDAM with 4 motion and 2 intermediate anchors; `changes` replaces whole parts."""
    config = ModelConfig(
        anchors=AnchorConfig(num_motion=4, num_intermediate=2),
        detector=DetectorConfig(**WIDTHS, num_blocks=3, attention_width=8),
        flow=FlowConfig(**WIDTHS, num_blocks=3),
        generator=GeneratorConfig(**WIDTHS, num_bottleneck_blocks=1),
        background=BackgroundConfig(**WIDTHS, num_blocks=3),
        discriminator=DiscriminatorConfig(**WIDTHS),
    )
    return replace(config, **changes)


def narrow_objective(losses: LossConfig | None = None, **changes: Any) -> Objective:
    """Its training objective, comparing colours; random weights of a fixed seed, affine heads included."""
    torch.manual_seed(0)
    objective = build_objective(narrow_model(**changes), losses or LossConfig(perceptual=PIXELS))
    torch.nn.init.normal_(objective.model.detector.affine_head.weight, std=0.01)
    return objective


def random_images(*size: int, batch: int = 2, seed: int = 0) -> Tensor:
    """Smooth random pictures, [batch, 3, height, width] in 0…1; square if one side is given."""
    height, width = (size[0], size[-1])
    coarse = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
