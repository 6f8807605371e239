"""The manifest of a dataset: what its shards are, how they were made, and the fingerprint that names their content."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import fs

from hdam.pipelines.errors import InputError, first_line

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
AGAIN = "prepare it again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One Parquet file of the dataset."""

    path: str
    """Relative to the dataset."""
    split: str
    rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How much there is, of one split or of all."""

    clips: int
    identities: int
    rows: int
    frames: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a dataset holds."""

    schema_version: int
    name: str
    """Lower case letters, digits and hyphens: goes into the names of models."""
    fingerprint: str
    """SHA-256 over schema version, options and shard checksums: equal content, equal fingerprint."""
    options: dict[str, Any]
    """The preprocessing options that shape the content."""
    counts: Counts
    splits: dict[str, Counts]
    shards: tuple[Shard, ...]

    def shards_of(self, split: str | None) -> tuple[Shard, ...]:
        """The shards of one split (None: all). Raises InputError when there is no such split."""
        if split is not None and split not in self.splits:
            raise InputError(f"dataset {self.name} has no split '{split}'; it has {', '.join(sorted(self.splits))}")
        return tuple(shard for shard in self.shards if split is None or shard.split == split)


def fingerprint_of(options: Mapping[str, Any], shards: Sequence[Shard]) -> str:
    """The fingerprint of a dataset with these options and shards."""
    content = [SCHEMA_VERSION, dict(options), [[shard.path, shard.split, shard.sha256] for shard in shards]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def locate(dataset: str) -> tuple[fs.FileSystem, str]:
    """Filesystem and path of a local path or a URI (`s3://`, `gs://`, …); InputError when no filesystem opens it."""
    if "://" not in dataset:
        return fs.LocalFileSystem(), str(Path(dataset).expanduser().absolute())
    try:
        filesystem, path = fs.FileSystem.from_uri(dataset)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{dataset}: no filesystem opens this address ({first_line(error)})") from error
    return filesystem, path.rstrip("/")


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `manifest` into the local `folder`, through a temporary name."""
    partial = folder / f".{MANIFEST_NAME}.partial"
    partial.write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST_NAME)


def load_manifest(dataset: str | Path) -> Manifest:
    """The manifest of a dataset (path or URI).

    Raises InputError when the dataset or its manifest is missing, broken, or written by a newer version.
    """
    filesystem, root = locate(str(dataset))
    try:
        if filesystem.get_file_info(root).type == fs.FileType.NotFound:
            raise InputError(f"{dataset}: no such dataset; make it with 'hdam prepare VIDEOS {dataset}'")
        with filesystem.open_input_stream(f"{root}/{MANIFEST_NAME}") as stream:
            text = stream.read()
    except OSError as error:
        raise InputError(
            f"{dataset}: no {MANIFEST_NAME} to be read there, so it is no prepared dataset ({first_line(error)}); "
            "make one with 'hdam prepare'"
        ) from error
    return _parse(text, str(dataset))


def verify_shards(
    dataset: str | Path,
    manifest: Manifest,
    *,
    split: str | None = None,
    depth: Literal["sizes", "checksums"] = "checksums",
) -> None:
    """Hold the shards of a split (None: all) against the manifest.

    `sizes` looks at existence and size only; `checksums` also reads every byte. Raises InputError that names the first
    shard that differs.
    """
    filesystem, root = locate(str(dataset))
    for shard in manifest.shards_of(split):
        verify_shard(root, shard, filesystem=filesystem, depth=depth)


def verify_shard(
    root: str, shard: Shard, *, filesystem: fs.FileSystem, depth: Literal["sizes", "checksums"] = "checksums"
) -> None:
    """The same for one shard, where it is read; `root` is the dataset's path within `filesystem`."""
    path = f"{root}/{shard.path}"
    info = filesystem.get_file_info(path)
    if info.type != fs.FileType.File:
        raise InputError(f"shard {path} is missing, the manifest expects {shard.num_bytes} bytes; {AGAIN}")
    if info.size != shard.num_bytes:
        raise InputError(f"shard {path} has {info.size} bytes, the manifest expects {shard.num_bytes}; {AGAIN}")
    if depth == "checksums" and (found := sha256_of(path, filesystem=filesystem)) != shard.sha256:
        raise InputError(
            f"shard {path} has checksum {found[:12]}…, the manifest expects {shard.sha256[:12]}…: "
            f"its content has changed; {AGAIN}"
        )


def sha256_of(path: str, *, filesystem: fs.FileSystem) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with filesystem.open_input_stream(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _parse(text: bytes, dataset: str) -> Manifest:
    where = f"{dataset}/{MANIFEST_NAME}"
    try:
        content = json.loads(text)
        version = int(content["schema_version"])
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{where} has schema version {version}, this hdam reads up to {SCHEMA_VERSION}; update hdam or {AGAIN}"
            )
        return Manifest(
            schema_version=version,
            name=str(content["name"]),
            fingerprint=str(content["fingerprint"]),
            options=dict(content["options"]),
            counts=Counts(**content["counts"]),
            splits={split: Counts(**counts) for split, counts in content["splits"].items()},
            shards=tuple(Shard(**shard) for shard in content["shards"]),
        )
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where} is broken ({first_line(error)}); {AGAIN}") from error
