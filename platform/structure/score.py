"""The structure score: what a model's anchors and flow masks know of puppets, whose truth is known."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdam.models.geometry import resize
from hdam.models.model import MotionModel
from hdam.models.structure_scores import (
    Score,
    adjusted_rand_index,
    best_overlaps,
    count_labels,
    fit_joints,
    score_looks,
    score_positions,
)
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import check_size
from hdam.pipelines.puppets import PART_NAMES, render_looks
from hdam.platform.images import frames_to_images
from hdam.platform.model_folder import LoadedModel
from hdam.platform.structure.truth import ClipFrames, Truth, read_known_frames

NUM_LABELS = 1 + len(PART_NAMES)
"""The background and the parts."""
LOOK_TIMES = (0, 12, 24, 36)
"""Frames of a figure that are rendered in several looks: half a second apart."""
IMAGES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreSettings:
    """What is measured on; another number gives another benchmark."""

    num_frames: int = 16
    """Of each clip, evenly spread."""
    num_figures: int = 16
    """That are rendered in several looks."""
    num_looks: int = 4
    look_seed: int = 2022
    """The collection of these figures: not that of the dataset, whose puppets were trained on."""


class StructureScore(NamedTuple):
    """All scores of a model; None where it has no root anchor."""

    joints: Score
    """Joints from motion anchors."""
    joints_all: Score
    """Joints from anchors of all levels."""
    root: Score | None
    """Root anchor against centroid."""
    anchor_mean: Score
    """Mean of the motion anchors against centroid, which every model has."""
    parts_ari: float
    """Adjusted Rand index of flow masks and true parts over the pixels of the figure."""
    pixels_ari: float
    """The same over all pixels, the background being one part more."""
    parts_iou: float
    """Intersection over union of each part with the mask that fits it best, mean over the parts."""
    looks: Score
    """Shift of motion anchors under other looks."""
    looks_all: Score
    """Shift of anchors of all levels."""


class Seen(NamedTuple):
    """Anchors and truth of the frames of a split, on the CPU."""

    motion: Tensor
    """[frame, motion, 2]"""
    all: Tensor
    """[frame, anchor, 2]"""
    root: Tensor | None
    """[frame, 1, 2]"""
    joints: Tensor
    """[frame, joint, 2]"""
    centroid: Tensor
    """[frame, 1, 2]"""
    counts: Tensor
    """Pixels by true part and flow mask, [part, candidate]."""


@torch.no_grad()
def score_structure(
    loaded: LoadedModel,
    dataset: str,
    *,
    settings: ScoreSettings,
    on_clip: Callable[[int, int | None], None] = lambda done, total: None,  # noqa: ARG005
) -> StructureScore:
    """Score a model on the splits of `dataset`: train fits the regression, test is scored.

    Raises InputError for a dataset without truth, of another size, or without one of the splits.
    """
    model, size = loaded.model, loaded.experiment.data.size
    check_size(dataset, size)
    train = _look_at(model, dataset, "train", settings, on_clip)
    test = _look_at(model, dataset, "test", settings, on_clip)
    middle = train.centroid.mean(0)
    looks_motion, looks_all = detect_looks(model, size, settings)
    return StructureScore(
        joints=_score_joints(train.motion, test.motion, train, test),
        joints_all=_score_joints(train.all, test.all, train, test),
        root=None if test.root is None else score_positions(test.root, test.centroid, guess=middle),
        anchor_mean=score_positions(test.motion.mean(1, keepdim=True), test.centroid, guess=middle),
        parts_ari=adjusted_rand_index(test.counts[1:]),
        pixels_ari=adjusted_rand_index(test.counts),
        parts_iou=best_overlaps(test.counts)[1:].nanmean().item(),
        looks=score_looks(looks_motion),
        looks_all=score_looks(looks_all),
    )


@torch.no_grad()
def detect_looks(model: MotionModel, size: int, settings: ScoreSettings) -> tuple[Tensor, Tensor]:
    """Motion anchors, and anchors of all levels, of figures in several looks: [figure, pose, look, anchor, 2] each."""
    device = next(model.parameters()).device
    images = looks(size, settings)
    trees = [model.detect(frames_to_images(some, device)) for some in _pieces(images.reshape(-1, *images.shape[3:]))]
    motion, everything = (
        torch.cat([anchors.position.cpu() for anchors in levels]).unflatten(0, images.shape[:3])
        for levels in ([tree.motion for tree in trees], [tree.all for tree in trees])
    )
    return motion, everything


@lru_cache(maxsize=1)
def looks(size: int, settings: ScoreSettings) -> np.ndarray:
    """Figures in several looks, uint8 [figure, pose, look, size, size, 3]; kept for the next model."""
    rendered = [
        render_looks(seed=settings.look_seed, index=index, frames=LOOK_TIMES, size=size, num_looks=settings.num_looks)[
            0
        ]
        for index in range(settings.num_figures)
    ]
    return np.stack(rendered).swapaxes(1, 2)


def _look_at(
    model: MotionModel,
    dataset: str,
    split: str,
    settings: ScoreSettings,
    on_clip: Callable[[int, int | None], None],
) -> Seen:
    device = next(model.parameters()).device
    seen = []
    for frames, truth in read_known_frames(dataset, split, num_frames=settings.num_frames, device=device):
        seen.append(_observe(model, frames, truth, has_masks=split == "test"))
        on_clip(len(seen), None)
    if not seen:
        raise InputError(f"{dataset}: split '{split}' holds no clip of two frames; prepare more puppets")
    return _join(seen)


def _observe(model: MotionModel, frames: ClipFrames, truth: Truth, *, has_masks: bool) -> Seen:
    tree = model.detect(frames.driving)
    num_candidates = model.config.anchors.num_motion + 1
    counts = torch.zeros(NUM_LABELS, num_candidates, dtype=torch.long)
    if has_masks:
        found = mask_labels(model, frames, truth.parts.shape[-2:])
        counts = count_labels(truth.parts, found, num_true=NUM_LABELS, num_found=num_candidates)
    return Seen(
        motion=tree.motion.position.cpu(),
        all=tree.all.position.cpu(),
        root=None if tree.root is None else tree.root.position.cpu(),
        joints=truth.joints,
        centroid=truth.centroid,
        counts=counts,
    )


def mask_labels(model: MotionModel, frames: ClipFrames, size: tuple[int, ...]) -> Tensor:
    """The candidate with the largest flow mask at every pixel, [frame, height, width] on the CPU.

    Masks are enlarged to `size` (height, width) before the largest is taken. Source is the clip's first frame.
    """
    still = frames.source.expand(len(frames.driving), -1, -1, -1)
    motion = model.flow(
        still,
        model.detect(still).motion,
        model.detect(frames.driving).motion,
        model.background_motion(still, frames.driving),
    )
    height, width = size
    return resize(motion.masks, (height, width), reading=model.config.reading).argmax(1).cpu()


def _join(seen: list[Seen]) -> Seen:
    roots = [each.root for each in seen if each.root is not None]
    return Seen(
        motion=torch.cat([each.motion for each in seen]),
        all=torch.cat([each.all for each in seen]),
        root=torch.cat(roots) if roots else None,
        joints=torch.cat([each.joints for each in seen]),
        centroid=torch.cat([each.centroid for each in seen]),
        counts=torch.stack([each.counts for each in seen]).sum(0),
    )


def _score_joints(anchors: Tensor, unseen: Tensor, train: Seen, test: Seen) -> Score:
    """Fit on the anchors of the train split, score on `unseen` ones of the test split."""
    predicted = fit_joints(anchors, train.joints).predict(unseen)
    return score_positions(predicted, test.joints, guess=train.joints.mean(0))


def _pieces(images: np.ndarray) -> list[np.ndarray]:
    return [images[start : start + IMAGES_AT_ONCE] for start in range(0, len(images), IMAGES_AT_ONCE)]
