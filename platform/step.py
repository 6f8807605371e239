"""One training step in plain torch: it knows nothing of clusters, files or logs."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn

from hdam.experiments.experiment import Experiment
from hdam.models.objective import Losses, Objective, draw_deformations
from hdam.models.optimisation import build_optimisers, clip_detector
from hdam.models.structures import Image, Transfer
from hdam.platform.augmentation import augment


class NonFiniteError(ValueError):
    """A loss or gradient that is no number; nothing was updated by it."""


class StepResult(NamedTuple):
    """What one step did."""

    losses: Losses
    """By name, weighted and detached; `total` is the sum that was minimised."""
    detector_norm: Tensor
    """Norm of the detector's gradient before clipping."""
    transfer: Transfer


class TrainStep:
    """Forward, backward and update of one batch, and the state that a training is.

    Random numbers of a step follow from (seed, step, rank), so that they are no part of the state.
    """

    def __init__(
        self,
        experiment: Experiment,
        objective: Objective,
        *,
        wrapped: nn.Module | None = None,
        steps_per_epoch: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
    ) -> None:
        """`wrapped` is `objective` inside of DistributedDataParallel, where there are several workers."""
        self.experiment = experiment
        self.objective = objective
        self.forward = wrapped or objective
        self.device = torch.device(device)
        self.rank = rank
        self.step = 0
        """Updates done."""
        optim = experiment.optim
        self.milestones = [milestone.steps(steps_per_epoch) for milestone in optim.milestones]
        self.optimisers = build_optimisers(objective, lr=optim.lr, betas=optim.betas)

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        passed = sum(self.step >= milestone for milestone in self.milestones)
        return self.experiment.optim.lr * self.experiment.optim.decay**passed

    def __call__(self, batch: Mapping[str, Tensor]) -> StepResult:
        """Train on `source` and `driving`, uint8 [pair, height, width, 3].

        Raises NonFiniteError, before any weight changes, when a loss or gradient is no number.
        """
        generator = step_generator(self.experiment.seed, self.step, self.rank)
        source, driving = (batch[name].to(self.device, non_blocking=True) for name in ("source", "driving"))
        source, driving = augment(source, driving, self.experiment.data, generator=generator)
        deformations = draw_deformations(len(source), self.experiment.losses, generator=generator)
        self.objective.train()
        self._zero_grad()
        losses, transfer = self.forward(source, driving, deformations)
        total = torch.stack(list(losses.values())).sum()
        self._check_finite(losses)
        total.backward()
        detector_norm = clip_detector(self.objective.model, self.experiment.optim.detector_clip or float("inf"))
        self._check_finite({"gradient of the detector": detector_norm})
        self._update(self.optimisers.model)
        judged = self._train_discriminator(driving, transfer.image.detach())
        self.step += 1
        values = {name: value.detach() for name, value in (losses | judged).items()}
        return StepResult({"total": total.detach(), **values}, detector_norm, transfer)

    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on from: weights, optimisers, and the steps done, which schedules follow."""
        discriminator, optimisers = self.objective.discriminator, self.optimisers
        return {
            "step": self.step,
            "model": self.objective.model.state_dict(),
            "optimiser": optimisers.model.state_dict(),
            "discriminator": discriminator.state_dict() if discriminator else None,
            "discriminator_optimiser": optimisers.discriminator.state_dict() if optimisers.discriminator else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.step = state["step"]
        self.objective.model.load_state_dict(state["model"])
        self.optimisers.model.load_state_dict(state["optimiser"])
        if self.objective.discriminator is not None and self.optimisers.discriminator is not None:
            self.objective.discriminator.load_state_dict(state["discriminator"])
            self.optimisers.discriminator.load_state_dict(state["discriminator_optimiser"])

    def _train_discriminator(self, driving: Image, painted: Image) -> Losses:
        """The discriminator's own update, on the result that was painted before the generator's."""
        if self.objective.discriminator is None or self.optimisers.discriminator is None:
            return {}
        self._zero_grad()  # what the generator's backward left there
        losses = self.objective.discriminator_losses(driving, painted)
        self._check_finite(losses)
        torch.stack(list(losses.values())).sum().backward()
        average_gradients(self.objective.discriminator)
        self._update(self.optimisers.discriminator)
        return losses

    def _update(self, optimiser: torch.optim.Optimizer) -> None:
        for group in optimiser.param_groups:
            group["lr"] = self.lr
        optimiser.step()

    def _zero_grad(self) -> None:
        for optimiser in self.optimisers:
            if optimiser is not None:
                optimiser.zero_grad(set_to_none=True)

    def _check_finite(self, values: Mapping[str, Tensor]) -> None:
        if torch.stack([value.detach() for value in values.values()]).isfinite().all():
            return
        name, value = next((name, value) for name, value in values.items() if not value.isfinite())
        raise NonFiniteError(
            f"step {self.step + 1}: {name} is {value.item()}; the weights are still those of step {self.step}; "
            f"lower optim.lr (now {self.lr:g}) or look at the data"
        )


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """The random numbers of one worker in one step, on the CPU so that they are the same on every device."""
    digest = hashlib.sha256(f"step {seed} {step} {rank}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def average_gradients(module: nn.Module) -> None:
    """Mean of the gradients over the workers, for a module that is not run through DistributedDataParallel."""
    if not torch.distributed.is_initialized():
        return
    workers = torch.distributed.get_world_size()
    for parameter in module.parameters():
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= workers
