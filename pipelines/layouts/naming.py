"""Names: the identity that a file's name tells, ids that are safe everywhere, and clips made of what was found."""

import json
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import PurePosixPath
from typing import NamedTuple

from hdam.pipelines.clips import CropBox, SourceClip, Split, Trim
from hdam.pipelines.errors import printable
from hdam.pipelines.layouts.found import Found, is_image, media_kind, suffix_of
from hdam.pipelines.listing import Listing

MAX_ID_LENGTH = 80


class Known(NamedTuple):
    """What a layout knows of a clip besides where it lies; None: nothing."""

    name: str | None = None
    """Names the clip in the dataset; None: its path."""
    identity: str | None = None
    """None: as its path tells, see `identity_of`."""
    split: Split | None = None
    crop: CropBox | None = None
    crop_frame: tuple[int, int] | None = None
    trim: Trim | None = None
    trim_fps: float | None = None
    fps: float | None = None


def clips_of(listing: Listing, found: Sequence[tuple[Found, Known]]) -> list[SourceClip]:
    """A clip for each, with an id that no other has; see `SourceClip` for the fields."""
    paths = [item.path or PurePosixPath(listing.address).name for item, _ in found]
    ids = clip_ids([known.name or path for path, (_, known) in zip(paths, found, strict=True)])
    return [
        SourceClip(
            root=listing.address,
            path=item.path,
            files=item.files,
            kind=item.kind,
            stamp=stamp_of(listing, item.files),
            num_bytes=sum(listing.files[file].num_bytes for file in item.files),
            source=printable(path),
            clip_id=clip_id,
            identity=printable(known.identity or identity_of(path)),
            split=known.split,
            crop=known.crop,
            crop_frame=known.crop_frame,
            trim=known.trim,
            trim_fps=known.trim_fps,
            fps=known.fps,
        )
        for (item, known), path, clip_id in zip(found, paths, ids, strict=True)
    ]


def identity_of(path: str) -> str:
    """The published naming: what stands before the first '#' is the identity, the rest tells its clips apart."""
    stem = stem_of(PurePosixPath(path).name)
    return stem.split("#")[0] or stem


def stem_of(name: str) -> str:
    """A name without its suffix, where that is one of media."""
    return name[: -len(suffix_of(name))] if media_kind(name) or is_image(name) else name


def clip_ids(names: Iterable[str]) -> list[str]:
    """One id per name, unique even where letters' case is lost, of letters, digits, '.', '_' and '-' only."""
    taken: set[str] = set()
    ids = []
    for name in names:
        base = re.sub(r"[^A-Za-z0-9._-]+", "_", stem_of(name).replace("/", "-")).strip("._-") or "clip"
        if len(base) > MAX_ID_LENGTH:
            base = f"{base[: MAX_ID_LENGTH - 9]}-{sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"
        clip_id, number = base, 1
        while clip_id.casefold() in taken:
            number += 1
            clip_id = f"{base}-{number}"
        taken.add(clip_id.casefold())
        ids.append(clip_id)
    return ids


def stamp_of(listing: Listing, files: Sequence[str]) -> str:
    """Hex digest over names, sizes and modification times of files."""
    facts = [(name, *listing.files[name]) for name in files]
    return sha256(json.dumps(facts).encode()).hexdigest()[:32]
