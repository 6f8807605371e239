"""What looking at file names finds: videos, animations, folders of frames and strips, not yet clips."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

from hdam.pipelines.clips import MediaKind, Rejected, SourceClip
from hdam.pipelines.listing import Listing
from hdam.pipelines.media import ANIMATION_SUFFIXES, FRAME_SUFFIXES, TRUTH_NAME, VIDEO_SUFFIXES, is_frame, natural_key

LayoutName = Literal["videos", "frames", "published", "strips", "voxceleb", "taichi", "ted", "mgif", "fashion", "table"]


class Sources(NamedTuple):
    """What was found to prepare."""

    clips: list[SourceClip]
    rejected: list[Rejected]
    """What is named somewhere and not there, and what cannot be looked at."""
    notes: list[str]
    """What a person should know: which layout was taken and why, what was left out."""
    layout: LayoutName


class Found(NamedTuple):
    """A clip by its looks: nothing of it has been read."""

    path: str
    """Relative to the listing's folder; empty for that folder itself, where it holds the frames."""
    kind: MediaKind
    files: tuple[str, ...]


class Tree:
    """The files of a listing by folder."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.files_of: dict[str, list[str]] = defaultdict(list)
        """Folder (empty: the listed one) to the names in it, relative to the listing."""
        self.folders: set[str] = set()
        """All folders that hold files, or folders that do."""
        for name in listing.files:
            self.files_of[name.rpartition("/")[0]].append(name)
        for folder in self.files_of:
            self.folders.update((folder, *_parents(folder)))

    def clips(self, below: str = "") -> list[Found]:
        """Videos, animations and folders of frames at or below a folder, in natural order.

        A folder of two numbered images and more is a clip; beside videos they are stills of them. What lies below a
        folder of frames is no clip.
        """
        found: list[Found] = []
        frames: set[str] = set()
        for folder in sorted(self.files_of, key=lambda folder: (folder.count("/"), folder)):
            if not is_below(folder, below) or any(parent in frames for parent in _parents(folder)):
                continue
            media = [Found(name, kind, (name,)) for name in self.files_of[folder] if (kind := media_kind(name))]
            images = [name for name in self.files_of[folder] if is_frame(name)]
            if not media and len(images) >= 2:
                frames.add(folder)
                found.append(Found(folder, "frames", (*_frames_in_order(images), *self._truth(folder))))
            found.extend(media)
        return sorted(found, key=lambda clip: natural_key(clip.path))

    def strips(self, below: str = "") -> list[Found]:
        """All images at or below a folder, each taken for a strip."""
        names = [name for name in self.listing.files if is_image(name) and is_below(name, below)]
        return [Found(name, "strip", (name,)) for name in sorted(names, key=natural_key)]

    def at(self, path: str) -> Found | None:
        """The clip that a path names: a file of a known kind, or a folder with frames; None where there is neither."""
        if path in self.listing.files:
            return Found(path, media_kind(path) or ("strip" if is_image(path) else "video"), (path,))
        images = [name for name in self.files_of.get(path, ()) if is_frame(name)]
        if path in self.folders:
            return Found(path, "frames", (*_frames_in_order(images), *self._truth(path)))
        return None

    def _truth(self, folder: str) -> list[str]:
        name = f"{folder}/{TRUTH_NAME}" if folder else TRUTH_NAME
        return [name] if name in self.listing.files else []


def suffix_of(name: str) -> str:
    """The suffix in lower case, with its dot; quicker than pathlib's by far, and datasets have millions of files."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > name.rfind("/") + 1 else ""


def media_kind(name: str) -> MediaKind | None:
    """Video or animation by the suffix; None for anything else."""
    suffix = suffix_of(name)
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "animation" if suffix in ANIMATION_SUFFIXES else None


def is_image(name: str) -> bool:
    """Whether a name is that of a PNG or JPEG."""
    return suffix_of(name) in FRAME_SUFFIXES


def is_below(name: str, folder: str) -> bool:
    """Whether a relative name is `folder` or lies in it; everything lies in the empty one."""
    return not folder or name == folder or name.startswith(f"{folder}/")


def looked_for() -> str:
    """The kinds of clips, for messages."""
    suffixes = ", ".join(sorted(VIDEO_SUFFIXES | ANIMATION_SUFFIXES))
    return f"{suffixes}, and folders of numbered {', '.join(sorted(FRAME_SUFFIXES))} frames"


def unreadable(listing: Listing) -> list[Rejected]:
    """The subfolders that could not be listed."""
    return [Rejected(f"{folder}/", f"cannot be listed ({reason})") for folder, reason in listing.unreadable.items()]


def _frames_in_order(names: Iterable[str]) -> list[str]:
    """Names of one folder by what they are called there."""
    return sorted(names, key=lambda name: natural_key(name.rpartition("/")[2]))


def _parents(folder: str) -> list[str]:
    """The folders above one, the listed one (empty) last."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, -1, -1)]
