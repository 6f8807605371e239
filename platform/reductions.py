"""What a training step makes of losses and gradients: means over micro-batches and workers, norms, and their faults."""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed
from torch import Tensor, nn

from hdam.models.losses import Losses


def mean_losses(found: Sequence[Losses]) -> Losses:
    """Mean of every loss over micro-batches of one size."""
    return {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}


def non_finite(values: Mapping[str, Tensor]) -> str:
    """The first of `values` that is no number, as `perceptual is nan`; empty where there is none."""
    if torch.stack([value.detach() for value in values.values()]).isfinite().all():
        return ""
    return next(f"{name} is {value.item()}" for name, value in values.items() if not value.isfinite())


def all_agree(is_so: bool, device: torch.device) -> bool:
    """Whether it is so on all workers; each of them has to ask."""
    if not torch.distributed.is_initialized():
        return is_so
    vote = torch.tensor(float(is_so), device=device)
    torch.distributed.all_reduce(vote, op=torch.distributed.ReduceOp.MIN)
    return bool(vote.item())


def norm_of_gradients(modules: Iterable[nn.Module]) -> Tensor:
    """L2 norm of all gradients below `modules`."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def average_gradients(module: nn.Module) -> None:
    """Mean of the gradients over the workers, for a module that is not run through DistributedDataParallel."""
    if not torch.distributed.is_initialized():
        return
    workers = torch.distributed.get_world_size()
    for parameter in module.parameters():
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= workers
