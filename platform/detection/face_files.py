"""The face detector's packages: where they are, which versions, and whether their files are whole.

dlib brings the programs, face_recognition_models the trained networks. Neither is imported to look: the latter imports
a module that Python no longer ships.
"""

import hashlib
import importlib.util
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from hdam.pipelines.errors import InputError

REQUIREMENTS = ("dlib-bin>=20.0.1,<21", "face_recognition_models>=0.1.3,<1")
_QUOTED = " ".join(f"'{requirement}'" for requirement in REQUIREMENTS)
REMEDY = f"pip install --no-deps {_QUOTED}"
REPAIR = f"pip install --no-deps --force-reinstall {_QUOTED}"

LANDMARKS_FILE = "shape_predictor_68_face_landmarks.dat"
IDENTITY_FILE = "dlib_face_recognition_resnet_model_v1.dat"
SHA256: Mapping[str, str] = {
    LANDMARKS_FILE: "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
    IDENTITY_FILE: "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
}


def face_file(name: str) -> Path:
    """The file of a trained network. Raises InputError where the package is not installed or lacks it."""
    spec = importlib.util.find_spec("face_recognition_models")
    places = list(spec.submodule_search_locations or ()) if spec else []
    paths = [path for place in places if (path := Path(place) / "models" / name).is_file()]
    if not paths:
        raise InputError(f"the face detector needs {name}, which is not here; get it: {REMEDY}")
    return paths[0]


def face_version() -> str:
    """Versions of both packages."""
    return f"{_version('dlib-bin', 'dlib')}, face_recognition_models {_version('face_recognition_models')}"


def missing_for_faces(name: str) -> str:
    """Why faces cannot be detected with the file `name`; empty where they can."""
    if importlib.util.find_spec("dlib") is None:
        return "the package dlib-bin is not installed"
    if importlib.util.find_spec("face_recognition_models") is None:
        return "the package face_recognition_models is not installed"
    try:
        face_file(name)
    except InputError:
        return f"the package face_recognition_models lacks {name}"
    return ""


def fault_of_file(name: str) -> str:
    """What is wrong with a file of trained weights that is there; empty where nothing is."""
    path = face_file(name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest == SHA256[name]:
        return ""
    return f"{path} is not the file expected: sha256 {digest[:8]}…, expected {SHA256[name][:8]}…"


def _version(*names: str) -> str:
    """The version of the first distribution that is installed; `dlib` is what those have who compile it."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"
