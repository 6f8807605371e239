"""Published checkpoints made from the reference tensors and from small models: no published file can be had here."""

import torch
from reference import NAMES
from safetensors.torch import load_file
from small_models import small_model

from hdam.models.discriminator import Discriminator
from hdam.models.published import export_published

ALL_NAMES = (*NAMES, "regionmm")
FAMILIES = {"dam": "dam", "hdam": "hdam", "fomm": "fomm", "hdam_mgif": "hdam", "regionmm": "regionmm"}
TOLD = {
    "dam": {},
    "hdam": {"model.ignored": [1, 4]},
    "fomm": {},
    "hdam_mgif": {"model.generator.has_skips": False},
    "regionmm": {},
}
"""What the published configurations say and shapes do not."""
OTHERS = ["optimizer_generator", "epoch"]
SMALL = {
    "model.reading": "released",
    "model.detector.max_width": 64,
    "model.discriminator.width": 2,
    "model.discriminator.num_blocks": 1,
}


def reference_files(golden, folder):
    """The reference models as published checkpoints, by name."""
    return {name: save(reference_parts(golden, name), folder / f"{name}.pth.tar") for name in ALL_NAMES}


def reference_parts(golden, name):
    """State dicts of a reference model, in float32."""
    parts = {}
    for key, tensor in load_file(golden / f"{name}_state.safetensors").items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = tensor.float() if tensor.is_floating_point() else tensor
    return parts


def small_parts(changes=None):
    """State dicts of a small HDAM with a discriminator."""
    loaded = small_model({**SMALL, **(changes or {})})
    return export_published(loaded.model, Discriminator(loaded.experiment.model.discriminator))


def save(parts, path, **options):
    """What the published trainers write: the parts, an optimiser that has made a step, and the epoch."""
    weight = torch.ones(3, requires_grad=True)
    optimiser = torch.optim.Adam([weight], betas=(0.5, 0.999))
    weight.sum().backward()
    optimiser.step()
    torch.save({**parts, "optimizer_generator": optimiser.state_dict(), "epoch": 99}, path, **options)
    return path


def flat(parts):
    """Tensors by part and name."""
    return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
