"""The environment of the body detector: where it is, and whether it is whole.

mediapipe 0.10.21 is the last whose wheel holds the model. It wants versions of protobuf and numpy that MLflow and Ray
do not, so that it lives in a virtual environment of its own, in HDAM_DETECTORS, or in `detectors` among the results:

detectors/
  mediapipe-0.10.21/    made by `hdam detectors get body`; the folder gets its name when all is in it and works
"""

import os
from pathlib import Path

from hdam.platform.detection.installed import faults_of_package
from hdam.platform.tracking import results_dir

DETECTORS_DIR = "detectors"
VERSION = "0.10.21"
PACKAGES = (
    f"mediapipe=={VERSION}",
    "absl-py==2.1.0",
    "attrs==24.2.0",
    "flatbuffers==24.3.25",
    "numpy==1.26.4",
    "protobuf==4.25.8",
)
"""What finding bodies takes of the packages that mediapipe asks for; the others draw, record or convert models."""
REMEDY = "hdam detectors get body"


def detectors_dir() -> Path:
    """Where environments of detectors are: HDAM_DETECTORS, or `detectors` among the results."""
    named = os.environ.get("HDAM_DETECTORS")
    return Path(named).expanduser().absolute() if named else results_dir() / DETECTORS_DIR


def body_dir() -> Path:
    """The folder of the body detector's environment, whether it is there or not."""
    return detectors_dir() / f"mediapipe-{VERSION}"


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin" / "python"


def missing_for_bodies(folder: Path) -> str:
    """Why there is no environment to be started in `folder`; empty where there is one."""
    if not folder.is_dir():
        return f"{folder} is not there"
    python = python_of(folder)
    if python.exists():
        return ""
    return f"{python} leads to a Python that is gone" if python.is_symlink() else f"{python} is not there"


def fault_of_environment(folder: Path) -> str:
    """What is wrong with an environment: its Python, or the first file that is not as it was installed."""
    if missing := missing_for_bodies(folder):
        return missing
    for package in PACKAGES:
        name, version = package.replace("-", "_").split("==")
        record = next(folder.glob(f"lib/python*/site-packages/{name}-{version}.dist-info/RECORD"), None)
        if record is None:
            return f"{folder} lacks the package {package}"
        if fault := next(faults_of_package(record), ""):
            return fault
    return ""
