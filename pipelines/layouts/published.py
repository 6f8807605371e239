"""The published layout: folders `train/` and `test/` of clips, or text files that say which clip is in which.

MGIF and FashionVideo are published so too, each with one kind of file.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple, get_args

from hdam.pipelines.clips import Rejected, Split
from hdam.pipelines.errors import InputError
from hdam.pipelines.layouts.found import Found, Sources, Tree, looked_for, unreadable
from hdam.pipelines.layouts.naming import Known, clips_of, identity_of, stem_of
from hdam.pipelines.layouts.videos import are_strips

SPLITS: tuple[Split, ...] = get_args(Split)
SUFFIX_OF = {"mgif": ".gif", "fashion": ".mp4"}


class _Listed(NamedTuple):
    """A line of a list."""

    list_name: str
    split: Split
    name: str


def published(tree: Tree) -> Sources:
    """Clips of any kind in `train/` and `test/`; or in one folder, as `train_list.txt` and `test_list.txt` say.

    A list has one clip name a line, with or without suffix. Where there are both, the lists say which clips of the two
    folders are used. The identity is the name up to the first '#': in `train/` and `test/` that of the topmost folder
    or file. Raises InputError when there are neither two folders nor a list, or one of them gives no clip.
    """
    lists = list_names(tree)
    if lists:
        return _listed(tree, lists)
    sides = _sides(tree)
    used = [(found, Known(identity=_identity(found, split), split=split)) for split in SPLITS for found in sides[split]]
    notes = []
    if others := sum(not found.path.startswith(("train/", "test/")) for found in tree.clips()):
        notes.append(f"{others} clip(s) in {tree.listing.asked} lie neither in train/ nor in test/ and are left out")
    return Sources(clips_of(tree.listing, used), unreadable(tree.listing), notes, "published")


def published_files(tree: Tree, layout: Literal["mgif", "fashion"]) -> Sources:
    """The GIFs of MGIF or the MP4s of FashionVideo in `train/` and `test/`; each file is an identity of its own.

    The two folders may lie in one below, such as `moving-gif/`. Raises InputError when they are missing or hold none.
    """
    suffix = SUFFIX_OF[layout]
    base = next((folder for folder in sorted(tree.folders, key=_depth) if _has_sides(tree, folder)), "")
    sides = _sides(tree, base)
    used = [
        (found, Known(identity=stem_of(PurePosixPath(found.path).name), split=split))
        for split in SPLITS
        for found in sides[split]
        if found.path.lower().endswith(suffix) and found.kind != "frames"
    ]
    if missing := [split for split in SPLITS if split not in {known.split for _, known in used}]:
        raise InputError(f"{_place(tree, base)}{missing[0]}: holds no {suffix} file, which layout {layout} needs")
    notes = []
    if others := sum(map(len, sides.values())) - len(used):
        notes.append(f"{others} clip(s) that are no {suffix} are left out; --layout published takes all kinds")
    return Sources(clips_of(tree.listing, used), unreadable(tree.listing), notes, layout)


def is_published(tree: Tree) -> bool:
    """Whether there are clips in both `train/` and `test/`, or a list."""
    return bool(list_names(tree)) or all(_in_side(tree, split) for split in SPLITS)


def list_names(tree: Tree) -> dict[Split, str]:
    """The text file of each split that has one."""
    present = ((split, f"{split}_list{suffix}") for split in SPLITS for suffix in ("", ".txt"))
    return {split: name for split, name in present if name in tree.listing.files}


def _has_sides(tree: Tree, base: str = "") -> bool:
    return all(f"{base}/{split}".strip("/") in tree.folders for split in SPLITS)


def _sides(tree: Tree, base: str = "") -> dict[Split, list[Found]]:
    """The clips of either folder; InputError where one is missing or empty."""
    place = _place(tree, base)
    if not _has_sides(tree, base):
        raise InputError(
            f"{place}: expected folders train/ and test/ that hold clips, or train_list.txt and test_list.txt beside "
            "the clips; use another --layout for other folders"
        )
    sides = {split: _in_side(tree, f"{base}/{split}".strip("/")) for split in SPLITS}
    if empty := [split for split, found in sides.items() if not found]:
        raise InputError(f"{place}{empty[0]}: holds no clip; looked for {looked_for()}, and strips of frames")
    return sides


def _in_side(tree: Tree, folder: str) -> list[Found]:
    """The clips in a folder, which is none itself."""
    found = tree.clips(folder)
    if are_strips(tree, folder):
        found = [*(clip for clip in found if clip.kind != "frames"), *tree.strips(folder)]
    return [clip for clip in found if clip.path != folder]


def _identity(found: Found, side: str) -> str:
    """Folders in `train/` stand for identities, where clips lie deeper."""
    return identity_of(found.path.removeprefix(f"{side}/").split("/")[0])


def _listed(tree: Tree, lists: dict[Split, str]) -> Sources:
    lines = [_Listed(name, split, line) for split, name in lists.items() for line in _lines(tree, name)]
    whole = _in_side(tree, "")
    has_sides = _has_sides(tree)
    pools = {split: _in_side(tree, split) if has_sides else whole for split in lists}
    indices = {split: _index(pool, split if has_sides else "") for split, pool in pools.items()}
    used: list[tuple[Found, Known]] = []
    absent: list[Rejected] = []
    for line in lines:
        name = line.name.removeprefix("./").removeprefix(f"{line.split}/").rstrip("/")
        found = indices[line.split].get(name) or indices[line.split].get(stem_of(name))
        if found is None:
            place = _place(tree) + (line.split if has_sides else "")
            absent.append(Rejected(line.name, f"named in {line.list_name}, but there is no such clip in {place}"))
        else:
            identity = _identity(found, line.split) if has_sides else identity_of(found.path)
            used.append((found, Known(identity=identity, split=line.split)))
    asked = tree.listing.asked
    if not used:
        raise InputError(f"{asked}: none of the {len(absent)} clips named in {', '.join(lists.values())} is there")
    notes = []
    paths = {found.path for found, _ in used}
    if others := sum(found.path not in paths for found in whole):
        notes.append(f"{others} clip(s) in {asked} are named in neither list and are left out")
    return Sources(clips_of(tree.listing, used), [*absent, *unreadable(tree.listing)], notes, "published")


def _lines(tree: Tree, name: str) -> list[str]:
    """The clip names of a list, each once."""
    try:
        text = tree.listing.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{_place(tree)}{name}: no text in UTF-8; expected one clip name a line") from error
    names = [line.strip() for line in text.splitlines()]
    return list(dict.fromkeys(name for name in names if name))


def _index(pool: Sequence[Found], side: str) -> dict[str, Found]:
    """Clips by what a list may call them: their path, their name, and both without suffix, in this order."""
    index: dict[str, Found] = {}
    paths = [found.path.removeprefix(f"{side}/") for found in pool]
    for call in (
        lambda path: path,
        lambda path: PurePosixPath(path).name,
        stem_of,
        lambda path: stem_of(PurePosixPath(path).name),
    ):
        for path, found in zip(paths, pool, strict=True):
            index.setdefault(call(path), found)
    return index


def _place(tree: Tree, base: str = "") -> str:
    return f"{tree.listing.address}/{base}/" if base else f"{tree.listing.address}/"


def _depth(folder: str) -> tuple[int, str]:
    return folder.count("/") + bool(folder), folder
