"""What a clip is on its way from a file to a shard and back."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdam.pipelines.frame_codec import Pixels, decode_frame, decode_mask

Split = Literal["train", "test"]
MediaKind = Literal["video", "animation", "frames", "strip"]
"""A film; a GIF or WebP; a folder of numbered images; one image of square frames side by side."""


class CropBox(NamedTuple):
    """A rectangle of whole pixels in the frame: x right, y down, from the top left corner."""

    left: int
    top: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.left} {self.top} {self.width} {self.height}"


class Trim(NamedTuple):
    """Frames `start` to `stop` of a file, `stop` itself left out; `stop` None: to the end."""

    start: int
    stop: int | None

    def __str__(self) -> str:
        return f"{self.start}:{'' if self.stop is None else self.stop}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceClip:
    """One clip to prepare: where it lies and what is known about it before a frame is read."""

    root: str
    """The folder that was listed: an absolute path, or a URI (`s3://…`)."""
    path: str
    """The file or folder of frames, relative to `root`; empty where `root` itself is the folder of frames."""
    files: tuple[str, ...]
    """All files it is read from, relative to `root`; frames in their order, ground truth last."""
    kind: MediaKind
    stamp: str
    """Hex digest of names, sizes and modification times of `files`: a changed file has another."""
    source: str
    """What goes into the shard for `path`, so that no machine's path does."""
    clip_id: str
    """Unique in its dataset, and safe as a file name."""
    identity: str
    """Who or what is shown: the unit of the train/test split."""
    split: Split | None = None
    """None: decided by the seeded hash of the identity."""
    crop: CropBox | None = None
    """None: the whole frame."""
    crop_frame: tuple[int, int] | None = None
    """Height and width of the frames that `crop` was measured in; it scales from there. None: those of the file."""
    trim: Trim | None = None
    """None: all frames."""
    trim_fps: float | None = None
    """Frames per second that `trim` counts; it is moved to the file's frames from there. None: those of the file."""
    fps: float | None = None
    """None: what the file says."""
    num_bytes: int | None = None
    """Of `files`, all together; None: unknown."""


class Rejected(NamedTuple):
    """A file that was left out, and why, in one line."""

    file: str
    reason: str


class Truth(NamedTuple):
    """Ground truth of a synthetic clip, per frame; None where it is not given."""

    joints: NDArray[np.float32] | None
    """[frame, joint, 2] in -1…1 (x right, y down; -1 and 1 are the centres of the border pixels)."""
    centroid: NDArray[np.float32] | None
    """[frame, 2] in -1…1."""
    part_masks: Pixels | None
    """[frame, height, width] label map, 0 the background."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One clip read back from its shards, its frames in the order of time and still encoded."""

    clip_id: str
    identity: str
    split: str
    fps: float
    source: str
    frames: list[bytes]
    """One encoded frame each; `frame(i)` decodes."""
    keypoints: NDArray[np.float32] | None
    """[frame, joint, 2] in -1…1, or None."""
    centroid: NDArray[np.float32] | None
    """[frame, 2] in -1…1, or None."""
    part_masks: list[bytes] | None
    """One encoded label map each, or None; `part_mask(i)` decodes."""

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""
        return len(self.frames)

    def frame(self, index: int) -> Pixels:
        """Frame `index` as uint8 [height, width, 3] RGB."""
        return decode_frame(self.frames[index])

    def part_mask(self, index: int) -> Pixels:
        """Label map of frame `index` as uint8 [height, width]; ValueError where the clip has none."""
        if self.part_masks is None:
            raise ValueError(f"clip {self.clip_id} has no part masks; only synthetic clips have")
        return decode_mask(self.part_masks[index])
