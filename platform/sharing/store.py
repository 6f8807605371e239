"""The shared store of results: how nodes without a common disk know of each other's checkpoints and records.

With HDAM_STORE=s3://BUCKET/FOLDER (or another address that pyarrow opens) the results folder of every process is a
working copy on its own disk; checkpoints, records and what else others need lie below that address, under their names
in the results folder. Without it nothing here asks anything of any store.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import arriving, is_lasting, is_local, locate, reason_of
from hdam.platform.tracking import results_dir

LOG = logging.getLogger("hdam")

VARIABLE = "HDAM_STORE"
SECONDS_OF_PATIENCE = 300.0
"""How long a store that is away is waited for, where nothing can be done without it."""
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Between two tries; each pause is twice the one before."""

Result = TypeVar("Result")


class StoreError(InputError):
    """The shared store did not do what it was asked for; the message names the address and the reason."""

    def __init__(self, message: str, *, is_lasting: bool = False) -> None:
        super().__init__(message)
        self.is_lasting = is_lasting
        """Waiting does not mend it: a refusal, or a disk of this machine."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of the store, in which every file is whole or absent. Methods raise StoreError where the store fails."""

    address: str

    def folder(self, name: str) -> "Place":
        """A folder in it."""
        return Place(f"{self.address}/{name}")

    def names(self) -> list[str]:
        """Of the files and folders directly in it, in alphabetical order."""
        with self._asking() as (filesystem, path):
            found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
            if not found:
                self._check_bucket(filesystem, path)
            return sorted(info.base_name for info in found)

    def is_there(self) -> bool:
        """Whether anything lies in it."""
        with self._asking() as (filesystem, path):
            is_folder: bool = filesystem.get_file_info(path).type == fs.FileType.Directory
            return is_folder

    def read(self, name: str) -> bytes | None:
        """The content of a file, as it was at one moment; None where it is absent."""
        with self._asking() as (filesystem, path):
            while (content := _read(filesystem, f"{path}/{name}")) is not None:
                # Arrow asks for the length first, and cuts off at it what was written in between.
                if is_local(filesystem) or filesystem.get_file_info(f"{path}/{name}").size in (len(content), None):
                    return content
            self._check_bucket(filesystem, path)
        return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in the place of one that may be there."""
        with self._target(name) as (filesystem, path), arriving(filesystem, path) as local:
            local.write_bytes(content)

    def put(self, file: Path, name: str) -> None:
        """Copy a file of this machine to here."""
        with self._target(name) as (filesystem, path):
            if is_local(filesystem):
                with arriving(filesystem, path) as partial:
                    shutil.copyfile(file, partial)
            else:
                here = fs.LocalFileSystem()
                fs.copy_files(str(file), path, source_filesystem=here, destination_filesystem=filesystem)

    def get(self, name: str, file: Path) -> bool:
        """Copy a file from here to this machine, whole or not at all; False where it is absent here."""
        partial = file.with_name(f".{uuid.uuid4().hex}.partial")
        try:
            with self._asking() as (filesystem, path):
                file.parent.mkdir(parents=True, exist_ok=True)
                source, here = f"{path}/{name}", fs.LocalFileSystem()
                if filesystem.get_file_info(source).type != fs.FileType.File:
                    self._check_bucket(filesystem, path)
                    return False
                fs.copy_files(source, str(partial), source_filesystem=filesystem, destination_filesystem=here)
                partial.replace(file)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
        return True

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        with self._asking() as (filesystem, path):
            kind = filesystem.get_file_info(f"{path}/{name}").type
            if kind == fs.FileType.Directory:
                filesystem.delete_dir(f"{path}/{name}")
            elif kind == fs.FileType.File:
                filesystem.delete_file(f"{path}/{name}")

    @contextlib.contextmanager
    def _target(self, name: str) -> Iterator[tuple[fs.FileSystem, str]]:
        """Filesystem and path of a file that will be written."""
        with self._asking() as (filesystem, path):
            target = f"{path}/{name}"
            if is_local(filesystem):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
            yield filesystem, target

    @contextlib.contextmanager
    def _asking(self) -> Iterator[tuple[fs.FileSystem, str]]:
        """Filesystem and path; what they refuse is a StoreError."""
        filesystem, path = locate(self.address)
        try:
            yield filesystem, path
        except (OSError, pa.ArrowException) as error:
            if not is_local(filesystem) and _is_of_this_disk(error):
                raise StoreError(
                    f"a file on its way to or from {self.address} finds no place on this machine's disk "
                    f"({reason_of(error)}); make room in {results_dir()} and in {tempfile.gettempdir()}",
                    is_lasting=True,
                ) from error
            raise StoreError(
                f"the store {self.address} failed ({reason_of(error)}); look at {VARIABLE}",
                is_lasting=is_lasting(error),
            ) from error

    @staticmethod
    def _check_bucket(filesystem: fs.FileSystem, path: str) -> None:
        """Of what is absent: S3 says so too where the whole bucket is."""
        if isinstance(filesystem, fs.S3FileSystem):
            bucket = path.partition("/")[0]
            if filesystem.get_file_info(bucket).type == fs.FileType.NotFound:
                raise OSError(f"NO_SUCH_BUCKET {bucket}")


def _read(filesystem: fs.FileSystem, path: str) -> bytes | None:
    with contextlib.suppress(FileNotFoundError), filesystem.open_input_stream(path) as file:
        content: bytes = file.read()
        return content
    return None


def _is_of_this_disk(error: Exception) -> bool:
    """Answers of a store over the network have no number, but for a file that went meanwhile."""
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError)


def store() -> Place | None:
    """The place of the results folder; None without HDAM_STORE. Raises InputError where that is no address."""
    address = os.environ.get(VARIABLE, "").strip().rstrip("/")
    if not address:
        return None
    if "://" not in address and not Path(address).is_absolute():
        raise InputError(
            f"{VARIABLE}={address}: expected s3://BUCKET/FOLDER or another address, or the whole path of a folder that "
            "all nodes mount"
        )
    return Place(address)


def place_of(folder: Path) -> Place | None:
    """The place of a folder; None without HDAM_STORE, and for folders that are not among the results."""
    whole = store()
    if whole is None or not folder.absolute().is_relative_to(results_dir()):
        return None
    return whole.folder(folder.absolute().relative_to(results_dir()).as_posix())


def probe(place: Place) -> None:
    """Write, read and remove a file. Raises StoreError where one of them fails, and InputError for no address."""
    name, content = f".probe-{uuid.uuid4().hex}", b"written by hdam to see whether it can"
    place.write(name, content)
    if place.read(name) != content:
        raise StoreError(f"the store {place.address} does not give back what was written; look at {VARIABLE}")
    place.remove(name)


def check_store() -> None:
    """Where HDAM_STORE names a store, whether one can write there. Raises InputError where one cannot."""
    if (whole := store()) is not None:
        probe(whole)


def patiently(work: Callable[[], Result]) -> Result:
    """The result of `work`, which is tried again where the store does not answer.

    Raises StoreError where it does not answer for minutes, or refuses.
    """
    give_up = time.monotonic() + SECONDS_OF_PATIENCE
    return again_and_again(
        work,
        is_over=lambda error, pause: error.is_lasting or time.monotonic() + pause > give_up,
        tell=lambda error: LOG.warning("%s; waiting for it, %.0f minutes at most", error, SECONDS_OF_PATIENCE / 60),
    )


def again_and_again(
    work: Callable[[], Result], *, is_over: Callable[[StoreError, float], bool], tell: Callable[[StoreError], object]
) -> Result:
    """The result of `work`, which is tried again after every StoreError, in longer and longer pauses.

    `tell` hears of the first one. Raises it where `is_over` says so, which is given the seconds until the next try.
    """
    pause = SHORTEST_PAUSE
    while True:
        try:
            return work()
        except StoreError as error:
            if is_over(error, pause):
                raise
            if pause == SHORTEST_PAUSE:
                tell(error)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
