"""The code that a job runs: hdam's wheel, unzipped, with the files that were made for this job beside it.

Ray sends a folder once: it is named by its content, and known content is not sent again. Wheels in `py_modules` would
be installed by pip, with torch and everything else.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from hdam.pipelines.errors import InputError

SOURCE = Path(__file__).resolve().parents[2]
"""Of a checkout: where pyproject.toml is; of an installed package: the folder `hdam`."""
ROOMS = ("models", "pipelines", "experiments", "platform")
BUILD = "from setuptools import build_meta; build_meta.build_wheel('wheel')"
SECONDS_TO_BUILD = 300
NO_CODE = shutil.ignore_patterns("__pycache__", "*.pyc")


@contextlib.contextmanager
def packed(files: Mapping[str, str]) -> Iterator[Path]:
    """A folder with hdam and `files` (text by relative path) for the length of the `with` block.

    Raises InputError where no wheel can be built.
    """
    with tempfile.TemporaryDirectory(prefix="hdam-job-") as folder:
        package = Path(folder, "package")
        if (SOURCE / "pyproject.toml").is_file():
            _unzip_wheel(package, work=Path(folder, "source"))
        else:
            _copy_installed(package)
        for name, text in files.items():
            path = package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        yield package


def _unzip_wheel(package: Path, *, work: Path) -> None:
    """Built from a copy, since setuptools leaves things behind and takes up what an earlier build left."""
    work.mkdir()
    for room in ROOMS:
        shutil.copytree(SOURCE / room, work / room, ignore=NO_CODE)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(SOURCE / name, work / name)
    built = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=work, capture_output=True, text=True, timeout=SECONDS_TO_BUILD, check=False
    )
    if built.returncode:
        reason = (built.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"no wheel of {SOURCE} could be built ({reason}); is setuptools 77 or later installed?")
    (wheel,) = (work / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(package)


def _copy_installed(package: Path) -> None:
    """The same files, from where pip has unzipped them."""
    distribution = metadata.distribution("hdam")
    for file in distribution.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = package / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(distribution.locate_file(file)), target)
