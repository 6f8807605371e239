"""The work area beside a dataset in the making: it outlives an interruption, and no two processes share it.

data/                       appears whole: shards and manifest are renamed together
.data.partial/              .lock
    clips/                  finished ones
    dataset/                in the making
    old/                    an old dataset, while the new one takes its place

s3://bucket/data/           shards as they are written, manifest.json last: without it there is no dataset
s3://bucket/data/.partial/  clips/
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyarrow import fs

from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import locate
from hdam.pipelines.manifest import MANIFEST_NAME, Manifest, save_manifest
from hdam.pipelines.target import Target, naming_target

STORED_SUFFIX = ".parquet"


class WorkArea:
    """The work area of a target, held by this process."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._work = locate(target.work)[1]
        self.clips = f"{target.work}/clips"
        """Address of the store of finished clips."""
        self.dataset = f"{target.work}/dataset" if target.is_local else target.address
        """Address where the dataset is put together."""

    def stored_keys(self) -> set[str]:
        """The names of the finished clips, those of other options among them."""
        selector = fs.FileSelector(f"{self._work}/clips", allow_not_found=True)
        names = [info.base_name for info in self.target.filesystem.get_file_info(selector)]
        return {name.removesuffix(STORED_SUFFIX) for name in names if name.endswith(STORED_SUFFIX)}

    def begin_dataset(self) -> None:
        """Make place for a dataset; the old one in a store is none from here on."""
        if self.target.is_local:
            shutil.rmtree(f"{self._work}/dataset", ignore_errors=True)
            Path(self._work, "dataset").mkdir()
        else:
            _delete_file(self.target.filesystem, f"{self.target.root}/{MANIFEST_NAME}")

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest, with which the dataset is there, whole."""
        save_manifest(manifest, self.dataset)
        if self.target.is_local:
            _swap(Path(self._work), Path(self.target.root))
            return
        shards = {f"{self.target.root}/{shard.path}" for shard in manifest.shards}
        selector = fs.FileSelector(f"{self.target.root}/shards", allow_not_found=True)
        for info in self.target.filesystem.get_file_info(selector):
            if info.type == fs.FileType.File and info.path not in shards:
                _delete_file(self.target.filesystem, info.path)

    def discard(self) -> None:
        """Remove everything in it but the lock."""
        if self.target.is_local:
            for name in ("clips", "dataset", "old"):
                shutil.rmtree(f"{self._work}/{name}", ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                self.target.filesystem.delete_dir(self._work)

    def leave(self) -> None:
        """Keep the finished clips for the next time, and nothing else; without any, the area vanishes."""
        if self.target.is_local:
            shutil.rmtree(f"{self._work}/dataset", ignore_errors=True)
        if not self.stored_keys():
            self.discard()


@contextmanager
def work_area(target: Target) -> Iterator[WorkArea]:
    """The work area of `target`; it is gone after the block, unless an error ends it and there are finished clips.

    Raises InputError where the target cannot be written, or another process prepares it. The lock goes with the
    process, however it ends; in a store it holds off processes of the same machine and user only.
    """
    area = WorkArea(target)
    if target.is_local:
        lock = Path(target.work, ".lock")
    else:
        digest = hashlib.sha256(target.address.encode()).hexdigest()[:16]
        lock = Path(tempfile.gettempdir(), f"hdam-{os.getuid()}-{digest}.lock")
    with _locked(lock, target.asked):
        try:
            if target.is_local:
                _bring_back(Path(target.work), Path(target.root))
                Path(target.work, "clips").mkdir(exist_ok=True)
            yield area
            area.discard()
        except BaseException:
            with suppress(OSError):
                area.leave()
            raise
        finally:
            if not Path(target.work, "clips").exists():
                lock.unlink(missing_ok=True)
                if target.is_local:
                    shutil.rmtree(target.work, ignore_errors=True)


def clear_leftovers(target: Target) -> None:
    """Remove what a process left that died after its dataset was whole."""
    if target.filesystem.get_file_info(locate(target.work)[1]).type == fs.FileType.Directory:
        with work_area(target):
            pass


@contextmanager
def _locked(lock: Path, asked: str) -> Iterator[None]:
    while True:
        with naming_target(asked):
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                stream = lock.open("a")
            except FileNotFoundError:  # its holder removed the folder just now
                continue
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{asked} is being prepared by another process; wait for it, or choose another folder"
                ) from error
            # Its holder may have removed the file between the two lines above.
            if lock.exists() and lock.stat().st_ino == os.fstat(stream.fileno()).st_ino:
                yield
                return


def _swap(work: Path, dataset: Path) -> None:
    """Put `work`/dataset in the place of `dataset`; an old dataset goes only when the new one stands."""
    if not dataset.exists():
        (work / "dataset").rename(dataset)
        return
    try:
        dataset.rename(work / "old")
        (work / "dataset").rename(dataset)
    finally:
        # Ctrl-C may come between any two lines: what lies in the folders decides, not how far the code came.
        _bring_back(work, dataset)


def _bring_back(work: Path, dataset: Path) -> None:
    """Put the old dataset back where a process died between moving it away and putting the new one there."""
    if (work / "old").exists() and not dataset.exists():
        (work / "old").rename(dataset)


def _delete_file(filesystem: fs.FileSystem, path: str) -> None:
    with suppress(FileNotFoundError):
        filesystem.delete_file(path)
