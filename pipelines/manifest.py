"""The manifest of a dataset: what its shards are, how they were made, and the fingerprint that names their content."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from pyarrow import fs

from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.filesystems import arriving, locate, reason_of

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
AGAIN = "prepare it again"
_T = TypeVar("_T")


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
    inputs: str | None = None
    """SHA-256 over what it was prepared from, by which the same command knows its work; older versions have none."""

    def shards_of(self, split: str | None) -> tuple[Shard, ...]:
        """The shards of one split (None: all). Raises InputError when there is no such split."""
        if split is not None and split not in self.splits:
            raise InputError(f"dataset {self.name} has no split '{split}'; it has {', '.join(sorted(self.splits))}")
        return tuple(shard for shard in self.shards if split is None or shard.split == split)


def fingerprint_of(options: Mapping[str, Any], shards: Sequence[Shard]) -> str:
    """The fingerprint of a dataset with these options and shards."""
    content = [SCHEMA_VERSION, dict(options), [[shard.path, shard.split, shard.sha256] for shard in shards]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def save_manifest(manifest: Manifest, dataset: str | Path) -> None:
    """Write `manifest` into `dataset` (path or URI), whole or not at all."""
    filesystem, root = locate(str(dataset))
    with arriving(filesystem, f"{root}/{MANIFEST_NAME}") as path:
        path.write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


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
            f"{dataset}: no {MANIFEST_NAME} to be read there, so it is no prepared dataset ({reason_of(error)}); "
            "make one with 'hdam prepare'"
        ) from error
    return _parse(text, str(dataset))


def check_size(dataset: str, size: int) -> None:
    """InputError unless the frames of `dataset` are `size` pixels wide, as a model expects them."""
    found = load_manifest(dataset).options.get("size")
    if found != size:
        raise InputError(
            f"{dataset}: its frames are {found} pixels wide, the model works on {size}; "
            f"prepare the same clips with --size {size}"
        )


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
            name=_text(content["name"], r"[a-z0-9-]+"),
            fingerprint=_text(content["fingerprint"], r"[0-9a-f]+"),
            options=dict(content["options"]),
            counts=_made(Counts, content["counts"]),
            splits={split: _made(Counts, counts) for split, counts in content["splits"].items()},
            shards=tuple(_made(Shard, shard) for shard in content["shards"]),
            inputs=None if content.get("inputs") is None else _text(content["inputs"], r"[0-9a-f]+"),
        )
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{where} is broken ({first_line(error)}); {AGAIN}") from error


def _made(kind: type[_T], content: Mapping[str, Any]) -> _T:
    """A dataclass of texts and counts, checked; ValueError or TypeError where a value is none."""
    made = kind(**content)
    for name, expected in get_type_hints(kind).items():
        value = getattr(made, name)
        if type(value) is not expected or (expected is int and value < 0):
            raise TypeError(f"{name} is {value!r:.60}")
        if expected is str:
            # Relative, downwards, and something that a filesystem can be asked for.
            _text(value, r"(?!/)(?!(.*/)?\.\.(/|$)).+")
    return made


def _text(value: Any, pattern: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or not re.fullmatch(pattern, value):
        raise ValueError(f"found {value!r:.60}")
    return value
