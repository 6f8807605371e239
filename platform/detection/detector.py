"""What the metrics AKD, MKR and AED ask of a detector, whichever it is."""

from typing import NamedTuple, Protocol

import numpy as np

from hdam.pipelines.errors import InputError

Frames = np.ndarray
"""A clip: uint8 [frame, height, width, 3], RGB."""


class DetectorError(InputError):
    """A detector that stopped working; its message says which, why, and how to go on."""


class Detections(NamedTuple):
    """What was found in the frames of a clip."""

    joints: np.ndarray
    """float32 [frame, joint, 2]: x and y in pixels, 0 in the middle of the first pixel; NaN where not found."""
    found: np.ndarray
    """bool [frame, joint]."""


class Embeddings(NamedTuple):
    """Whom the frames of a clip show."""

    vectors: np.ndarray
    """float32 [frame, number]; NaN where no face was found. Nearby vectors, similar people."""
    found: np.ndarray
    """bool [frame]."""


class FrameDetector(Protocol):
    """Finds the joints of one face or body in every frame."""

    name: str
    version: str
    """Stands beside every figure with `name`: scores of other detectors, or of other versions, do not compare."""
    num_joints: int

    def detect(self, frames: Frames) -> Detections:
        """The joints in the frames of one clip, uint8 [frame, height, width, 3]; one call is one clip."""
        ...


class IdentityEmbedder(Protocol):
    """Describes the face in every frame by numbers, that are near each other for the same person."""

    name: str
    version: str
    num_numbers: int

    def embed(self, frames: Frames) -> Embeddings:
        """The face in every frame of one clip, uint8 [frame, height, width, 3]."""
        ...


def check_frames(frames: Frames) -> None:
    """Raise ValueError unless `frames` is a clip, which may have no frame."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape[1:]:
        raise ValueError(f"frames are {frames.dtype} {list(frames.shape)}, expected uint8 [frame, height, width, 3]")
