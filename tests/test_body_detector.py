"""The real detector of bodies on real dancers, and its process: how it ends, dies, and is never waited for in vain."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from processes import is_alive, wait_until
from real_clips import clip_names, read_clip, shifted

from hdam.platform.detection import body
from hdam.platform.detection.body import BodyDetector, visible_joints
from hdam.platform.detection.detector import DetectorError

BLACK = np.zeros((2, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def detector(body_folder):
    with BodyDetector(body_folder) as opened:
        yield opened


@pytest.fixture
def own(body_folder):
    """A detector with a process of its own, to be ill-treated."""
    with BodyDetector(body_folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def dancing(clips):
    return [read_clip(clips, name, size=256, num_frames=6) for name in clip_names(clips, "bodies")]


def test_bodies_are_found_in_every_clip(detector, dancing):
    assert len(dancing) == 4 and detector.version == "0.10.21"
    for clip in dancing:
        joints, found = detector.detect(clip)
        assert joints.shape == (6, 33, 2) and joints.dtype == np.float32 and found.dtype == bool
        assert found.any(axis=1).all() and found.mean() > 0.8
        assert np.array_equal(np.isfinite(joints).all(axis=2), found)
        places = joints[found]
        assert places.min() >= -0.5 and places.max() <= 255.5
        shoulders, hips = joints[:, [11, 12], 1], joints[:, [23, 24], 1]
        assert (np.nanmean(shoulders, axis=1) < np.nanmean(hips, axis=1)).all(), "shoulders above the hips"


def test_joints_move_with_the_frame(detector, dancing):
    before, after = (np.stack([detector.detect(clip).joints for clip in moved]) for moved in both(dancing))
    assert np.nanmedian(np.abs(after - before - [7, -4])) < 1


def both(dancing):
    return dancing, [shifted(clip, right=7, down=-4) for clip in dancing]


def test_every_clip_begins_anew(detector, dancing):
    alone = detector.detect(dancing[0])
    detector.detect(dancing[1])
    assert np.array_equal(detector.detect(dancing[0]).joints, alone.joints, equal_nan=True)


def test_mirrored_and_black_frames(detector, dancing):
    assert detector.detect(dancing[0][:, :, ::-1]).found.any(axis=1).all()
    assert not detector.detect(np.zeros_like(dancing[0])).found.any()


def test_a_clip_without_frames(detector):
    joints, found = detector.detect(BLACK[:0])
    assert joints.shape == (0, 33, 2) and found.shape == (0, 33)


def test_hidden_joints_and_those_outside_do_not_count():
    answer = np.full((3, 1, 3), np.nan, np.float32)
    answer[0, 0], answer[1, 0] = (0.5, 0.25, 0.5), (0.5, 0.25, 0.49)
    joints, found = visible_joints(answer, height=8, width=64)
    assert found.tolist() == [[True], [False], [False]]
    assert joints[0, 0].tolist() == [31.5, 1.5] and np.isnan(joints[1:]).all()
    answer[:, 0] = [(1.01, 0.5, 1), (-0.01, 0.5, 1), (0.5, 1.01, 1)]
    assert not visible_joints(answer, height=8, width=64).found.any()


def test_a_killed_process_is_told_in_one_line(own):
    os.kill(own.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(DetectorError, match=r"^the pose process was killed by signal 9.*detectors check body$"):
            own.detect(BLACK)


def test_the_last_words_of_the_process_are_told(own):
    own._process.stdin.write(b"no header\n")
    own._process.stdin.flush()
    with pytest.raises(DetectorError, match=r"ended with status 1 \(its last line: json.*JSONDecodeError"):
        own.detect(BLACK)


@pytest.mark.parametrize("num_frames", [1, 20], ids=["while it is silent", "while it takes no frames"])
def test_a_stopped_process_is_not_waited_for(own, monkeypatch, num_frames):
    monkeypatch.setattr(body, "SECONDS_PER_CLIP", 1.0)
    monkeypatch.setattr(body, "SECONDS_PER_FRAME", 0.0)
    pid = own.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DetectorError, match="was silent for 1 s and was ended"):
        own.detect(np.zeros((num_frames, 64, 64, 3), np.uint8))
    assert not is_alive(pid)


def test_outside_of_its_block_there_is_no_process(body_folder):
    with BodyDetector(body_folder) as opened:
        pid = opened.pid
        assert is_alive(pid)
    assert not is_alive(pid) and opened.pid is None
    with pytest.raises(DetectorError, match="not running"):
        opened.detect(BLACK)


WAITING = """
import sys, time
from pathlib import Path
from hdam.platform.detection.body import BodyDetector
with BodyDetector(Path(sys.argv[1])) as detector:
    print(detector.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_the_process_ends_with_its_parent(body_folder, name):
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, str(body_folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as parent:
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        if name == "SIGINT":
            os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
        else:
            parent.kill()
        assert parent.wait(timeout=20) == -signal.Signals[name]
    assert wait_until(lambda: not is_alive(pid), seconds=10)
