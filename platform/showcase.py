"""The quickstart's pictures: unseen clips below each other, with their anchors, as a video and as one sheet."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdam.models.model import MotionModel
from hdam.pipelines.clips import Clip
from hdam.pipelines.shards import iter_clips
from hdam.pipelines.video_writer import open_writer
from hdam.platform.animate import Moment, moments
from hdam.platform.figures import cell_scale, draw_structure, image_from, tile
from hdam.platform.images import frames_to_images

NUM_CLIPS = 3
TIMES = (0.4, 0.9)
"""Moments of the sheet, as shares of the clips' length."""
CELL_PIXELS = 192
LABELS = ("driving", "anchors", "result")


class Scene(NamedTuple):
    """A still that follows a clip."""

    source: Tensor
    """[1, 3, size, size] in 0…1."""
    driving: Clip


class Showcase(NamedTuple):
    """What was drawn."""

    video: Path
    sheet: Path


def cast_scenes(dataset: str, *, device: torch.device, split: str = "test") -> list[Scene]:
    """The first clips of a split, each moving its own first frame; then each moving that of the one before it."""
    clips = list(islice(iter_clips(dataset, split), NUM_CLIPS))
    stills = [frames_to_images(clip.frame(0)[None], device) for clip in clips]
    own = [Scene(still, clip) for still, clip in zip(stills, clips, strict=True)]
    return own + [Scene(still, clip) for still, clip in zip(stills, clips[1:], strict=False)]


def write_showcase(model: MotionModel, scenes: Sequence[Scene], folder: Path, *, name: str) -> Showcase:
    """Write `name`.mp4, all scenes for the length of the shortest, and `name`.png, the same at a few moments.

    Columns: source, and the driving frame, the same with its anchors, and the result. Anchors are taken as they are
    in the driving frames (absolute motion).
    """
    showcase = Showcase(folder / f"{name}.mp4", folder / f"{name}.png")
    length = min(scene.driving.num_frames for scene in scenes)
    chosen = {round(share * (length - 1)) for share in TIMES}
    kept: list[list[list[Image.Image]]] = []
    side = _scale(scenes) * scenes[0].source.shape[-1]
    size = tile([[Image.new("RGB", (side, side))] * (1 + len(LABELS))] * len(scenes), labels=("source", *LABELS)).size
    with open_writer(showcase.video, fps=scenes[0].driving.fps, size=size[::-1]) as writer:
        for index, rows in enumerate(_rows(model, scenes)):
            writer.write(np.asarray(tile(rows, labels=("source", *LABELS))))
            if index in chosen:
                kept.append(rows)
    first, *rest = kept
    sheet = [row + [cell for later in rest for cell in later[number][1:]] for number, row in enumerate(first)]
    tile(sheet, labels=("source", *LABELS * len(kept))).save(showcase.sheet)
    return showcase


def _rows(model: MotionModel, scenes: Sequence[Scene]) -> Iterator[list[list[Image.Image]]]:
    """For every moment one row of pictures for every scene."""
    playing = [_play(model, scene) for scene in scenes]
    for present in zip(*playing, strict=False):
        yield [_cells(model, moment, scale=_scale(scenes)) for moment in present]


def _play(model: MotionModel, scene: Scene) -> Iterator[Moment]:
    device = scene.source.device
    images = (frames_to_images(scene.driving.frame(i)[None], device) for i in range(scene.driving.num_frames))
    return moments(model, scene.source, images, mode="absolute")


def _cells(model: MotionModel, moment: Moment, *, scale: int) -> list[Image.Image]:
    transfer = moment.transfer
    return [
        image_from(moment.source[0], scale=scale),
        image_from(moment.driving[0], scale=scale),
        draw_structure(
            moment.driving[0],
            transfer.driving,
            attention=transfer.attention,
            ignored=model.config.ignored,
            scale=scale,
        ),
        image_from(transfer.image[0], scale=scale),
    ]


def _scale(scenes: Sequence[Scene]) -> int:
    return cell_scale(scenes[0].source, pixels=CELL_PIXELS)
