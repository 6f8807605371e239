"""Joints, centroids and part masks beside the frames: they go along with every cut, or their clip is rejected."""

import numpy as np
import pytest
from media_files import moving_square, write_folder, write_table

from hdam.pipelines.prepare import PrepareOptions, prepare
from hdam.pipelines.shards import iter_clips


def test_ground_truth_goes_along(tmp_path):
    frames = np.zeros((6, 40, 60, 3), np.uint8)
    masks = np.zeros((6, 40, 60), np.uint8)
    joints = np.zeros((6, 2, 2), np.float32)
    for index in range(6):
        x, y = 20 + 3 * index, 10 + 2 * index
        frames[index, y - 1 : y + 2, x - 1 : x + 2] = 255
        masks[index, y - 1 : y + 2, x - 1 : x + 2] = 3
        joints[index] = [[x / 59 * 2 - 1, y / 39 * 2 - 1], [0, 0]]
    folder = write_folder(tmp_path / "v" / "puppet", frames)
    np.savez(folder / "truth.npz", joints=joints, centroid=joints[:, 0], part_masks=masks)
    write_table(tmp_path / "v" / "manifest.csv", {"file": "puppet", "identity": "p", "crop_xywh": "8 0 48 40",
                                                  "trim": "1:6", "fps": "12"})  # fmt: skip
    prepare(tmp_path / "v", tmp_path / "data", options=PrepareOptions(size=80, codec="png", max_chunk_frames=2))
    (clip,) = iter_clips(tmp_path / "data")
    assert (clip.num_frames, clip.fps, clip.keypoints.shape) == (5, 12, (5, 2, 2))
    for index in range(5):
        weights = clip.frame(index).astype(float).mean(2)
        rows, columns = np.mgrid[:80, :80]
        centre = np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum() / 79 * 2 - 1
        assert clip.keypoints[index, 0] == pytest.approx(centre, abs=0.01)
        assert clip.centroid[index] == pytest.approx(centre, abs=0.01)
        mask = clip.part_mask(index)
        assert mask.shape == (80, 80) and (mask == 3).sum() == 36 and set(np.unique(mask)) == {0, 3}


def test_ground_truth_that_does_not_fit_rejects_its_clip(tmp_path):
    for name, arrays in (
        ("short", {"joints": np.zeros((2, 3, 2))}),
        ("shape", {"joints": np.zeros((5, 6))}),
        ("ok", {}),
    ):
        folder = write_folder(tmp_path / "v" / name, moving_square(5))
        np.savez(folder / "truth.npz", **arrays)
    folder = write_folder(tmp_path / "v" / "text", moving_square(5))
    (folder / "truth.npz").write_text("no arrays")
    report = prepare(
        tmp_path / "v", tmp_path / "data", options=PrepareOptions(size=16, codec="png", max_chunk_frames=4)
    )
    assert [rejected.file for rejected in report.rejected] == ["shape", "short", "text"]
    assert all("truth.npz" in rejected.reason for rejected in report.rejected)
