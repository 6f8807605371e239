"""Faces by dlib: 68 landmarks for AKD, and 128 numbers that tell people apart for AED.

The histogram detector looks for faces of 80 pixels and more, so that small frames are enlarged first: both sides by the
smallest whole number that makes the shorter one at least 256 pixels (64² by 4, 128² by 2). The landmarks, which are
whole pixels there, are given in the pixels of the frame. Of several faces, the largest counts.
"""

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hdam.pipelines.errors import InputError
from hdam.platform.detection.detector import Detections, DetectorError, Embeddings, Frames, check_frames
from hdam.platform.detection.face_files import IDENTITY_FILE, LANDMARKS_FILE, REMEDY, REPAIR, face_file, face_version

LEAST_SIDE_PIXELS = 256
"""The shorter side of a frame in which faces are looked for."""
NUM_LANDMARKS = 68
NUM_IDENTITY = 128


class _Face(NamedTuple):
    """A face as dlib has it."""

    frame: np.ndarray
    """The frame, enlarged: uint8 [height, width, 3]."""
    shape: Any
    """dlib's landmarks in `frame`."""


class FaceDetector:
    """Landmarks of the largest face in every frame, in the order of the iBUG 300-W scheme."""

    name = "dlib face landmarks"
    num_joints = NUM_LANDMARKS

    def __init__(self) -> None:
        self.version = face_version()
        self._finder = _FaceFinder()

    def detect(self, frames: Frames) -> Detections:
        """Landmarks in every frame of uint8 [frame, height, width, 3]: of one, all are found or none."""
        check_frames(frames)
        joints = np.full((len(frames), NUM_LANDMARKS, 2), np.nan, np.float32)
        factor = enlargement(frames.shape[1:3])
        for index, frame in enumerate(frames):
            if (face := self._finder.find(frame)) is not None:
                enlarged = np.array([(point.x, point.y) for point in face.shape.parts()], np.float32)
                joints[index] = (enlarged + 0.5) / factor - 0.5
        return Detections(joints, ~np.isnan(joints[..., 0]))


class FaceEmbedder:
    """dlib's residual network on the largest face in every frame."""

    name = "dlib face identity"
    num_numbers = NUM_IDENTITY

    def __init__(self) -> None:
        self.version = face_version()
        self._finder = _FaceFinder()
        self._network = _loaded("face_recognition_model_v1", IDENTITY_FILE)

    def embed(self, frames: Frames) -> Embeddings:
        """128 numbers for every frame of uint8 [frame, height, width, 3]."""
        check_frames(frames)
        vectors = np.full((len(frames), NUM_IDENTITY), np.nan, np.float32)
        for index, frame in enumerate(frames):
            if (face := self._finder.find(frame)) is not None:
                vectors[index] = self._network.compute_face_descriptor(face.frame, face.shape)
        return Embeddings(vectors, ~np.isnan(vectors[:, 0]))


class _FaceFinder:
    """The largest face of a frame, with its landmarks."""

    def __init__(self) -> None:
        self._boxes = _dlib().get_frontal_face_detector()
        self._landmarks = _loaded("shape_predictor", LANDMARKS_FILE)

    def find(self, frame: np.ndarray) -> _Face | None:
        """The largest face in uint8 [height, width, 3]; None where there is none."""
        large = _enlarged(frame)
        boxes = self._boxes(large)
        if not boxes:
            return None
        return _Face(large, self._landmarks(large, max(boxes, key=lambda box: box.area())))


def enlargement(size: tuple[int, ...]) -> int:
    """How many times a frame of (height, width) is enlarged before faces are looked for."""
    return -(-LEAST_SIDE_PIXELS // min(LEAST_SIDE_PIXELS, *size))


def _enlarged(frame: np.ndarray) -> np.ndarray:
    factor = enlargement(frame.shape[:2])
    if factor == 1:
        return np.ascontiguousarray(frame)
    size = (frame.shape[1] * factor, frame.shape[0] * factor)
    return np.array(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def _dlib() -> Any:
    try:
        import dlib
    except ImportError as error:
        raise InputError(f"the face detector needs dlib ({error}); get it: {REMEDY}") from error
    return dlib


def _loaded(program: str, file_name: str) -> Any:
    """One of dlib's programs with its trained weights."""
    make, path = getattr(_dlib(), program), face_file(file_name)
    try:
        return make(str(path))
    except RuntimeError as error:
        raise DetectorError(f"{path} is damaged ({error}); install it again: {REPAIR}") from error
