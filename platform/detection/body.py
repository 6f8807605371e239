"""Bodies by mediapipe: 33 joints for AKD and MKR, found by a process with an environment of its own.

A joint counts as found where mediapipe gives it a visibility of at least 0.5 and a place inside of the frame: it also
guesses those that are hidden or cut off. Frames may be small, since mediapipe resizes what it looks at by itself.
"""

import contextlib
import json
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from hdam.pipelines.errors import InputError
from hdam.platform.detection.body_environment import REMEDY, body_dir, missing_for_bodies, python_of
from hdam.platform.detection.detector import Detections, DetectorError, Frames, check_frames

PROGRAM = Path(__file__).with_name("pose_process.py")
NUM_JOINTS = 33
LEAST_VISIBILITY = 0.5
SECONDS_TO_START = 120.0
SECONDS_PER_FRAME = 5.0
"""A hundred times what a frame takes on an idle CPU."""
SECONDS_PER_CLIP = 60.0
SECONDS_TO_DIE = 5.0
"""From the end of its pipes to its own."""
CHATTER = re.compile(r"(INFO|WARNING): |[IW]\d{4} ")
"""How the lines begin that mediapipe writes while nothing is wrong."""


class BodyDetector:
    """Joints of one body in every frame, followed from frame to frame; `with` starts the process and ends it.

    Tracking and smoothing begin anew with every call of `detect`, which is one clip. The joints are in mediapipe's
    order. Raises InputError where the environment is not here, and DetectorError where its process fails.
    """

    name = "mediapipe pose"
    num_joints = NUM_JOINTS
    version = ""
    """mediapipe's, once the process runs."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or body_dir()
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: BinaryIO | None = None
        self._is_late = False

    def __enter__(self) -> "BodyDetector":
        if fault := missing_for_bodies(self._folder):
            raise InputError(f"the body detector is not here ({fault}); get it: {REMEDY}")
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in filter(None, (self._process.stdin, self._process.stdout)):
                with contextlib.suppress(OSError):  # what was never sent goes nowhere
                    pipe.close()
        if self._complaints is not None:
            self._complaints.close()
        self._process = self._complaints = None

    def detect(self, frames: Frames) -> Detections:
        """Joints in the frames of one clip, uint8 [frame, height, width, 3]. Raises DetectorError where it fails."""
        check_frames(frames)
        num_frames, height, width = frames.shape[:3]
        if not num_frames:
            return Detections(np.zeros((0, NUM_JOINTS, 2), np.float32), np.zeros((0, NUM_JOINTS), bool))
        with self._patience(SECONDS_PER_CLIP + SECONDS_PER_FRAME * num_frames):
            self._send({"frames": num_frames, "height": height, "width": width}, frames)
            shape = (self._read_header()["frames"], NUM_JOINTS, 3)
            answer = np.frombuffer(self._read(4 * int(np.prod(shape))), "<f4").reshape(shape)
        return visible_joints(answer, height=height, width=width)

    def _start(self) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        command, pipe = [str(python_of(self._folder)), "-I", str(PROGRAM)], subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._complaints)
        except OSError as error:
            raise DetectorError(f"{command[0]} does not run ({error.strerror}); make it anew: {REMEDY}") from error
        with self._patience(SECONDS_TO_START):
            self.version = self._read_header()["version"]

    def _send(self, header: dict[str, int], frames: Frames) -> None:
        stdin = self._running().stdin
        stdin.write(json.dumps(header).encode() + b"\n")
        stdin.write(np.ascontiguousarray(frames).data)
        stdin.flush()

    def _read_header(self) -> dict[str, Any]:
        line = self._running().stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)

    def _read(self, num_bytes: int) -> bytes:
        content = self._running().stdout.read(num_bytes)
        if len(content) < num_bytes:
            raise EOFError
        return content

    def _running(self) -> Any:
        if self._process is None:
            raise DetectorError("the pose process is not running; use the body detector in a `with` block")
        return self._process

    @contextlib.contextmanager
    def _patience(self, seconds: float) -> Iterator[None]:
        """Kill the process after so many seconds, which ends all waiting for it; tell of its death."""
        timer = threading.Timer(seconds, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (BrokenPipeError, EOFError) as error:
            raise DetectorError(f"the pose process {self._end(seconds)}; see: hdam detectors check body") from error
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self._is_late = True
        if self._process is not None:
            self._process.kill()

    def _end(self, seconds: float) -> str:
        """How the process came to its end."""
        process = self._running()
        try:
            status = process.wait(timeout=SECONDS_TO_DIE)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if self._is_late:
            return f"was silent for {seconds:g} s and was ended"
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        last = _last_complaint(self._complaints) if self._complaints else ""
        return f"{how} (its last line: {last})" if last else how


def visible_joints(answer: np.ndarray, *, height: int, width: int) -> Detections:
    """From the process's float [frame, joint, 3] (x and y as shares of the sides, visibility) to joints in pixels."""
    places, visibility = answer[..., :2], answer[..., 2]
    is_inside = ((places >= 0) & (places <= 1)).all(axis=2)
    found = is_inside & (visibility >= LEAST_VISIBILITY)
    joints = places * np.array([width, height], np.float32) - 0.5
    return Detections(np.where(found[..., None], joints, np.nan).astype(np.float32), found)


def _last_complaint(complaints: BinaryIO) -> str:
    """The last line of what the process has written to stderr that says more than that it is running."""
    complaints.seek(0)
    lines = complaints.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip() and not CHATTER.match(line)), "")
