"""The recipe's optimisers (supplementary, section 1)."""

from typing import NamedTuple

import torch
from torch import nn
from torch.optim import Adam

from hdam.models.model import MotionModel
from hdam.models.objective import AvdObjective, Objective


class Optimisers(NamedTuple):
    """One Adam over the model's parts (the same steps as one Adam each), and one for the discriminator."""

    model: Adam
    discriminator: Adam | None


def build_optimisers(objective: Objective | AvdObjective, *, lr: float, betas: tuple[float, float]) -> Optimisers:
    """Parameter groups are named after the model's parts."""
    groups = [
        {"name": name, "params": [p for module in modules for p in module.parameters()]}
        for name, modules in model_parts(objective.model).items()
    ]
    discriminator = objective.discriminator
    return Optimisers(
        Adam(groups, lr=lr, betas=betas),
        None if discriminator is None else Adam(discriminator.parameters(), lr=lr, betas=betas),
    )


def model_parts(model: MotionModel) -> dict[str, list[nn.Module]]:
    """The parts that the published code optimises separately: `generator` includes the flow, and AVD comes last."""
    if model.avd is not None:
        return {"avd": [model.avd]}
    parts: dict[str, list[nn.Module]] = {
        "detector": [model.detector],
        "generator": [model.flow, model.generator],
    }
    if model.background is not None:
        parts["background"] = [model.background]
    return parts


def clip_detector(model: MotionModel, largest: float) -> torch.Tensor:
    """Scale the detector's gradient (attention included) to a norm of at most `largest`; returns the norm before."""
    return nn.utils.clip_grad_norm_(model.detector.parameters(), largest)
