"""How many bytes a training keeps and sends, from the networks themselves, which are built without memory."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from hdam.experiments.experiment import Experiment
from hdam.experiments.loading import override
from hdam.models.objective import build_objective
from hdam.models.optimisation import build_optimisers
from hdam.pipelines.errors import InputError
from hdam.platform.prepared import losses_of

WITHOUT_WEIGHTS = {
    "losses.perceptual.network": "pixels",
    "losses.perceptual.weights": "",
    "losses.perceptual.layer_weights": [1.0],
}
"""The perceptual network is neither trained nor kept, so that its weights need not be there to count the rest."""


class Sizes(NamedTuple):
    """Of a training of one model, discriminator included."""

    num_parameters: int
    """Those that are trained."""
    gradient_bytes: int
    checkpoint_bytes: int
    """All tensors of a checkpoint: weights, running statistics, and Adam's two means and step count. The file is larger
    by what names them, some hundred bytes each."""


def training_sizes(experiment: Experiment) -> Sizes:
    """Sizes of the model's own training. Raises InputError for settings that do not fit each other."""
    settings = override(experiment, WITHOUT_WEIGHTS)
    _check_settings(settings)
    with torch.device("meta"):
        objective = build_objective(settings.model, settings.losses)
        optimisers = build_optimisers(objective, lr=settings.optim.lr, betas=settings.optim.betas)
    trained = [
        parameter
        for optimiser in optimisers
        if optimiser is not None
        for group in optimiser.param_groups
        for parameter in group["params"]
    ]
    gradients = num_bytes(trained)
    step_counts = len(trained) * torch.finfo(torch.float32).bits // 8
    networks = [objective.model, objective.discriminator]
    kept = sum(num_bytes(network.state_dict().values()) for network in networks if network is not None)
    return Sizes(
        num_parameters=sum(parameter.numel() for parameter in trained),
        gradient_bytes=gradients,
        checkpoint_bytes=kept + 2 * gradients + step_counts,
    )


def _check_settings(settings: Experiment) -> None:
    try:
        with torch.device("meta"):
            losses_of(settings)
    except InputError:
        losses_of(settings)  # a network of the user's own may need numbers, which the device "meta" has not


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Of all of them together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
