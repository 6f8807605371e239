"""Layout of a table: a CSV file that says which files to use, who is in them, and where to cut."""

import os
import posixpath
from typing import NamedTuple

from hdam.pipelines.clips import CropBox, Rejected, Split, Trim
from hdam.pipelines.errors import InputError
from hdam.pipelines.layouts.cells import Cells, parse_crop, parse_fps, parse_split, parse_trim, read_header, read_rows
from hdam.pipelines.layouts.found import Found, Sources, Tree, unreadable
from hdam.pipelines.layouts.naming import Known, clips_of
from hdam.pipelines.listing import Listing, is_remote, parent_of, read_bytes

TABLE_NAME = "manifest.csv"


class TableRow(NamedTuple):
    """One row of the table, checked."""

    file: str
    """Relative to the table's folder, or to the folder asked for."""
    identity: str | None
    split: Split | None
    crop: CropBox | None
    trim: Trim | None
    fps: float | None


def tabled(tree: Tree, table: str) -> Sources:
    """The clips that a table names below the folder; a file that is absent is rejected.

    Raises InputError when the table is wrong, names nothing below the folder, or nothing that is there.
    """
    rows = read_table(read_bytes(table), table)
    sources = _sources(tree, table, rows)
    if sources is None:
        asked = tree.listing.asked
        raise InputError(f"{table}: names no file in {asked}; paths are relative to the table or to that folder")
    return sources


def table_beside(tree: Tree) -> tuple[str, Sources] | None:
    """The address of the `manifest.csv` in the folder or its parent that names files below the folder, and its clips.

    None where there is none, or it is no table of clips.
    """
    listing = tree.listing
    above = parent_of(listing.address) if listing.single is None else None
    for folder in filter(None, (listing.address, above)):
        table = f"{folder.rstrip('/')}/{TABLE_NAME}"
        try:
            content = read_bytes(table)
            if "file" not in read_header(content, table):
                continue
        except InputError:
            continue
        sources = _sources(tree, table, read_table(content, table))
        if sources is not None:
            return table, sources
    return None


def read_table(content: bytes, where: str) -> list[TableRow]:
    """The rows of a table with columns `file`, and optionally `identity`, `split` (train, test), `crop_xywh`
    ('x y width height'), `trim` ('start:stop', frames) and `fps`; other columns are left alone, empty cells mean none.

    Raises InputError naming line and column of the first cell that is wrong.
    """
    return [_row(cells) for cells in read_rows(content, where, required=("file",))]


def _row(cells: Cells) -> TableRow:
    return TableRow(
        file=cells.required("file"),
        identity=cells.text("identity"),
        split=cells.parsed("split", parse_split, expected="train or test, or nothing"),
        crop=cells.parsed("crop_xywh", parse_crop, expected="'x y width height' in pixels"),
        trim=cells.parsed("trim", parse_trim, expected="'start:stop' in frames, start before stop"),
        fps=cells.parsed("fps", parse_fps, expected="frames per second, more than 0 and at most 1000"),
    )


def _sources(tree: Tree, table: str, rows: list[TableRow]) -> Sources | None:
    """The clips and absent files of the rows below the folder, or None where no row names anything there."""
    listing = tree.listing
    used: list[tuple[Found, Known]] = []
    absent: list[Rejected] = []
    for row in rows:
        path = _resolve(row.file, tree, parent_of(table) or "")
        if path is None:
            continue
        if (found := tree.at(path)) is None:
            absent.append(Rejected(row.file, "named in the table, but there is no such file or folder"))
        else:
            known = Known(identity=row.identity, split=row.split, crop=row.crop, trim=row.trim, fps=row.fps)
            used.append((found, known))
    if not used and not absent:
        return None
    if not used:
        raise InputError(f"{table}: none of the {len(absent)} files it names in {listing.asked} is there")
    notes = [f"{table} says which clips to use: {len(used)} of its {len(rows)} rows lie in {listing.asked}"]
    paths = {found.path for found, _ in used}
    if unnamed := sum(found.path not in paths for found in tree.clips()):
        notes.append(f"{unnamed} clip(s) in {listing.asked} are not named in {table} and are left out")
    return Sources(clips_of(listing, used), [*absent, *unreadable(listing)], notes, "table")


def _resolve(file: str, tree: Tree, table_folder: str) -> str | None:
    """Where a row's file lies, relative to the listed folder, or None where that is not below what was asked for."""
    listing = tree.listing
    candidates = [_joined(folder, file) for folder in (table_folder, listing.address)]
    below = [path for path in candidates if _relative(path, listing) is not None]
    if not below:
        return None
    paths = [_relative(path, listing) or "" for path in below]
    there = [path for path in paths if path in listing.files or path in tree.folders]
    # A file that the parent's table places in a sister folder is not one that is missing here.
    is_above = _starts_with(listing.address, table_folder)
    if is_above and below[0] != candidates[0] and paths[0] not in there:
        return None
    return (there or paths)[0]


def _joined(folder: str, file: str) -> str:
    if is_remote(folder):
        scheme, rest = folder.split("://", 1)
        return f"{scheme}://{posixpath.normpath(posixpath.join(rest, file))}"
    return os.path.normpath(f"{folder}/{file}" if not file.startswith("/") else file)


def _relative(path: str, listing: Listing) -> str | None:
    """`path` relative to the listed folder, None where it is not below what was asked for."""
    if not _starts_with(path, listing.asked):
        return None
    return path[len(listing.address) :].strip("/")


def _starts_with(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
