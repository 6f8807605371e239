"""Reading and writing weights, checked name by name; nothing is unpickled."""

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hdam.models.config import PerceptualConfig
from hdam.models.lpips import LPIPS_LAYOUTS, Lpips, lpips_shapes
from hdam.models.perceptual import PixelFeatures, VggFeatures, vgg_shapes


class WeightsError(ValueError):
    """Weights that are missing or do not fit, told in one line."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all parameters and buffers as safetensors; a temporary name first, so that `path` is whole or absent."""
    unfinished = path.with_name(path.name + ".partial")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    unfinished.write_bytes(save(tensors))  # `save_file` makes a file that its owner alone can read
    unfinished.replace(path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` from a safetensors file.

    Raises WeightsError where the file is absent or broken, or a tensor is missing, unknown or of another shape.
    """
    fill(model, read_tensors(path), origin=str(path))


def fill(model: nn.Module, tensors: Mapping[str, Tensor], *, origin: str) -> None:
    """Copy `tensors` into `model`, all of them and nothing else; `origin` names them in errors."""
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unknown {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(f"{origin} does not fit this model: {'; '.join(problems[:3])}{more}")
    model.load_state_dict(dict(tensors))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name from `.safetensors`, or from a `.pth` of plain tensors (torch's `weights_only` loading).

    A name that ends in `-` and eight hexadecimal digits, as torchvision's do, is checked against the file's sha256.
    """
    loaded = read_plain(path)
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path}: expected a dictionary of tensors by name, found something else")
    return loaded


def read_plain(path: Path) -> Any:
    """What a weights file holds, checked as in `read_tensors`: tensors and plain values; nothing in it is run."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    _check_digest(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: not readable as weights (it holds more than tensors, or none at all)") from error
    except Exception as error:  # a damaged file makes the readers raise whatever its bytes lead to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: not readable as weights ({reason})") from error


def load_perceptual_features(config: PerceptualConfig) -> nn.Module:
    """The network that the perceptual loss looks through. Raises WeightsError where its weights are not there."""
    if config.network == "pixels":
        return PixelFeatures()
    if not config.weights:
        raise WeightsError(
            f"losses.perceptual.network={config.network} needs its weights: set losses.perceptual.weights to a file "
            "with torchvision's names (vgg19-dcbb9e9d.pth), or set losses.perceptual.network: pixels, which needs none"
        )
    tensors = read_tensors(Path(config.weights))
    _check_names(tensors, config.network, origin=config.weights)
    return VggFeatures(config.network, tensors)


def load_lpips(network: str, path: Path) -> Lpips:
    """`lpips-alex` or `lpips-vgg16` with the weights of a file; raises WeightsError where they do not fit."""
    model = Lpips(network)
    load_weights(model, path)
    return model.eval()


def check_network(tensors: Mapping[str, Tensor], network: str, *, origin: str) -> None:
    """Raise WeightsError unless `tensors` hold all that is taken of a network, in the published widths."""
    _check_names(tensors, network, origin=origin)
    for name, shape in _shapes(network).items():
        found = tuple(tensors[name].shape)
        if found != shape:
            raise WeightsError(f"{origin} holds no {network}: {name} is {found}, expected {shape}")


def _shapes(network: str) -> dict[str, tuple[int, ...]]:
    return lpips_shapes(network) if network in LPIPS_LAYOUTS else vgg_shapes(network)


def _check_names(tensors: Mapping[str, Tensor], network: str, *, origin: str) -> None:
    missing = [name for name in _shapes(network) if name not in tensors]
    if missing:
        raise WeightsError(f"{origin} holds no {network}: {missing[0]} is missing")


def _check_digest(path: Path) -> None:
    stated = re.search(r"-([0-9a-f]{8})$", path.stem)
    if stated is None:
        return
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(stated[1]):
        raise WeightsError(f"{path}: its name states sha256 {stated[1]}…, found {found[:8]}…; fetch the file again")


def digest_of(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of all parameters and buffers: equal weights, equal digest."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
