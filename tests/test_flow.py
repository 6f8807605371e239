"""Optical flow of real frames that were moved by known flows, and the warp error that it gives real clips."""

import base64
import hashlib
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from real_clips import read_clip

from hdam.models.temporal_metrics import visible, warp_error
from hdam.pipelines.errors import InputError
from hdam.pipelines.puppets.clips import render_puppet
from hdam.platform.detection.catalogue import check_detector, open_flow
from hdam.platform.detection.flow import REMEDY, OpticalFlow

REAL = ("faces/lp_d0.mp4", "faces/moore_2.mp4", "bodies/sam2_juggle.mp4", "cartoons/fluent_dog_1f415.webp")
SIZES = (64, 256)


@pytest.fixture(scope="module")
def flow(optical_flow):
    return open_flow()


def window(picture, size, *, right=0, down=0):
    """The middle of a picture, whose content has moved."""
    top, left = (side // 2 - size // 2 for side in picture.shape[:2])
    return picture[top - down :, left - right :][:size, :size]


def brightness(frame):
    return np.asarray(Image.fromarray(frame).convert("L")).astype(float)


def is_textured(frame):
    """Where motion can be seen."""
    return np.hypot(*np.gradient(brightness(frame))) > 4


def end_point_errors(estimated, true, where):
    return np.linalg.norm(estimated - true, axis=-1)[where]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", REAL)
def test_a_shift_by_whole_pixels_is_found(flow, clips, name, size):
    right, down = (5, -3) if size == 64 else (17, -8)
    picture = read_clip(clips, name, size=size + 64, num_frames=1)[0]
    clip = np.stack([window(picture, size), window(picture, size, right=right, down=down)])
    inside = np.zeros((size, size), bool)
    inside[max(down, 0) : size + min(down, 0), max(right, 0) : size + min(right, 0)] = True
    flows = flow.estimate(clip)
    for estimated, true, seen, frame in (
        (flows.to_previous[0], (-right, -down), inside, clip[1]),
        (flows.to_current[0], (right, down), inside[::-1, ::-1], clip[0]),
    ):
        errors = end_point_errors(estimated, true, seen & is_textured(frame))
        assert len(errors) > 50 and np.median(errors) < 0.1 and errors.mean() < 0.25


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", REAL)
def test_a_rotation_is_found(flow, clips, name, size):
    before = read_clip(clips, name, size=size, num_frames=1)[0]
    clip = np.stack([before, np.array(Image.fromarray(before).rotate(3, Image.Resampling.BICUBIC))])
    middle = (size - 1) / 2
    y, x = np.mgrid[:size, :size] - middle
    cosine, sine = np.cos(np.deg2rad(3)), np.sin(np.deg2rad(3))
    # Pillow turns counterclockwise, so that y pointing down the way back is the usual matrix.
    true = np.stack([cosine * x - sine * y - x, sine * x + cosine * y - y], axis=-1)
    errors = end_point_errors(
        flow.estimate(clip).to_previous[0], true, (np.hypot(x, y) < middle - 2) & is_textured(clip[1])
    )
    moved = np.linalg.norm(true, axis=-1).max()
    assert np.median(errors) < 0.3 and errors.mean() < 0.1 * moved


def test_long_motions_are_followed_at_256(flow, clips):
    picture = read_clip(clips, REAL[0], size=384, num_frames=1)[0]
    clip = np.stack([window(picture, 256), window(picture, 256, right=32)])
    errors = end_point_errors(flow.estimate(clip).to_previous[0], (-32, 0), is_textured(clip[1]))
    assert np.median(errors) < 0.1


def test_what_stands_still_has_no_flow(flow):
    puppet = render_puppet(seed=1, index=0, num_frames=1, size=64)[0]
    for clip in (np.repeat(puppet, 3, axis=0), np.zeros((3, 64, 48, 3), np.uint8)):
        flows = flow.estimate(clip)
        assert not flows.to_previous.any() and not flows.to_current.any()


def test_one_pair_of_flows_for_every_pair_of_neighbours(flow):
    puppet = render_puppet(seed=1, index=0, num_frames=4, size=64)[0][:, :48]
    for num_frames, pairs in ((0, 0), (1, 0), (2, 1), (4, 3)):
        for part in flow.estimate(puppet[:num_frames]):
            assert part.shape == (pairs, 48, 64, 2) and part.dtype == np.float32
    whole, last = flow.estimate(puppet), flow.estimate(puppet[2:])
    backwards = flow.estimate(puppet[::-1])
    assert np.array_equal(whole.to_previous[2:], last.to_previous), "the frames before do not matter"
    assert np.array_equal(whole.to_previous, backwards.to_current[::-1])


def test_the_same_frames_give_the_same_numbers(flow):
    import cv2

    num_threads = cv2.getNumThreads()
    try:
        for size in SIZES:
            puppet = render_puppet(seed=2, index=0, num_frames=2, size=size)[0]
            expected = flow.estimate(puppet)
            for threads in (1, 2, 4):
                cv2.setNumThreads(threads)
                for part, same in zip(OpticalFlow().estimate(puppet.copy()), expected, strict=True):
                    assert np.array_equal(part, same)
            assert cv2.getNumThreads() == 4, "nobody else's setting is changed"
    finally:
        cv2.setNumThreads(num_threads)


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (11, 11), (8, 12), (15, 16), (1, 70), (17, 300)])
def test_frames_of_any_size_are_looked_at(flow, size):
    clip = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    for part in flow.estimate(clip):
        assert part.shape == (1, *size, 2) and np.isfinite(part).all()


def test_flow_of_enlarged_frames_is_in_their_own_pixels(flow, clips):
    picture = read_clip(clips, REAL[0], size=32, num_frames=1)[0]
    clip = np.stack([window(picture, 12), window(picture, 12, right=1)])
    flows = flow.estimate(clip)
    assert np.median(flows.to_previous[0, :, 2:], axis=(0, 1)) == pytest.approx([-1, 0], abs=0.1)
    assert np.median(flows.to_current[0, :, :-2], axis=(0, 1)) == pytest.approx([1, 0], abs=0.1)


def test_what_is_no_clip_is_refused(flow):
    for wrong in (np.zeros((2, 64, 64, 3)), np.zeros((64, 64, 3), np.uint8), np.zeros((2, 3, 64, 64), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8 \\[frame, height, width, 3\\]"):
            flow.estimate(wrong)


def errors_and_share(flow, truth, result):
    """Warp error of a result with the flow of the truth, one per pair, and the share of pixels that count."""
    to_previous, to_current = map(torch.from_numpy, flow.estimate(truth))
    images = torch.from_numpy(np.ascontiguousarray(result)).permute(0, 3, 1, 2) / 255
    scores = warp_error(images[1:], images[:-1], to_previous=to_previous, to_current=to_current)
    assert scores.is_measured.all()
    return scores.value.numpy(), visible(to_previous, to_current).double().mean().item()


def check_warp_errors(flow, truth):
    dimming = np.where(np.arange(len(truth)) % 2, 0.9, 1.0)[:, None, None, None]
    flickering = (truth * dimming).round().astype(np.uint8)
    steady, share = errors_and_share(flow, truth, truth)
    assert share > 0.5 and steady.mean() < 2e-3
    unmoved = np.square(np.diff(truth / 255, axis=0)).mean(axis=(1, 2, 3))
    assert (steady < unmoved).all(), "the flow explains what changes"
    assert (errors_and_share(flow, truth, flickering)[0] > steady + 5e-4).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", REAL)
def test_a_real_clip_is_steady_and_its_flickering_twin_is_not(flow, clips, name, size):
    check_warp_errors(flow, read_clip(clips, name, size=size, num_frames=4))


@pytest.mark.parametrize("size", SIZES)
def test_a_puppet_is_steady_and_its_flickering_twin_is_not(flow, size):
    check_warp_errors(flow, render_puppet(seed=1, index=0, num_frames=4, size=size)[0])


def test_name_and_version_tell_the_package(flow):
    import cv2

    assert flow.name == "DIS optical flow" and flow.version.startswith(f"{cv2.__version__}.")
    checked = check_detector("flow")
    assert (checked.version, checked.fault) == (f"OpenCV {flow.version}", "")


def test_it_is_told_how_to_get_what_is_not_here(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for opening in (OpticalFlow, open_flow):
        with pytest.raises(InputError) as told:
            opening()
        assert str(told.value).endswith(f"get it: {REMEDY}")


def test_a_damaged_package_is_told(optical_flow, tmp_path, monkeypatch):
    library, about = tmp_path / "cv2" / "cv2.abi3.so", tmp_path / "opencv_python_headless-9.9.9.dist-info"
    for folder in (library.parent, about):
        folder.mkdir()
    library.write_bytes(b"whole")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"whole").digest()).rstrip(b"=").decode()
    record = f"cv2/{library.name},sha256={digest},5\n{about.name}/METADATA,,\n{about.name}/RECORD,,\n"
    (about / "RECORD").write_text(record, encoding="utf-8")
    (about / "METADATA").write_text("Name: opencv-python-headless\nVersion: 9.9.9\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert check_detector("flow").version == "OpenCV 9.9.9"
    assert check_detector("flow").fault == ""
    library.write_bytes(b"who")
    assert f"{library} is not as it was installed; get it again: pip install --no-deps" in check_detector("flow").fault
    library.unlink()
    assert f"{library} is missing" in check_detector("flow").fault
