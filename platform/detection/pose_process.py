"""A program of its own: body joints by mediapipe, for frames that come on stdin. It knows nothing of hdam.

mediapipe wants other versions of protobuf and numpy than hdam's other packages, so that `body.py` runs this file with
the Python of an environment made for it. What they say to each other, JSON lines and raw arrays in C order:

    to stdout, once       {"version": …, "joints": 33}
    from stdin, per clip  {"frames": n, "height": h, "width": w}    and n times uint8 [h, w, 3], RGB
    to stdout, per clip   {"frames": n}                             and float32 [n, 33, 3], little-endian

The three numbers of a joint are x and y as shares of width and height, and its visibility; NaN where no body was found.
It answers when it has read a whole clip, and ends when stdin does.
"""

import json
import os
import signal
import sys
import types
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, BinaryIO

NUM_JOINTS = 33
MODEL_COMPLEXITY = 1
"""The one whose model the wheel holds; 0 and 2 would be downloaded."""
DRAWING = ("cv2", "matplotlib", "matplotlib.pyplot")
"""Imported by mediapipe for pictures alone, 200 MB with what they need: empty modules do."""


def main() -> None:
    """Answer clip after clip until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    open_pose = import_pose()
    send(answers, {"version": metadata.version("mediapipe"), "joints": NUM_JOINTS})
    while line := sys.stdin.buffer.readline():
        joints = track(open_pose, json.loads(line), sys.stdin.buffer)
        send(answers, {"frames": len(joints)}, joints.astype("<f4").tobytes())


def import_pose() -> Callable[..., Any]:
    """mediapipe's class of body trackers."""
    for name in DRAWING:
        sys.modules[name] = types.ModuleType(name)
    from mediapipe.python.solutions.pose import Pose

    return Pose


def track(open_pose: Callable[..., Any], header: Mapping[str, int], frames: BinaryIO) -> Any:
    """Joints of one clip, float [frame, joint, 3]: a tracker of its own, as it remembers the frames before."""
    import numpy as np

    height, width = header["height"], header["width"]
    joints = np.full((header["frames"], NUM_JOINTS, 3), np.nan, np.float32)
    with open_pose(static_image_mode=False, model_complexity=MODEL_COMPLEXITY) as pose:
        for index in range(header["frames"]):
            frame = np.frombuffer(read_whole(frames, height * width * 3), np.uint8).reshape(height, width, 3)
            landmarks = pose.process(frame).pose_landmarks
            if landmarks is not None:
                joints[index] = [(joint.x, joint.y, joint.visibility) for joint in landmarks.landmark]
    return joints


def read_whole(stream: BinaryIO, num_bytes: int) -> bytes:
    """So many bytes; this program ends where there are fewer, since the parent is gone."""
    content = stream.read(num_bytes)
    if len(content) < num_bytes:
        raise SystemExit("the frames ended in the middle of a clip")
    return content


def send(answers: BinaryIO, header: Mapping[str, Any], content: bytes = b"") -> None:
    """One answer."""
    answers.write(json.dumps(header).encode() + b"\n" + content)
    answers.flush()


if __name__ == "__main__":
    main()
