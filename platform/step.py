"""One training step in plain torch: it knows nothing of clusters, files or logs."""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hdam.experiments.experiment import Experiment
from hdam.models.avd import PoseScales
from hdam.models.deformation import Deformations
from hdam.models.losses import Losses
from hdam.models.objective import AvdObjective, Objective
from hdam.models.optimisation import build_optimisers, clip_detector, model_parts
from hdam.models.structures import Image
from hdam.platform.augmentation import augment, draw
from hdam.platform.reductions import all_agree, average_gradients, mean_losses, non_finite, norm_of_gradients


class NonFiniteError(ValueError):
    """Losses or gradients that were no numbers for so many steps in a row that training was ended."""


class StepResult(NamedTuple):
    """What one step did."""

    losses: Losses
    """By name, weighted and detached; `total` is the sum that was minimised."""
    detector_norm: Tensor
    """Norm of the detector's gradient before clipping."""
    fault: str
    """What was no number, as `perceptual is nan`, so that an update was left out; empty for a whole step."""
    is_own_fault: bool
    """Whether it was found on this worker's share of the batch."""


class MicroBatch(NamedTuple):
    """The pairs of one forward pass."""

    source: Image
    driving: Image
    drawn: Deformations | PoseScales
    """What the objective draws at random for these pairs."""


class TrainStep:
    """Forward, backward and update of one batch, and the state that a training is.

    A batch consists of so many micro-batches, however many workers there are: of `workers`, the one of rank r takes
    those of number r, r + workers, r + 2·workers, …, one after the other, and all gradients are averaged. Random
    numbers of a step follow from (seed, step), so that they are no part of the state; all workers draw those of the
    whole batch and take their share, so that their number does not matter.
    """

    def __init__(
        self,
        experiment: Experiment,
        objective: Objective | AvdObjective,
        *,
        wrapped: nn.Module | None = None,
        steps_per_epoch: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        workers: int = 1,
        micro_batches: int | None = None,
    ) -> None:
        """`wrapped` is `objective` inside of DistributedDataParallel, where there are several workers.

        `micro_batches`, which `workers` divides, is the number of parts of a batch; None is one for each worker.
        """
        self.experiment = experiment
        self.objective = objective
        self.forward = wrapped or objective
        self.device = torch.device(device)
        self.rank = rank
        self.workers = workers
        self.micro_batches = micro_batches or workers
        self.step = 0
        """Batches seen, which the schedule and the stream follow."""
        self.skipped = 0
        """Steps among them in which something was no number."""
        self.skipped_in_a_row = 0
        optim = experiment.optim
        self.milestones = [milestone.steps(steps_per_epoch) for milestone in optim.milestones]
        self.optimisers = build_optimisers(objective, lr=optim.lr, betas=optim.betas)
        self._buffers = [*objective.model.buffers(), *(objective.discriminator or nn.Module()).buffers()]
        self._kept = [buffer.clone() for buffer in self._buffers]

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        passed = sum(self.step >= milestone for milestone in self.milestones)
        return self.experiment.optim.lr * self.experiment.optim.decay**passed

    def __call__(self, batch: Mapping[str, Tensor]) -> StepResult:
        """Train on this worker's share of a batch: `source` and `driving`, uint8 [pair, height, width, 3].

        Where a loss or gradient of any worker is no number, no worker updates anything, and the result says so; where
        it is one of the discriminator's, whose own update comes last, the discriminator stays as it was.
        """
        self._keep_buffers()
        self.objective.train()
        self._zero_grad()
        losses, painted = self._accumulate(self._draw(batch))
        total = torch.stack(list(losses.values())).sum()
        norms = self._gradient_norms()
        fault, is_own_fault = self._find_fault(losses, norms)
        if not fault:
            self._update(self.optimisers.model)
            judged, fault, is_own_fault = self._train_discriminator(painted)
            losses |= judged
        self._count(fault)
        return StepResult({"total": total, **losses}, norms["gradient of the detector"], fault, is_own_fault)

    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on from: weights, optimisers, and the steps done, which schedules follow."""
        discriminator, optimisers = self.objective.discriminator, self.optimisers
        return {
            "step": self.step,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "model": self.objective.model.state_dict(),
            "optimiser": optimisers.model.state_dict(),
            "discriminator": discriminator.state_dict() if discriminator else None,
            "discriminator_optimiser": optimisers.discriminator.state_dict() if optimisers.discriminator else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.step, self.skipped, self.skipped_in_a_row = (state[n] for n in ("step", "skipped", "skipped_in_a_row"))
        self.objective.model.load_state_dict(state["model"])
        self.optimisers.model.load_state_dict(state["optimiser"])
        if self.objective.discriminator is not None and self.optimisers.discriminator is not None:
            self.objective.discriminator.load_state_dict(state["discriminator"])
            self.optimisers.discriminator.load_state_dict(state["discriminator_optimiser"])

    @property
    def _num_own(self) -> int:
        """Micro-batches that this worker takes."""
        return self.micro_batches // self.workers

    def _draw(self, batch: Mapping[str, Tensor]) -> Iterator[MicroBatch]:
        """The images of this worker's micro-batches, augmented, and what else the objective draws at random."""
        size = len(batch["source"]) // self._num_own
        generator = torch.Generator().manual_seed(step_seed(self.experiment.seed, self.step))
        draws = draw(self.micro_batches * size, self.experiment.data, generator=generator)
        drawn = self.objective.draw(self.micro_batches * size, generator=generator)
        for turn in range(self._num_own):
            number = self.rank + turn * self.workers
            part, own = (slice(place * size, (place + 1) * size) for place in (number, turn))
            # For layers of yours that draw from torch's own generator, such as dropout.
            torch.manual_seed(step_seed(self.experiment.seed, self.step, number))
            source, driving = (batch[name][own].to(self.device, non_blocking=True) for name in ("source", "driving"))
            source, driving = augment(source, driving, self.experiment.data, draws.of(part))
            yield MicroBatch(source, driving, drawn.of(part))

    def _accumulate(self, micro_batches: Iterable[MicroBatch]) -> tuple[Losses, list[tuple[Image, Image]]]:
        """Mean gradients; returns mean losses, and every driving image with what was painted for it, if anything."""
        found: list[Losses] = []
        painted: list[tuple[Image, Image]] = []
        for source, driving, drawn in micro_batches:
            is_last = len(found) == self._num_own - 1
            with contextlib.nullcontext() if is_last else self._apart():
                losses, transfer = self.forward(source, driving, drawn)
                self._backward(losses)
            found.append({name: value.detach() for name, value in losses.items()})
            if transfer is not None:
                painted.append((driving, transfer.image.detach()))
        return mean_losses(found), painted

    def _apart(self) -> contextlib.AbstractContextManager[None]:
        """Gradients are not sent to the other workers yet; the last micro-batch's backward sends the sums."""
        if isinstance(self.forward, DistributedDataParallel):
            return self.forward.no_sync()
        return contextlib.nullcontext()

    def _backward(self, losses: Losses) -> None:
        """Gradients of this micro-batch's part of the mean."""
        (torch.stack(list(losses.values())).sum() / self._num_own).backward()

    def _train_discriminator(self, painted: Iterable[tuple[Image, Image]]) -> tuple[Losses, str, bool]:
        """The discriminator's own update, on the results that were painted before the generator's; and its fault."""
        if self.objective.discriminator is None or self.optimisers.discriminator is None:
            return {}, "", False
        self._keep_buffers()
        self._zero_grad()  # what the generator's backward left there
        found: list[Losses] = []
        for driving, image in painted:
            judged = self.objective.discriminator_losses(driving, image)
            self._backward(judged)
            found.append({name: value.detach() for name, value in judged.items()})
        losses = mean_losses(found)
        average_gradients(self.objective.discriminator)
        norm = norm_of_gradients([self.objective.discriminator])
        fault, is_own_fault = self._find_fault(losses, {"gradient of the discriminator": norm})
        if not fault:
            self._update(self.optimisers.discriminator)
        return losses, fault, is_own_fault

    def _gradient_norms(self) -> Losses:
        """Norms of the gradients of the model's parts; the detector's is clipped."""
        model, largest = self.objective.model, self.experiment.optim.detector_clip or float("inf")
        parts = {name: modules for name, modules in model_parts(model).items() if name != "detector"}
        return {"gradient of the detector": clip_detector(model, largest)} | {
            f"gradient of the {name}": norm_of_gradients(modules) for name, modules in parts.items()
        }

    def _find_fault(self, losses: Losses, norms: Losses) -> tuple[str, bool]:
        """What is no number, and whether this worker's share is to blame; buffers are put back then."""
        fault = non_finite(losses)
        if all_agree(not fault and not non_finite(norms), self.device):
            return "", False
        with torch.no_grad():  # running statistics have seen the batch
            for buffer, kept in zip(self._buffers, self._kept, strict=True):
                buffer.copy_(kept)
        if all_agree(not fault, self.device):
            return non_finite(norms), True  # gradients are those of all workers, and so is the blame
        return fault or "a loss of another worker is no number", bool(fault)

    def _keep_buffers(self) -> None:
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            kept.copy_(buffer)

    def _count(self, fault: str) -> None:
        self.step += 1
        self.skipped += bool(fault)
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if fault else 0

    def _update(self, optimiser: torch.optim.Optimizer) -> None:
        for group in optimiser.param_groups:
            group["lr"] = self.lr
        optimiser.step()

    def _zero_grad(self) -> None:
        for optimiser in self.optimisers:
            if optimiser is not None:
                optimiser.zero_grad(set_to_none=True)


def step_seed(*place: int) -> int:
    """A seed for (seed, step) or (seed, step, micro-batch), in which any other place has another one."""
    digest = hashlib.sha256(f"step {' '.join(map(str, place))}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
