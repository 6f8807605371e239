"""Making the body detector's environment."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hdam.pipelines.errors import InputError
from hdam.platform.detection.body import BodyDetector
from hdam.platform.detection.body_environment import (
    PACKAGES,
    VERSION,
    body_dir,
    detectors_dir,
    fault_of_environment,
    python_of,
)
from hdam.platform.locks import locked
from hdam.platform.tracking import masked

PARTIAL_DIR = ".partial"
BLACK = np.zeros((1, 64, 64, 3), np.uint8)
NEWEST_PYTHON = (3, 12)
"""The newest that mediapipe 0.10.21 has a wheel for."""


class Made(NamedTuple):
    """The environment as it is now."""

    folder: Path
    was_there: bool
    """A sound one was there before, so that nothing was made."""


def make_environment() -> Made:
    """Make the body detector's environment, or leave a sound one alone.

    Raises InputError where this Python has no such packages, where they cannot be had, or the folder not be written.
    """
    folder = body_dir()
    if sys.version_info[:2] > NEWEST_PYTHON:
        newest, ours = (".".join(map(str, version)) for version in (NEWEST_PYTHON, sys.version_info[:2]))
        raise InputError(
            f"mediapipe {VERSION} runs on Python up to {newest}, this is {ours}; install hdam with an older"
        )
    try:
        with locked(detectors_dir(), is_waiting=True):
            if not fault_of_environment(folder):
                return Made(folder, was_there=True)
            with _workplace(detectors_dir() / PARTIAL_DIR) as place:
                _install(place)
                shutil.rmtree(folder, ignore_errors=True)
                place.rename(folder)
    except OSError as error:
        raise InputError(f"{detectors_dir()} cannot be written ({error.strerror}); set HDAM_DETECTORS") from error
    return Made(folder, was_there=False)


@contextlib.contextmanager
def _workplace(place: Path) -> Iterator[Path]:
    """A folder for what is not whole yet; what was not renamed in the end is removed."""
    shutil.rmtree(place, ignore_errors=True)  # what a killed process has left
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _install(place: Path) -> None:
    _run([sys.executable, "-m", "venv", str(place)], doing="making a virtual environment")
    pip = [str(python_of(place)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    # No package is built here: each has a wheel, and a compiler would be asked for in vain.
    _run([*pip, "--only-binary", ":all:", *PACKAGES], doing="installing mediapipe")
    if fault := fault_of_environment(place):
        raise InputError(f"installing mediapipe left it damaged: {fault}")
    try_out(place)


def try_out(folder: Path) -> None:
    """Look for a body where none is. Raises InputError where an environment does not do that."""
    with BodyDetector(folder) as detector:
        detector.detect(BLACK)


def _run(command: Sequence[str], *, doing: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()] or ["no reason given"]
        told = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise InputError(f"{doing} failed: {masked(told)}")
