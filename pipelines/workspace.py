"""A folder that appears whole or not at all."""

import errno
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.manifest import MANIFEST_NAME


def check_target(dataset: Path, *, overwrite: bool) -> None:
    """InputError unless `dataset` may be written: it is free, empty, or a dataset that may be overwritten."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(dataset)):
        raise InputError(f"{dataset}: datasets are prepared in a local folder; copy it to the store afterwards")
    with naming_target(dataset):
        if not dataset.exists():
            return
        if not dataset.is_dir():
            raise InputError(f"{dataset} is a file; expected a folder that is new or empty")
        if not any(dataset.iterdir()):
            return
    if not _is_dataset(dataset):
        raise InputError(f"{dataset} is not empty and no dataset; choose another folder")
    if not overwrite:
        raise InputError(f"{dataset} is a dataset already; choose another folder or say --overwrite")


@contextmanager
def naming_target(target: Path) -> Iterator[None]:
    """Tell whatever the system has against writing `target` as an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({first_line(error)}); choose another folder") from error


@contextmanager
def partial_folder(dataset: Path) -> Iterator[Path]:
    """A temporary folder beside `dataset` that takes its place at the end, or vanishes on any error.

    Raises InputError where `dataset` cannot be written, and when the disk is full.
    """
    dataset = dataset.absolute()
    partial: Path | None = None
    try:
        with naming_target(dataset):
            dataset.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{dataset.name}.partial-", dir=dataset.parent))
            partial.chmod(0o755)  # mkdtemp makes it private; a dataset is shared
        yield partial
        with naming_target(dataset):
            _swap(partial, dataset)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(_disk_full(partial, dataset)) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, dataset: Path) -> None:
    """Put `partial` in the place of `dataset`; an old dataset goes only when the new one stands, else it comes back."""
    if not dataset.exists():
        partial.rename(dataset)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{dataset.name}.old-", dir=dataset.parent))
    aside = old / dataset.name
    try:
        dataset.rename(aside)
        partial.rename(dataset)
    finally:
        # Ctrl-C may come between any two lines: what lies in the folders decides, not how far the code came.
        if aside.exists() and not dataset.exists():
            aside.rename(dataset)
        shutil.rmtree(old, ignore_errors=True)


def _disk_full(partial: Path | None, dataset: Path) -> str:
    written = 0
    if partial is not None:
        written = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    return (
        f"{dataset.parent}: no space left on the disk after {written / 1e6:.0f} MB "
        "(preparing a dataset takes twice its size); free space or choose another folder. Nothing was kept"
    )


def _is_dataset(folder: Path) -> bool:
    try:
        content = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "schema_version" in content and "shards" in content
