"""Find the clips of a folder: by its table where there is one, by looking for videos and frames where there is none."""

import os
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from hdam.pipelines.clips import Rejected, SourceClip
from hdam.pipelines.errors import InputError
from hdam.pipelines.media import ANIMATION_SUFFIXES, FRAME_SUFFIXES, VIDEO_SUFFIXES, is_frame, natural_key
from hdam.pipelines.table import TableRow, has_file_column, read_table

TABLE_NAME = "manifest.csv"
MAX_ID_LENGTH = 80


class Sources(NamedTuple):
    """What was found to prepare."""

    clips: list[SourceClip]
    rejected: list[Rejected]
    """Rows of the table whose file is absent."""
    notes: list[str]
    """What a person should know: which table was used, what was left out."""


def find_sources(videos: Path, *, table: Path | None = None) -> Sources:
    """The clips of `videos`: a folder (searched with its subfolders), one video, or one folder of frames.

    A `table` says which files are used, and how (see `table.read_table`; its `file` is relative to the table's folder
    or to `videos`). Without one, a `manifest.csv` in the folder, or in its parent where it names files below the
    folder, is used. Without any, every video, animation and folder of frames is a clip, and its identity is its name
    up to '#' (the published naming).

    Raises InputError when `videos` is missing or holds no clip, or when the table is wrong.
    """
    if not videos.exists():
        raise InputError(f"{videos}: no such file or folder")
    videos = _whole_path(videos)
    named = _named_by_table(videos, table)
    if named is not None:
        return named
    paths = sorted(_scan(videos), key=lambda path: natural_key(str(path)))
    if not paths:
        raise InputError(f"{videos}: no video found; looked for {_looked_for()}")
    base = videos.parent if paths == [videos] else videos
    names = [path.relative_to(base).as_posix() for path in paths]
    clips = [
        SourceClip(path=path, source=name, clip_id=clip_id, identity=identity_of(path))
        for path, name, clip_id in zip(paths, names, clip_ids(names), strict=True)
    ]
    return Sources(clips, [], [])


def identity_of(path: Path) -> str:
    """The published naming: what stands before the first '#' is the identity, the rest tells its clips apart."""
    stem = path.stem if path.suffix.lower() in VIDEO_SUFFIXES | ANIMATION_SUFFIXES else path.name
    return stem.split("#")[0] or stem


def clip_ids(names: Iterable[str]) -> list[str]:
    """One id per name, unique even where letters' case is lost, of letters, digits, '.', '_' and '-' only."""
    taken: set[str] = set()
    ids = []
    for name in names:
        stem = name[: -len(Path(name).suffix)] if _is_media(Path(name)) else name
        base = re.sub(r"[^A-Za-z0-9._-]+", "_", stem.replace("/", "-")).strip("._-") or "clip"
        if len(base) > MAX_ID_LENGTH:
            base = f"{base[: MAX_ID_LENGTH - 9]}-{sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"
        clip_id, number = base, 1
        while clip_id.casefold() in taken:
            number += 1
            clip_id = f"{base}-{number}"
        taken.add(clip_id.casefold())
        ids.append(clip_id)
    return ids


def _named_by_table(videos: Path, table: Path | None) -> Sources | None:
    """The clips that a table names, or None where there is no table."""
    if table is not None:
        if not table.is_file():
            raise InputError(f"{table}: no such table")
        found = _from_table(videos, _whole_path(table))
        if found is None:
            raise InputError(f"{table}: names no file in {videos}; paths are relative to the table or to that folder")
        return found
    folders = [videos, videos.parent] if videos.is_dir() else [videos.parent]
    for candidate in (folder / TABLE_NAME for folder in folders):
        if candidate.is_file() and has_file_column(candidate):
            found = _from_table(videos, candidate)
            if found is not None:
                return found
    return None


def _from_table(videos: Path, table: Path) -> Sources | None:
    """The clips and absent files of the rows below `videos`, or None where no row names anything there."""
    rows, rejected = [], []
    listed = read_table(table)
    for row in listed:
        path = _resolve(row.file, videos, table)
        if path is None:
            continue
        if path.exists():
            rows.append((path, row))
        else:
            rejected.append(Rejected(row.file, "named in the table, but there is no such file or folder"))
    if not rows and not rejected:
        return None
    if not rows:
        raise InputError(f"{table}: none of the {len(rejected)} files it names in {videos} is there")
    base = videos if videos.is_dir() and any(path != videos for path, _ in rows) else videos.parent
    names = [path.relative_to(base).as_posix() for path, _ in rows]
    clips = [
        _clip(path, name, clip_id, row) for (path, row), name, clip_id in zip(rows, names, clip_ids(names), strict=True)
    ]
    notes = [f"{table} says which clips to use: {len(rows)} of its {len(listed)} rows lie in {videos}"]
    if unnamed := sum(path not in {used for used, _ in rows} for path in _scan(videos)):
        notes.append(f"{unnamed} clip(s) in {videos} are not named in {table} and are left out")
    return Sources(clips, rejected, notes)


def _clip(path: Path, name: str, clip_id: str, row: TableRow) -> SourceClip:
    return SourceClip(
        path=path,
        source=name,
        clip_id=clip_id,
        identity=row.identity or identity_of(path),
        split=row.split,
        crop=row.crop,
        trim=row.trim,
        fps=row.fps,
    )


def _whole_path(path: Path) -> Path:
    """An absolute path that can be compared with others: without '..', whose meaning depends on symbolic links."""
    return path.resolve() if ".." in path.parts else path.absolute()


def _resolve(file: str, videos: Path, table: Path) -> Path | None:
    """Where a row's file lies, or None where that is not below `videos`."""
    base = videos if videos.is_dir() else videos.parent
    candidates = [Path(os.path.normpath(folder / file)) for folder in (table.parent, base)]
    below = [path for path in candidates if path == videos or videos in path.parents]
    if not below:
        return None
    # A file that the parent's table places in a sister folder is not one that is missing here.
    if table.parent in (base, *base.parents) and below[0] != candidates[0] and not below[0].exists():
        return None
    return next((path for path in below if path.exists()), below[0])


def _scan(path: Path) -> Iterator[Path]:
    """Videos, animations and folders of frames at or below `path`; hidden ones are passed over."""
    if path.is_file():
        if not _is_media(path):
            raise InputError(f"{path}: not a video; looked for {_looked_for()}")
        yield path
        return
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        here = [Path(folder, name) for name in sorted(files) if not name.startswith(".")]
        media = [entry for entry in here if _is_media(entry)]
        yield from media
        # Two numbered images make a clip; beside videos they are stills of them.
        if not media and sum(is_frame(entry) for entry in here) >= 2:
            subfolders.clear()
            yield Path(folder)


def _is_media(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES | ANIMATION_SUFFIXES


def _looked_for() -> str:
    suffixes = ", ".join(sorted(VIDEO_SUFFIXES | ANIMATION_SUFFIXES))
    return f"{suffixes}, and folders of numbered {', '.join(sorted(FRAME_SUFFIXES))} frames"
