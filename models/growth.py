"""Weights of a model fill one that has more: DAM becomes HDAM, and any model gets an AVD network."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hdam.models.config import AnchorConfig, ModelConfig
from hdam.models.model import MotionModel
from hdam.models.weights import WeightsError, fill

_ATTENTION = "detector.attention."
_AVD = "avd."
_HEATMAP_HEAD = ("detector.heatmap_head.weight", "detector.heatmap_head.bias")
_AFFINE_HEAD = ("detector.affine_head.weight", "detector.affine_head.bias")
_NUMBERS_PER_AFFINE = 4


class Growth(NamedTuple):
    """Where the weights of a grown model come from; every parameter and buffer is named once."""

    copied: tuple[str, ...]
    """Taken over whole."""
    grown: tuple[str, ...]
    """The detector's heads: the rows of motion anchors and root taken over, those of intermediate anchors fresh."""
    fresh: tuple[str, ...]
    """Left as the model was built: attention or AVD network, where the smaller model has none."""


def grow_weights(model: MotionModel, tensors: Mapping[str, Tensor], *, anchors: AnchorConfig, origin: str) -> Growth:
    """Fill `model`, a newly built HDAM, from the weights of a model that has `anchors` and is otherwise the same.

    The new intermediate anchors begin as the published code's do: their heat maps with the random rows that `model`
    was built with, their affines as the identity. A single affine map for all anchors is taken over whole. Where
    `anchors` has intermediate anchors already, as many of them as both models have are taken over, and the attention
    too.

    `origin` names the tensors in errors. Raises WeightsError, before anything is copied, where a tensor is missing,
    unknown or of another shape, or where the two models differ in more than intermediate anchors.
    """
    _check_anchors(model.config.anchors, anchors, origin)
    state = model.state_dict()
    fresh = () if anchors.num_intermediate else tuple(name for name in state if name.startswith(_ATTENTION))
    stray = [name for name in fresh if name in tensors]
    if stray:
        raise WeightsError(f"{origin} does not fit a DAM, which has no attention: unknown {', '.join(stray[:3])}")
    grown = {
        name: _grow_head(name, tensors[name], state[name], model.config, anchors, origin)
        for name in _heads(model.config, anchors)
        if name in tensors  # `fill` names those that are not
    }
    fill(model, {**tensors, **grown, **{name: state[name] for name in fresh}}, origin=origin)
    copied = tuple(name for name in state if name not in grown and name not in fresh)
    return Growth(copied, tuple(grown), fresh)


def add_avd(model: MotionModel, tensors: Mapping[str, Tensor], *, origin: str) -> Growth:
    """Fill `model`, newly built with an AVD network, from the weights of the same model without one.

    `origin` names the tensors in errors. Raises WeightsError, before anything is copied, where one is missing, unknown
    or of another shape.
    """
    state = model.state_dict()
    fresh = tuple(name for name in state if name.startswith(_AVD))
    fill(model, {**tensors, **{name: state[name] for name in fresh}}, origin=origin)
    return Growth(tuple(name for name in state if name not in fresh), (), fresh)


def _check_anchors(ours: AnchorConfig, theirs: AnchorConfig, origin: str) -> None:
    """Growing changes the intermediate level and nothing else."""
    if not ours.num_intermediate:
        raise WeightsError(
            f"{origin} cannot grow into a model without intermediate anchors; "
            "set model.anchors.num_intermediate to 1 or more"
        )
    if not theirs.has_root:
        raise WeightsError(f"{origin} has no root anchor to grow intermediate anchors below; use a DAM")
    if theirs.num_motion != ours.num_motion:
        raise WeightsError(
            f"{origin} has {theirs.num_motion} motion anchors, this model {ours.num_motion}; "
            "model.anchors.num_motion must be the same in both"
        )


def _heads(config: ModelConfig, anchors: AnchorConfig) -> tuple[str, ...]:
    """Tensors that have rows for every anchor, where their number changes."""
    if anchors.num_intermediate == config.anchors.num_intermediate:
        return ()
    return _HEATMAP_HEAD if config.detector.has_shared_affine else _HEATMAP_HEAD + _AFFINE_HEAD


def _grow_head(
    name: str, tensor: Tensor, built: Tensor, config: ModelConfig, anchors: AnchorConfig, origin: str
) -> Tensor:
    """Rows of motion anchors, of shared and of new intermediate anchors, and of the root, in this order."""
    per_anchor = _NUMBERS_PER_AFFINE if name in _AFFINE_HEAD else 1
    expected = (per_anchor * anchors.total, *built.shape[1:])
    if tensor.shape != expected:
        raise WeightsError(
            f"{origin} does not fit a model of {anchors.total} anchors: "
            f"{name} is {tuple(tensor.shape)}, expected {expected}"
        )
    shared = min(anchors.num_intermediate, config.anchors.num_intermediate)
    kept = per_anchor * (anchors.num_motion + shared)
    new = built[kept:-per_anchor]
    if name in _AFFINE_HEAD:
        new = _identity_rows(new)
    theirs = tensor.to(built)
    return torch.cat([theirs[:kept], new, theirs[-per_anchor:]])


def _identity_rows(rows: Tensor) -> Tensor:
    """Rows of the affine head, weights or biases, with which an anchor's affine is the identity everywhere."""
    if rows.dim() > 1:
        return torch.zeros_like(rows)
    return torch.eye(2).flatten().repeat(len(rows) // _NUMBERS_PER_AFFINE).to(rows)
