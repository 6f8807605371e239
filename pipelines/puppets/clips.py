"""Puppets: endless clips of procedural articulated figures, with the truth about their joints and parts.

They are the dataset of the quickstart, which needs no download, and the ground truth of structure tests. Every clip
is an identity of its own: body, colours, patterns, clothes and background are drawn anew, only the skeleton is shared.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdam.pipelines.errors import InputError
from hdam.pipelines.partial import partial_folder
from hdam.pipelines.puppets.figure import (
    FPS,
    JOINT_NAMES,
    PART_NAMES,
    Pose,
    draw_motion,
    draw_proportions,
    pose_figure,
    wave,
)
from hdam.pipelines.puppets.look import Look, draw_look, hull_of
from hdam.pipelines.puppets.render import Camera, render_backdrop, render_figure
from hdam.pipelines.target import naming_target

__all__ = ["FPS", "JOINT_NAMES", "PART_NAMES", "PuppetTruth", "render_puppet", "write_puppets"]

_SHEET_CLIPS, _SHEET_FRAMES, _SHEET_TILE = 8, 6, 128


@dataclass(frozen=True, kw_only=True, slots=True)
class PuppetTruth:
    """What is known about a puppet clip. Coordinates: x right, y down, -1 and 1 are the centres of border pixels."""

    joints: NDArray[np.float32]
    """[frame, joint, 2], in the order of JOINT_NAMES; hidden joints too."""
    centroid: NDArray[np.float32]
    """[frame, 2], mean coordinate of all pixels that any part covers."""
    part_masks: NDArray[np.uint8]
    """[frame, height, width]: 0 for the background, p + 1 where PART_NAMES[p] is the part in front."""


def render_puppet(*, seed: int, index: int, num_frames: int, size: int) -> tuple[NDArray[np.uint8], PuppetTruth]:
    """Paint clip `index` of the collection `seed`: frames [frame, size, size, 3] in RGB, 25 per second, and the truth.

    The same arguments give the same bytes, and a longer clip begins with the frames of a shorter one.
    """
    body_rng, look_rng, motion_rng, camera_rng, field_rng = np.random.default_rng([seed, index]).spawn(5)
    body = draw_proportions(body_rng)
    look = draw_look(look_rng, body)
    pose = pose_figure(
        body, hull_of(look), motion=draw_motion(motion_rng, num_frames), height=body_rng.uniform(1.74, 1.88)
    )
    frames, labels = paint_frames(look, pose, rng=field_rng, camera=draw_camera(camera_rng, num_frames), size=size)
    truth = PuppetTruth(joints=pose.joints.astype(np.float32), centroid=_centroid(labels > 0), part_masks=labels)
    return frames, truth


def paint_frames(
    look: Look, pose: Pose, *, rng: np.random.Generator, camera: Camera, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A figure before its background, which `rng` draws: frames [frame, size, size, 3] in RGB, and part masks."""
    frames = render_backdrop(rng, look, camera=camera, size=size)
    labels = np.empty(frames.shape[:-1], np.uint8)
    for frame in range(len(frames)):
        colour, alpha, labels[frame] = render_figure(look, pose, frame=frame, size=size)
        frames[frame] = colour + (1 - alpha)[..., None] * frames[frame]
    return np.round(255 * np.clip(frames, 0, 1)).astype(np.uint8), labels


def draw_camera(rng: np.random.Generator, num_frames: int) -> Camera:
    """A slow drift of at most 8 % of the frame, 5 degrees and 5 % of zoom."""
    seconds = np.arange(num_frames) / FPS
    drift_x, drift_y, turn, zoom = (wave(rng, seconds / 1.6) for _ in range(4))
    return Camera(
        shift=rng.uniform(-4, 4, size=2) + 0.16 * np.stack([drift_x, drift_y], axis=1),
        angle=np.deg2rad(5) * turn,
        zoom=1 + 0.05 * zoom,
    )


def _centroid(figure: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean coordinate of the covered pixels, [frame, height, width] -> [frame, 2]."""
    axis = np.linspace(-1, 1, figure.shape[-1])
    count = figure.sum(axis=(1, 2))
    return np.stack([figure.sum(axis=1) @ axis / count, figure.sum(axis=2) @ axis / count], axis=1).astype(np.float32)


def write_puppets(
    folder: Path,
    *,
    num_clips: int,
    num_frames: int = 48,
    size: int = 64,
    seed: int = 0,
    test_share: float = 0.15,
    on_clip: Callable[[int], None] | None = None,
) -> Path:
    """Write a collection of puppet clips to the new folder `folder` and return it.

    The folder holds `clips/puppet_0000/frame_00000.png` and so on, `clips/puppet_0000/truth.npz` with the arrays of
    `PuppetTruth`, `manifest.csv` (file, identity, split, fps) and `contact_sheet.png`. The last `test_share` of the
    clips, and at least one, are the test split. `on_clip` is called with the index of each clip once it is written.

    Raises `InputError` for a folder that exists and is not empty or cannot be written, and for numbers out of range.
    """
    with naming_target(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} exists and is not an empty folder; give a new one for the puppets or remove it")
    if num_clips < 2:
        raise InputError(f"num_clips={num_clips}; at least 2 are needed, one to train on and one to test on")
    if num_frames < 2 or size < 16 or seed < 0:
        raise InputError(f"num_frames={num_frames}, size={size}, seed={seed}; expected at least 2, 16 and 0")
    if not 0 < test_share < 1:
        raise InputError(f"test_share={test_share}; expected a share between 0 and 1")
    first_test = num_clips - min(max(round(test_share * num_clips), 1), num_clips - 1)
    target = folder.resolve()
    rows, sheet = [("file", "identity", "split", "fps")], []
    with partial_folder(target) as partial:
        for index in range(num_clips):
            name = f"puppet_{index:04d}"
            frames, truth = render_puppet(seed=seed, index=index, num_frames=num_frames, size=size)
            _save_clip(partial / "clips" / name, frames, truth)
            rows.append((f"clips/{name}", name, "train" if index < first_test else "test", f"{FPS:g}"))
            if index < _SHEET_CLIPS:
                sheet.append(frames[np.linspace(0, num_frames - 1, _SHEET_FRAMES).round().astype(int)])
            if on_clip is not None:
                on_clip(index)
        with (partial / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        _contact_sheet(sheet).save(partial / "contact_sheet.png")
        with naming_target(folder):
            if target.exists():
                target.rmdir()  # refuses if something was put there meanwhile
    return folder


def _save_clip(folder: Path, frames: NDArray[np.uint8], truth: PuppetTruth) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame_{number:05d}.png")
    np.savez_compressed(folder / "truth.npz", joints=truth.joints, centroid=truth.centroid, part_masks=truth.part_masks)


def _contact_sheet(clips: list[NDArray[np.uint8]]) -> Image.Image:
    """One row per clip, one column per frame; small frames are enlarged without smoothing."""
    sheet = np.concatenate([np.concatenate(list(frames), axis=1) for frames in clips])
    factor = max(1, _SHEET_TILE // clips[0].shape[1])
    return Image.fromarray(sheet.repeat(factor, axis=0).repeat(factor, axis=1))
