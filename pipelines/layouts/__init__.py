"""How clips lie on disk: one file per layout, told by name or found out. Each finds clips; none reads a frame."""

import os
from collections.abc import Callable
from typing import get_args

from hdam.pipelines.errors import InputError
from hdam.pipelines.layouts.found import LayoutName, Sources, Tree
from hdam.pipelines.layouts.metadata import (
    PATTERN,
    MetadataLayout,
    from_metadata,
    has_videos,
    is_metadata,
    layout_of,
    metadata_beside,
)
from hdam.pipelines.layouts.published import is_published, list_names, published, published_files
from hdam.pipelines.layouts.table import TABLE_NAME, table_beside, tabled
from hdam.pipelines.layouts.videos import any_videos, are_strips, frame_folders, strips
from hdam.pipelines.listing import list_files, read_bytes, whole_address

__all__ = ["LayoutName", "Sources", "find_sources"]

WITHOUT_TABLE: dict[LayoutName, Callable[[Tree], Sources]] = {
    "videos": any_videos,
    "frames": frame_folders,
    "published": published,
    "strips": strips,
    "mgif": lambda tree: published_files(tree, "mgif"),
    "fashion": lambda tree: published_files(tree, "fashion"),
}
METADATA_LAYOUTS: tuple[MetadataLayout, ...] = get_args(MetadataLayout)


def find_sources(
    address: str | os.PathLike[str], *, layout: LayoutName | None = None, table: str | os.PathLike[str] | None = None
) -> Sources:
    """The clips at `address`: a folder with its subfolders, one file, or one folder of frames; a path or a URI.

    Without `layout` the first that fits is taken, and a note says which and why: the one that the `table` told has the
    columns of; a `manifest.csv` or a metadata table in the folder or its parent that names files in it; `train/` and
    `test/`, or lists for them; strips; videos and frames of any kind.

    Raises InputError when there is nothing, when the layout told does not fit, or when a table or list is wrong.
    """
    if layout is not None and layout not in get_args(LayoutName):
        raise InputError(f"layout is {layout!r}; expected one of {', '.join(get_args(LayoutName))}")
    address = os.fspath(address)
    tree = Tree(list_files(address))
    where = None if table is None else whole_address(os.fspath(table))
    sources, reason = _find_out(tree, where) if layout is None else (_told(tree, layout, where), "told by --layout")
    note = f"layout {sources.layout}: {reason}"
    if layout is None:
        note += " (found out; --layout tells another)"
    return sources._replace(notes=[note, *sources.notes])


def _told(tree: Tree, layout: LayoutName, table: str | None) -> Sources:
    for name in METADATA_LAYOUTS:
        if layout == name:
            table = table or metadata_beside(tree, name)
            if table is None:
                raise InputError(
                    f"{tree.listing.asked}: no metadata table {PATTERN} in it or beside it, "
                    f"which layout {layout} needs; tell it by --table"
                )
            return from_metadata(tree, table, layout=name)
    if layout == "table":
        if table is not None:
            return tabled(tree, table)
        beside = table_beside(tree)
        if beside is None:
            raise InputError(
                f"{tree.listing.asked}: no {TABLE_NAME} in it or beside it names files in it, "
                "which layout table needs; tell another by --table"
            )
        return beside[1]
    if table is not None:
        raise InputError(f"layout {layout} uses no table; leave --table out, or use --layout table")
    return WITHOUT_TABLE[layout](tree)


def _find_out(tree: Tree, table: str | None) -> tuple[Sources, str]:
    """The clips and why they were looked for in this way."""
    if table is not None:
        read_bytes(table, num_bytes=1)
        if is_metadata(table):
            return from_metadata(tree, table, layout=layout_of(table)), "the table has the columns of its metadata"
        return tabled(tree, table), "told by --table"
    beside = table_beside(tree)
    if beside is not None:
        return beside[1], f"{beside[0]} names files there"
    if tree.listing.single is None:
        metadata = metadata_beside(tree)
        if metadata is not None and has_videos(tree, metadata):
            return from_metadata(tree, metadata, layout=layout_of(metadata)), f"{metadata} names raw videos there"
        if is_published(tree):
            lists = ", ".join(list_names(tree).values())
            return published(tree), f"clips are named in {lists}" if lists else "train/ and test/ hold clips"
        if not any(found.kind != "frames" for found in tree.clips()) and are_strips(tree):
            return strips(tree), "the images are whole multiples of their height wide"
    sources = any_videos(tree)
    if all(clip.kind == "frames" for clip in sources.clips):
        return sources._replace(layout="frames"), "folders hold numbered images"
    return sources, "videos, animations and folders of frames of any name"
