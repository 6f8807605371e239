"""Where a dataset shall be: a folder of this machine or of a store, and what is there already."""

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import is_local, locate, reason_of
from hdam.pipelines.listing import whole_address
from hdam.pipelines.manifest import MANIFEST_NAME

REMOTE_WORK = ".partial"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where a dataset shall be."""

    asked: str
    """As the user wrote it."""
    address: str
    """Absolute path, or URI."""
    filesystem: fs.FileSystem
    root: str
    """Path within the filesystem."""

    @property
    def is_local(self) -> bool:
        """Whether the dataset can be put into its place by renaming."""
        return is_local(self.filesystem)

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.root.rpartition("/")[2]

    @property
    def work(self) -> str:
        """Address of the work area."""
        if self.is_local:
            return str(Path(self.root).with_name(f".{self.name}.partial"))
        return f"{self.address}/{REMOTE_WORK}"


def open_target(dataset: str) -> Target:
    """The target at a path or URI. Raises InputError when no filesystem opens it, or its bucket is missing."""
    address = whole_address(dataset)
    filesystem, root = locate(address)
    target = Target(asked=dataset, address=address, filesystem=filesystem, root=root)
    if not root.strip("/"):
        raise InputError(f"{dataset}: names no folder for the dataset")
    if not target.is_local:
        bucket = root.partition("/")[0]
        with naming_target(dataset):
            if filesystem.get_file_info(bucket).type == fs.FileType.NotFound:
                raise InputError(f"{dataset}: there is no bucket '{bucket}'; make it first, or correct the address")
    return target


def dataset_there(target: Target) -> Mapping[str, Any] | None:
    """What the manifest of a dataset at the target says; None where the target is free, empty, or half uploaded.

    Raises InputError when something else is there, or one may not look.
    """
    with naming_target(target.asked):
        kind = target.filesystem.get_file_info(target.root).type
        if kind == fs.FileType.NotFound:
            return None
        if kind != fs.FileType.Directory:
            raise InputError(f"{target.asked} is a file; expected a folder that is new or empty")
        names = {info.base_name for info in target.filesystem.get_file_info(fs.FileSelector(target.root))}
    if not names or (not target.is_local and REMOTE_WORK in names and MANIFEST_NAME not in names):
        return None
    content = _manifest_content(target)
    if content is None:
        raise InputError(f"{target.asked} is not empty and no dataset; choose another folder")
    return content


@contextmanager
def naming_target(asked: str | Path) -> Iterator[None]:
    """Tell whatever the system has against writing `asked` as an InputError."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if is_disk_full(error):
            raise
        raise InputError(f"{asked}: cannot be written ({reason_of(error)}); choose another folder") from error


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that no space is left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _manifest_content(target: Target) -> Mapping[str, Any] | None:
    try:
        with target.filesystem.open_input_stream(f"{target.root}/{MANIFEST_NAME}") as stream:
            content = json.loads(stream.read())
    except (OSError, ValueError, RecursionError):
        return None
    is_dataset = isinstance(content, dict) and "schema_version" in content and "shards" in content
    return content if is_dataset else None
