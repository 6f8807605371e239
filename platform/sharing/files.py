"""Files of one machine that others need, by way of the shared store."""

import hashlib
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hdam.pipelines.errors import InputError
from hdam.platform.sharing.store import Place, StoreError, patiently
from hdam.platform.tracking import results_dir

FILES_DIR = "files"
"""What is no result, but needed by workers on other nodes."""
DIGITS = 16


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file of the driver's node that its workers need under the same path on theirs."""

    path: str
    place: Place
    name: str
    """In the store, with the content's digest; hidden, since it is no result."""

    def fetch(self) -> None:
        """Bring it to this node, unless it is there; another file is overwritten among the results alone.

        Raises StoreError, and InputError for another file of this path elsewhere.
        """
        path = Path(self.path)
        if path.exists():
            if _shared_name(path) == self.name:
                return
            if not path.is_relative_to(results_dir()):
                raise InputError(
                    f"{path} on {socket.gethostname()} is another file than the driver's; make them the same"
                )
        if not patiently(lambda: self.place.get(self.name, path)):
            raise StoreError(f"{self.name} is gone from the store {self.place.address}")


def _shared_name(file: Path) -> str:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return f".{digest[:DIGITS]}-{file.name}"


def offer_file(file: Path, place: Place) -> SharedFile:
    """Upload a file, unless it is there. Raises StoreError where the store is away for minutes."""
    name = _shared_name(file)
    if name not in patiently(place.names):
        patiently(lambda: place.put(file, name))
    return SharedFile(str(file), place, name)


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
