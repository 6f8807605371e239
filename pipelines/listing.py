"""What files lie in a folder, on this machine or in a store, and how a clip's files come here to be read."""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from pyarrow import fs

from hdam.pipelines.clips import SourceClip
from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import locate, reason_of

SHADOW_FOLDER = "__MACOSX"
"""What some archivers add: copies of every name, without content."""


class FoundFile(NamedTuple):
    """What a listing says of one file."""

    num_bytes: int
    modified_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The files of a folder and its subfolders, hidden ones left out."""

    address: str
    """The folder: an absolute path, or a URI without a slash at its end."""
    files: Mapping[str, FoundFile]
    """By name relative to the folder, with forward slashes, sorted."""
    single: str | None = None
    """The name of the file, where one file was asked for and not a folder."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Subfolders that cannot be listed, and why."""

    @property
    def asked(self) -> str:
        """The address that was asked for: that of the folder, or of the single file."""
        return self.address if self.single is None else f"{self.address}/{self.single}"

    def read(self, name: str, *, num_bytes: int | None = None) -> bytes:
        """The first `num_bytes` of a file, None: all of it; InputError when it cannot be read."""
        return read_bytes(f"{self.address}/{name}", num_bytes=num_bytes)


def list_files(address: str) -> Listing:
    """The files of a folder (a path, `file://`, `s3://`, …), or the one file that `address` is.

    Links to files are followed, links to folders are not. Raises InputError when there is nothing, or no access.
    """
    address = whole_address(address)
    if is_remote(address):
        return _list_store(address)
    try:
        facts = Path(address).stat()
        if stat.S_ISREG(facts.st_mode):
            folder, name = os.path.split(address)
            return Listing(address=folder, files={name: FoundFile(facts.st_size, facts.st_mtime_ns)}, single=name)
        if not stat.S_ISDIR(facts.st_mode):
            raise InputError(f"{address}: neither a file nor a folder")
        with os.scandir(address):
            return _walk(address)
    except FileNotFoundError as error:
        raise InputError(f"{address}: no such file or folder") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{address}: cannot be read ({reason_of(error)})") from error


def whole_address(address: str) -> str:
    """A URI without a slash at its end, or an absolute path: `file://` taken off, '~' and '..' resolved."""
    if address.startswith("file://"):
        _, address = locate(address)
    if is_remote(address):
        return address.rstrip("/")
    try:
        path = Path(address).expanduser()
        # The meaning of '..' depends on symbolic links; without it, links stay as they were written.
        return str(path.resolve() if ".." in path.parts else path.absolute())
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{address!r}: no path ({reason_of(error)})") from error


def is_remote(address: str) -> bool:
    """Whether an address is a URI, and not a path of this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", address) is not None


def read_bytes(address: str, *, num_bytes: int | None = None) -> bytes:
    """The first `num_bytes` of a file, None: all of it; InputError when it cannot be read."""
    try:
        if is_remote(address):
            filesystem, path = locate(address)
            with filesystem.open_input_stream(path) as remote:
                return remote.read(num_bytes)
        if not stat.S_ISREG(Path(address).stat().st_mode):  # a pipe would keep its reader waiting for ever
            raise InputError(f"{address}: not a file")
        with Path(address).open("rb") as local:
            return local.read(-1 if num_bytes is None else num_bytes)
    except FileNotFoundError as error:
        raise InputError(f"{address}: no such file") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{address}: cannot be read ({reason_of(error)})") from error


def names_beside(address: str) -> list[str]:
    """The files right in a folder, sorted, hidden ones left out; none where it cannot be listed."""
    try:
        if is_remote(address):
            filesystem, root = locate(address)
            infos = filesystem.get_file_info(fs.FileSelector(root))
            names = [info.base_name for info in infos if info.type == fs.FileType.File]
        else:
            names = [entry.name for entry in os.scandir(address) if entry.is_file()]
    except (OSError, ValueError):
        return []
    return sorted(filter(_is_seen, names))


def parent_of(address: str) -> str | None:
    """The folder above an address; None above a bucket or the root of the disk."""
    if is_remote(address):
        scheme, rest = address.split("://", 1)
        return f"{scheme}://{rest.rpartition('/')[0]}" if "/" in rest else None
    parent = os.path.dirname(address)  # noqa: PTH120 (a name, not a file)
    return parent if parent != address else None


@contextmanager
def fetched(clip: SourceClip) -> Iterator[Path]:
    """The clip's file or folder as a local path: where it lies, or a copy of it that vanishes afterwards.

    Raises InputError when a file of a store cannot be read.
    """
    if not is_remote(clip.root):
        yield Path(clip.root, clip.path)
        return
    with TemporaryDirectory(prefix="hdam-") as folder:
        for name in clip.files:
            _download(clip.root, name, Path(folder))
        try:
            yield Path(folder, clip.path)
        except InputError as error:
            # The copy is of no concern to anybody; the file it was made of is.
            raise InputError(str(error).replace(folder, clip.root)) from error


def _download(root: str, name: str, folder: Path) -> None:
    filesystem, path = locate(root)
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filesystem.open_input_stream(f"{path}/{name}") as remote, target.open("wb") as local:
            shutil.copyfileobj(remote, local, 1 << 20)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"{root}/{name}: cannot be fetched ({reason_of(error)})") from error


def _walk(folder: str) -> Listing:
    files: dict[str, FoundFile] = {}
    unreadable: dict[str, str] = {}

    def note(error: OSError) -> None:
        unreadable[os.path.relpath(error.filename, folder)] = reason_of(error)

    for here, subfolders, names in os.walk(folder, onerror=note):
        subfolders[:] = sorted(name for name in subfolders if _is_seen(name))
        prefix = "" if here == folder else f"{os.path.relpath(here, folder)}/".replace(os.sep, "/")
        for name in sorted(filter(_is_seen, names)):
            found = _facts(os.path.join(here, name))  # noqa: PTH118 (one of millions)
            if found is not None:
                files[prefix + name] = found
    return Listing(address=folder, files=files, unreadable=unreadable)


def _facts(path: str) -> FoundFile | None:
    """Size and age of a file; None for pipes, devices and sockets, from which a reader would wait for ever."""
    try:
        facts = os.stat(path)  # noqa: PTH116 (one of millions)
    except OSError:
        return FoundFile(0, 0)  # a broken link: whoever reads it says so
    return FoundFile(facts.st_size, facts.st_mtime_ns) if stat.S_ISREG(facts.st_mode) else None


def _list_store(address: str) -> Listing:
    filesystem, root = locate(address)
    try:
        info = filesystem.get_file_info(root)
        if info.type == fs.FileType.File:
            folder, name = address.rsplit("/", 1)
            return Listing(address=folder, files={name: _store_facts(info)}, single=name)
        if info.type != fs.FileType.Directory:
            raise InputError(f"{address}: no such file or folder")
        infos = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    except OSError as error:
        raise InputError(f"{address}: cannot be listed ({reason_of(error)})") from error
    found = {info.path[len(root) + 1 :]: _store_facts(info) for info in infos if info.type == fs.FileType.File}
    # A store's names may hold anything; '..' and null characters are no names of files here.
    seen = (name for name in found if "\0" not in name and all(_is_seen(part) for part in name.split("/")))
    return Listing(address=address, files={name: found[name] for name in sorted(seen)})


def _store_facts(info: fs.FileInfo) -> FoundFile:
    return FoundFile(info.size or 0, info.mtime_ns or 0)


def _is_seen(name: str) -> bool:
    return bool(name) and not name.startswith(".") and name != SHADOW_FOLDER
