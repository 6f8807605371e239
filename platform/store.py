"""The shared store of results: how nodes without a common disk know of each other's checkpoints and records.

With HDAM_STORE=s3://BUCKET/FOLDER (or another address that pyarrow opens) the results folder of every process is a
working copy on its own disk; checkpoints, records and what else others need lie below that address, under their names
in the results folder. Without it nothing here asks anything of any store.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import arriving, is_local, locate, reason_of
from hdam.platform.tracking import results_dir

LOG = logging.getLogger("hdam")

VARIABLE = "HDAM_STORE"
SECONDS_OF_PATIENCE = 300.0
"""How long a store that is away is waited for, where nothing can be done without it."""
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Between two tries; each pause is twice the one before."""
FILES_DIR = "files"
"""What is no result, but needed by workers on other nodes."""
DIGITS = 16

Result = TypeVar("Result")


class StoreError(InputError):
    """The shared store did not do what it was asked for; the message names the address and the reason."""


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
            return sorted(info.base_name for info in found)

    def is_there(self) -> bool:
        """Whether anything lies in it."""
        with self._asking() as (filesystem, path):
            is_folder: bool = filesystem.get_file_info(path).type == fs.FileType.Directory
            return is_folder

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where it is absent."""
        with self._asking() as (filesystem, path), contextlib.suppress(FileNotFoundError):
            with filesystem.open_input_stream(f"{path}/{name}") as file:
                content: bytes = file.read()
            return content
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
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{uuid.uuid4().hex}.partial")
        try:
            with self._asking() as (filesystem, path):
                source, here = f"{path}/{name}", fs.LocalFileSystem()
                if filesystem.get_file_info(source).type != fs.FileType.File:
                    return False
                fs.copy_files(source, str(partial), source_filesystem=filesystem, destination_filesystem=here)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
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
        try:
            yield locate(self.address)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"the store {self.address} failed ({reason_of(error)}); look at {VARIABLE}") from error


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file of the driver's node that its workers need under the same path on theirs."""

    path: str
    place: Place
    name: str
    """In the store, with the content's digest; hidden, since it is no result."""

    def fetch(self) -> None:
        """Bring it to this node, unless there is one of this path. Raises StoreError."""
        path = Path(self.path)
        if not path.exists() and not patiently(lambda: self.place.get(self.name, path)):
            raise StoreError(f"{self.name} is gone from the store {self.place.address}")


def offer_file(file: Path, place: Place) -> SharedFile:
    """Upload a file, unless it is there. Raises StoreError where the store is away for minutes."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    name = f".{digest[:DIGITS]}-{file.name}"
    if name not in patiently(place.names):
        patiently(lambda: place.put(file, name))
    return SharedFile(str(file), place, name)


def store() -> Place | None:
    """The place of the results folder; None without HDAM_STORE."""
    address = os.environ.get(VARIABLE, "").strip().rstrip("/")
    return Place(address) if address else None


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
    """The result of `work`, which is tried again where the store does not answer, in longer and longer pauses.

    Raises StoreError where it does not answer for minutes.
    """
    give_up, pause = time.monotonic() + SECONDS_OF_PATIENCE, SHORTEST_PAUSE
    while True:
        try:
            return work()
        except StoreError as error:
            if time.monotonic() + pause > give_up:
                raise
            if pause == SHORTEST_PAUSE:
                LOG.warning("%s; waiting for it, %.0f minutes at most", error, SECONDS_OF_PATIENCE / 60)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def share_files(folder: Path, place: Place, *, leave_out: Collection[str]) -> None:
    """Copy the files directly in a folder to its place, without hidden ones."""
    for file in sorted(folder.glob("[!.]*")):
        if file.is_file() and file.name not in leave_out:
            place.put(file, file.name)


def fetch_files(folder: Path, place: Place) -> None:
    """Copy the files directly in a folder's place that are not here, without hidden ones."""
    for name in place.names():
        if not name.startswith(".") and not (folder / name).exists():
            place.get(name, folder / name)
