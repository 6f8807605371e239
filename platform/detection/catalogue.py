"""The detectors there are, which of them are here, and how to get the others; optical flow is one of them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from hdam.pipelines.errors import InputError
from hdam.platform.detection import body_environment, face_files, flow
from hdam.platform.detection.body import BodyDetector
from hdam.platform.detection.body_install import BLACK
from hdam.platform.detection.detector import FrameDetector, IdentityEmbedder
from hdam.platform.detection.face import FaceDetector, FaceEmbedder
from hdam.platform.detection.flow import OpticalFlow

DetectorName = Literal["face", "body", "identity", "flow"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A detector that can be had."""

    purpose: str
    """The metrics that need it, and what it finds."""
    remedy: str
    """The command that gets it."""
    repair: str
    """The command that gets it again."""
    version: Callable[[], str]
    missing: Callable[[], str]
    """Why it is not here; empty where it is."""


class Availability(NamedTuple):
    """Whether a detector can be used."""

    name: DetectorName
    purpose: str
    version: str
    """Empty while it is not here."""
    reason: str
    """Why it is not here; empty where it is."""
    remedy: str


class Checked(NamedTuple):
    """A detector, looked at closely."""

    name: DetectorName
    version: str
    fault: str
    """What is wrong with it; empty where nothing is."""


KINDS: Mapping[DetectorName, Kind] = {
    "face": Kind(
        purpose="AKD of faces: 68 landmarks",
        remedy=face_files.REMEDY,
        repair=face_files.REPAIR,
        version=lambda: f"dlib {face_files.face_version()}",
        missing=lambda: face_files.missing_for_faces(face_files.LANDMARKS_FILE),
    ),
    "body": Kind(
        purpose="AKD and MKR of bodies: 33 joints",
        remedy=body_environment.REMEDY,
        repair=body_environment.REMEDY,
        version=lambda: f"mediapipe {body_environment.VERSION}",
        missing=lambda: body_environment.missing_for_bodies(body_environment.body_dir()),
    ),
    "identity": Kind(
        purpose="AED: 128 numbers of a face",
        remedy=face_files.REMEDY,
        repair=face_files.REPAIR,
        version=lambda: f"dlib {face_files.face_version()}",
        missing=lambda: (
            face_files.missing_for_faces(face_files.LANDMARKS_FILE)
            or face_files.missing_for_faces(face_files.IDENTITY_FILE)
        ),
    ),
    "flow": Kind(
        purpose="warp error: motion of every pixel",
        remedy=flow.REMEDY,
        repair=flow.REPAIR,
        version=lambda: f"OpenCV {flow.flow_version()}",
        missing=flow.missing_for_flow,
    ),
}


def available_detectors() -> dict[DetectorName, Availability]:
    """Every detector: with its version where it is here, else with the reason and the command that gets it."""
    found = {}
    for name, kind in KINDS.items():
        reason = kind.missing()
        found[name] = Availability(name, kind.purpose, "" if reason else kind.version(), reason, kind.remedy)
    return found


@contextlib.contextmanager
def open_detector(name: Literal["face", "body"]) -> Iterator[FrameDetector]:
    """A detector of joints, until the end of the block. Raises InputError where it is not here."""
    require(name)
    if name == "face":
        yield FaceDetector()
        return
    with BodyDetector() as detector:
        yield detector


def open_embedder() -> IdentityEmbedder:
    """The embedder of identities. Raises InputError where it is not here."""
    require("identity")
    return FaceEmbedder()


def open_flow() -> OpticalFlow:
    """The optical flow. Raises InputError where it is not here."""
    require("flow")
    return OpticalFlow()


def require(name: DetectorName) -> None:
    """Raise InputError, which names the command that gets it, unless a detector is here."""
    kind = KINDS[name]
    if reason := kind.missing():
        raise InputError(f"the {name} detector is not here ({reason}); get it: {kind.remedy}")


def check_detector(name: DetectorName) -> Checked:
    """Compare a detector's files with their checksums, and let it look at black frames."""
    kind = KINDS[name]
    if reason := kind.missing():
        return Checked(name, "", f"{reason}; get it: {kind.remedy}")
    try:
        fault = _fault_of_files(name)
        if not fault:
            _try_out(name)
    except InputError as error:
        fault = str(error)
    return Checked(name, kind.version(), fault and f"{fault}; get it again: {kind.repair}")


def check_here() -> list[Checked]:
    """Check every detector that is here."""
    return [check_detector(name) for name in get_args(DetectorName) if not KINDS[name].missing()]


def _fault_of_files(name: DetectorName) -> str:
    if name == "body":
        return body_environment.fault_of_environment(body_environment.body_dir())
    if name == "flow":
        return flow.fault_of_flow()
    landmarks = face_files.fault_of_file(face_files.LANDMARKS_FILE)
    return landmarks if name == "face" or landmarks else face_files.fault_of_file(face_files.IDENTITY_FILE)


def _try_out(name: DetectorName) -> None:
    if name == "identity":
        open_embedder().embed(BLACK)
        return
    if name == "flow":
        open_flow().estimate(np.concatenate([BLACK, BLACK]))
        return
    with open_detector(name) as detector:
        detector.detect(BLACK)
