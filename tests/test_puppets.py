"""Puppets: the same seed gives the same bytes, the truth fits the picture, and the motion is large and smooth."""

import csv
from pathlib import Path

import numpy as np
import pytest
from media_files import assert_one_line
from PIL import Image

from hdam.pipelines.errors import InputError
from hdam.pipelines.puppets import (
    JOINT_NAMES,
    PART_JOINTS,
    PART_NAMES,
    PuppetTruth,
    render_looks,
    render_puppet,
    write_puppets,
)

SIZE, NUM_FRAMES = 64, 48


@pytest.fixture(scope="module")
def puppets() -> list[tuple[np.ndarray, PuppetTruth]]:
    return [render_puppet(seed=7, index=index, num_frames=NUM_FRAMES, size=SIZE) for index in range(6)]


def pixels_of(joints: np.ndarray) -> np.ndarray:
    """Coordinates in -1 ... 1 to (column, row), where -1 and 1 are the centres of the border pixels."""
    return np.round((joints + 1) / 2 * (SIZE - 1)).astype(int)


def test_shapes_and_types(puppets):
    frames, truth = puppets[0]
    assert frames.shape == (NUM_FRAMES, SIZE, SIZE, 3)
    assert frames.dtype == np.uint8
    assert truth.joints.shape == (NUM_FRAMES, len(JOINT_NAMES), 2)
    assert truth.joints.dtype == truth.centroid.dtype == np.float32
    assert truth.part_masks.shape == (NUM_FRAMES, SIZE, SIZE)
    assert truth.part_masks.dtype == np.uint8
    assert set(PART_JOINTS) == set(PART_NAMES)
    assert {joint for pair in PART_JOINTS.values() for joint in pair} == set(JOINT_NAMES)


def test_same_seed_gives_same_bytes_and_a_longer_clip_begins_alike(puppets):
    frames, truth = puppets[2]
    again, truth_again = render_puppet(seed=7, index=2, num_frames=5, size=SIZE)
    assert np.array_equal(again, frames[:5])
    assert np.array_equal(truth_again.joints, truth.joints[:5])
    assert np.array_equal(truth_again.part_masks, truth.part_masks[:5])


def test_identities_differ(puppets):
    firsts = np.stack([frames[0].astype(float) for frames, _ in puppets])
    other_seed, _ = render_puppet(seed=8, index=0, num_frames=1, size=SIZE)
    firsts = np.concatenate([firsts, other_seed.astype(float)])
    distance = np.abs(firsts[:, None] - firsts[None]).mean(axis=(2, 3, 4))
    assert distance[~np.eye(len(firsts), dtype=bool)].min() > 15


def test_joints_lie_on_the_figure_and_mostly_on_their_own_parts(puppets):
    own, covered = [], []
    for _, truth in puppets:
        columns, rows = np.moveaxis(pixels_of(truth.joints), -1, 0)
        labels = truth.part_masks[np.arange(NUM_FRAMES)[:, None], rows, columns]
        covered.append((labels > 0).mean())
        for number, joint in enumerate(JOINT_NAMES):
            parts = [PART_NAMES.index(part) + 1 for part, joints in PART_JOINTS.items() if joint in joints]
            own.append(np.isin(labels[:, number], parts).mean())
    assert min(covered) > 0.99
    # The torso hides the tops of both legs and of the far arm; a joint may pass behind another limb.
    assert np.mean(own) > 0.75
    head, near_hand = JOINT_NAMES.index("head"), JOINT_NAMES.index("right_hand")
    per_joint = np.array(own).reshape(len(puppets), -1)
    assert per_joint[:, head].min() > 0.7
    assert per_joint[:, near_hand].min() == 1.0  # nothing is drawn in front of the near hand


def test_centroid_is_the_mean_coordinate_of_the_figure(puppets):
    _, truth = puppets[1]
    axis = np.linspace(-1, 1, SIZE)
    for mask, centroid in zip(truth.part_masks, truth.centroid, strict=True):
        rows, columns = np.nonzero(mask)
        assert np.allclose(centroid, [axis[columns].mean(), axis[rows].mean()], atol=1e-5)


def test_every_part_is_seen_and_the_picture_has_its_edges_where_the_masks_have(puppets):
    for frames, truth in puppets:
        counts = np.stack([(truth.part_masks == label).sum(axis=(1, 2)) for label in range(len(PART_NAMES) + 1)])
        assert (counts[1:].mean(axis=1) > 15).all()
        assert 0.15 < 1 - counts[0].mean() / SIZE**2 < 0.5
        figure = truth.part_masks > 0
        contrast = np.abs(np.diff(frames.astype(float), axis=2)).sum(axis=-1)
        is_edge = figure[:, :, 1:] != figure[:, :, :-1]
        is_background = ~(figure[:, :, 1:] | figure[:, :, :-1])
        assert contrast[is_edge].mean() > 4 * contrast[is_background].mean()


def test_figure_fills_the_frame_and_stays_inside(puppets):
    for _, truth in puppets:
        figure = truth.part_masks > 0
        height = figure.any(axis=2).sum(axis=1) / SIZE
        assert height.max() > 0.82
        assert height.mean() > 0.7
        border = (
            figure[:, 0].any(axis=1)
            | figure[:, -1].any(axis=1)
            | figure[:, :, 0].any(axis=1)
            | figure[:, :, -1].any(axis=1)
        )
        assert border.mean() < 0.1
        assert np.abs(truth.joints).max() < 1


def test_motion_is_smooth_and_large(puppets):
    for _, truth in puppets:
        step = np.linalg.norm(np.diff(truth.joints, axis=0), axis=-1)
        assert step.max() < 0.25
        jerk = np.linalg.norm(np.diff(truth.joints, n=2, axis=0), axis=-1)
        assert jerk.max() < 0.08
        spread = np.ptp(truth.joints, axis=0).max(axis=-1)
        ends = [JOINT_NAMES.index(f"{side}_{end}") for side in ("left", "right") for end in ("hand", "foot")]
        assert spread[ends].min() > 0.2
        assert spread.max() > 0.45  # of a frame that is 2 wide


def test_background_moves(puppets):
    frames, truth = puppets[0]
    empty = (truth.part_masks == 0).all(axis=0)
    assert np.abs(frames[0].astype(int) - frames[24])[empty].mean() > 1


def test_looks_share_a_pose_and_nothing_else(puppets):
    frames = [0, 20, 47]
    images, joints = render_looks(seed=7, index=1, frames=frames, size=SIZE, num_looks=3)
    assert images.shape == (3, 3, SIZE, SIZE, 3)
    contrast = np.abs(np.diff(images.astype(float), axis=0)).mean(axis=(1, 2, 3, 4))
    assert contrast.min() > 20, "looks differ as identities do"
    again, joints_again = render_looks(seed=7, index=1, frames=frames[1:], size=SIZE, num_looks=3)
    assert joints_again[1].tolist() == joints[2].tolist()
    assert np.array_equal(again[:, 1], images[:, 2])
    # The figure is render_puppet's, moved and scaled so that all looks fit.
    truth = puppets[1][1].joints[frames]
    shape = [points - points.mean(axis=1, keepdims=True) for points in (joints, truth)]
    ratio = np.linalg.norm(shape[0], axis=(1, 2)) / np.linalg.norm(shape[1], axis=(1, 2))
    assert np.allclose(shape[0], shape[1] * ratio[:, None, None], atol=1e-4)
    assert np.abs(joints).max() < 1


def test_write_puppets_layout(tmp_path: Path):
    seen: list[int] = []
    folder = write_puppets(tmp_path / "puppets", num_clips=4, num_frames=3, size=32, seed=1, on_clip=seen.append)
    assert folder == tmp_path / "puppets"
    assert seen == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["puppets"], "nothing temporary is left"
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["train", "train", "train", "test"]
    assert rows[1] == {"file": "clips/puppet_0001", "identity": "puppet_0001", "split": "train", "fps": "25"}
    frames, truth = render_puppet(seed=1, index=3, num_frames=3, size=32)
    clip = folder / rows[3]["file"]
    assert sorted(path.name for path in clip.glob("*.png")) == [f"frame_{number:05d}.png" for number in range(3)]
    assert np.array_equal(np.asarray(Image.open(clip / "frame_00002.png")), frames[2])
    with np.load(clip / "truth.npz") as stored:
        assert sorted(stored) == ["centroid", "joints", "part_masks"]
        assert all(np.array_equal(stored[name], getattr(truth, name)) for name in stored)
    assert Image.open(folder / "contact_sheet.png").size[0] > 32


def test_write_puppets_refuses_a_folder_in_use(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        write_puppets(tmp_path, num_clips=2, num_frames=2, size=16)
    with pytest.raises(InputError, match="not an empty folder"):
        write_puppets(tmp_path / "notes.txt", num_clips=2, num_frames=2, size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_write_puppets_takes_an_empty_folder(tmp_path: Path):
    folder = tmp_path / "deep" / "puppets"
    folder.mkdir(parents=True)
    write_puppets(folder, num_clips=2, num_frames=2, size=16)
    assert (folder / "manifest.csv").exists()


@pytest.mark.parametrize("name", ["file.txt/puppets", "file.txt/deep/puppets", "p" * 300])
def test_write_puppets_names_a_target_that_cannot_be_written(tmp_path: Path, name: str):
    (tmp_path / "file.txt").touch()
    with pytest.raises(InputError) as error:
        write_puppets(tmp_path / name, num_clips=2, num_frames=2, size=16)
    assert_one_line(error, str(tmp_path / name), "cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_write_puppets_leaves_what_was_put_into_the_empty_folder_meanwhile(tmp_path: Path):
    (tmp_path / "puppets").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_puppets(
            tmp_path / "puppets",
            num_clips=2,
            num_frames=2,
            size=16,
            on_clip=lambda index: (tmp_path / "puppets" / "notes.txt").touch(),
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["puppets", "notes.txt"]


@pytest.mark.parametrize(
    "wrong",
    [{"num_clips": 1}, {"num_frames": 1}, {"size": 8}, {"seed": -1}, {"test_share": 1.0}],
    ids=lambda w: next(iter(w)),
)
def test_write_puppets_refuses_numbers_out_of_range(tmp_path: Path, wrong: dict[str, float]):
    settings = {"num_clips": 2, "num_frames": 2, "size": 16} | wrong
    with pytest.raises(InputError, match=next(iter(wrong))):
        write_puppets(tmp_path / "puppets", **settings)
    assert not list(tmp_path.iterdir())


def test_nothing_half_written_when_interrupted(tmp_path: Path):
    def interrupt(index: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_puppets(tmp_path / "puppets", num_clips=2, num_frames=2, size=16, on_clip=interrupt)
    assert not list(tmp_path.iterdir())
