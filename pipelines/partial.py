"""A folder that appears whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hdam.pipelines.errors import InputError
from hdam.pipelines.target import is_disk_full, naming_target


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which must not be there at the end: it is renamed, or vanishes on any error.

    Raises InputError where `folder` cannot be written, and when the disk is full.
    """
    folder = folder.absolute()
    partial: Path | None = None
    try:
        with naming_target(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
            partial.chmod(0o755)  # mkdtemp makes it private
        yield partial
        with naming_target(folder):
            partial.rename(folder)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise InputError(f"{folder}: no space left on the disk; free space or choose another folder") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
