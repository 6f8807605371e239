"""Checkpoints as the published code writes them: state dicts by part, beside optimisers and an epoch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hdam.models.weights import WeightsError, read_plain

Family = Literal["dam", "hdam", "fomm", "regionmm"]
PARTS = ("kp_detector", "region_predictor", "generator", "bg_predictor", "avd_network", "discriminator")
DETECTOR_PART: Mapping[Family, str] = {
    "dam": "kp_detector",
    "hdam": "kp_detector",
    "fomm": "kp_detector",
    "regionmm": "region_predictor",
}
_FIRST_LAYER = "discs.1.down_blocks.0.conv."


class PublishedFile(NamedTuple):
    """What a published checkpoint holds."""

    tensors: dict[str, Tensor]
    """By part and name, `kp_detector.kp.weight`."""
    left_out: tuple[str, ...]
    """What is not taken, with the reason where it is no matter of course."""


def read_published(path: Path, family: Family) -> PublishedFile:
    """The parts of a model in a `.pth.tar` or `.pth`, of any version of torch; nothing in it is run.

    Raises WeightsError for a file that cannot be read so, and one that holds no such model.
    """
    parts = read_plain(path)
    if not isinstance(parts, dict):
        raise WeightsError(f"{path}: expected a dictionary of parts ({', '.join(PARTS)}), found something else")
    missing = [part for part in (DETECTOR_PART[family], "generator") if part not in parts]
    if missing:
        held = ", ".join(map(str, list(parts)[:6])) or "nothing"
        raise WeightsError(f"{path} has no part {missing[0]}, as a published {family} has; it holds {held}")
    left_out = [str(part) for part in parts if part not in PARTS]
    if (inputs := _discriminator_inputs(parts.get("discriminator"))) != 3:
        left_out.append(
            f"discriminator (it takes {inputs} channels, heat maps besides the image; ours takes the image)"
        )
    taken = [part for part in PARTS if part in parts and (part != "discriminator" or inputs == 3)]
    tensors = {f"{part}.{name}": tensor for part in taken for name, tensor in _state(parts[part], part, path).items()}
    return PublishedFile(tensors, tuple(left_out))


def write_published(parts: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Write state dicts by part as `torch.save` does; a temporary name first, so that `path` is whole or absent."""
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        torch.save({part: dict(state) for part, state in parts.items()}, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _state(value: Any, part: str, path: Path) -> dict[str, Tensor]:
    is_state = isinstance(value, dict) and all(isinstance(tensor, Tensor) for tensor in value.values())
    if not is_state or not value:
        raise WeightsError(f"{path}: part {part} is no dictionary of tensors by name")
    return dict(value)


def _discriminator_inputs(state: Any) -> int:
    """Channels that a discriminator looks at; FOMM has some that see the anchors' heat maps too."""
    if isinstance(state, dict):
        for name in (f"{_FIRST_LAYER}weight", f"{_FIRST_LAYER}weight_orig"):
            if isinstance(state.get(name), Tensor) and state[name].dim() == 4:
                return int(state[name].shape[1])
    return 3
