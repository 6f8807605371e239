"""Layouts without a table: a folder of clips of any kind, of folders of frames, or of strips."""

import io

from PIL import Image

from hdam.pipelines.errors import InputError
from hdam.pipelines.layouts.found import Found, LayoutName, Sources, Tree, is_below, is_image, looked_for, unreadable
from hdam.pipelines.layouts.naming import Known, clips_of
from hdam.pipelines.listing import Listing
from hdam.pipelines.media import BROKEN_IMAGE, FRAME_SUFFIXES

HEAD_BYTES = 1 << 18
"""Enough of an image to tell its size, also behind the thumbnail of a camera."""
LOOKED_AT = 4
"""Folders, and images of each, that are looked at to tell strips from frames."""


def any_videos(tree: Tree) -> Sources:
    """Every video, animation and folder of frames; InputError when there is none."""
    found = tree.clips()
    if not found:
        asked, single = tree.listing.asked, tree.listing.single
        raise InputError(f"{asked}: {'no video found' if single is None else 'not a video'}; looked for {looked_for()}")
    return _sources(tree, found, layout="videos")


def frame_folders(tree: Tree) -> Sources:
    """Every folder of frames; InputError when there is none."""
    found = tree.clips()
    frames = [clip for clip in found if clip.kind == "frames"]
    if not frames:
        suffixes = ", ".join(sorted(FRAME_SUFFIXES))
        raise InputError(
            f"{tree.listing.asked}: no folder of frames; expected folders of two {suffixes} files and more whose names "
            f"end in a number; found {len(found)} other clip(s)"
        )
    sources = _sources(tree, frames, layout="frames")
    if len(found) > len(frames):
        sources.notes.append(f"{len(found) - len(frames)} video(s) are left out; --layout videos takes all kinds")
    return sources


def strips(tree: Tree) -> Sources:
    """Every PNG and JPEG, each a strip of square frames side by side; InputError when there is none.

    Whether an image really is a strip is seen when it is read: one that is none is rejected then.
    """
    found = tree.strips()
    if not found:
        raise InputError(f"{tree.listing.asked}: no image found; looked for {', '.join(sorted(FRAME_SUFFIXES))} strips")
    return _sources(tree, found, layout="strips")


def are_strips(tree: Tree, below: str = "") -> bool:
    """Whether the images at or below a folder are strips, by the sizes of some of them.

    Numbered strips are named like frames. Frames of one folder have one size; strips are a multiple of their height
    wide, and differ in it. Images all of one size and twice as wide as high are taken for frames: films may be so.
    """
    images = {
        folder: names
        for folder, files in sorted(tree.files_of.items())
        if is_below(folder, below) and (names := [name for name in files if is_image(name)])
    }
    seen = [_have_shape_of_strips(tree.listing, images[folder]) for folder in _some(list(images))]
    known = [are for are in seen if are is not None]
    return bool(known) and all(known)


def _have_shape_of_strips(listing: Listing, names: list[str]) -> bool | None:
    """Whether the images of one folder have the sizes of strips; None where none can be read."""
    sizes = [_size(listing, name) for name in _some(names)]
    known = [size for size in sizes if size is not None]
    if not known:
        return None
    if any(width % height or width < 2 * height for width, height in known):
        return False
    return len(set(known)) > 1 or known[0][0] > 2 * known[0][1]


def _some(names: list[str]) -> list[str]:
    """A few of many, from all over."""
    return names[:: -(-len(names) // LOOKED_AT) or 1]


def _size(listing: Listing, name: str) -> tuple[int, int] | None:
    try:
        with Image.open(io.BytesIO(listing.read(name, num_bytes=HEAD_BYTES))) as image:
            return image.size
    except (*BROKEN_IMAGE, InputError):
        return None


def _sources(tree: Tree, found: list[Found], *, layout: LayoutName) -> Sources:
    clips = clips_of(tree.listing, [(clip, Known()) for clip in found])
    return Sources(clips, unreadable(tree.listing), [], layout)
