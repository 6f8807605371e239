"""Reconstruction, the published protocol: the first frame of a held-out clip is made to follow its own clip."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdam.models.model import MotionModel
from hdam.pipelines.clips import Clip
from hdam.pipelines.errors import InputError
from hdam.pipelines.shards import iter_clips
from hdam.platform.images import frames_to_images

FRAMES_AT_ONCE = 16


class ClipScore(NamedTuple):
    """One clip's share of the score."""

    clip_id: str
    num_frames: int
    l1: float
    repeat_l1: float


class Reconstruction(NamedTuple):
    """Mean absolute errors over all frames of all clips, images in 0…1; lower is better."""

    l1: float
    """Of the transfer."""
    repeat_l1: float
    """Of repeating the source frame: what a model has to beat."""
    num_clips: int
    num_frames: int
    clips: tuple[ClipScore, ...]

    @property
    def ratio(self) -> float:
        """`l1` in units of `repeat_l1`; below 1 the model does better than standing still."""
        return self.l1 / self.repeat_l1 if self.repeat_l1 else float("inf")


@torch.no_grad()
def reconstruct(
    model: MotionModel,
    dataset: str,
    *,
    split: str = "test",
    device: str | torch.device = "cpu",
    on_clip: Callable[[int], None] = lambda _: None,
) -> Reconstruction:
    """Score `model` on the clips of a split of `dataset` (path or URI).

    Source is frame 0; every frame, frame 0 included, is painted with the background predictor; frames are averaged
    over the whole split, so that long clips weigh more (published evaluation scripts). The model is put into
    evaluation mode and on `device`, and back again. `on_clip` hears how many clips are done.

    Raises InputError when the split is missing or holds no clip.
    """
    home, was_training = next(model.parameters()).device, model.training
    model.to(device).eval()
    try:
        scores = []
        for clip in iter_clips(dataset, split):
            scores.append(_score(model, clip, torch.device(device)))
            on_clip(len(scores))
    finally:
        model.to(home).train(was_training)
    if not scores:
        raise InputError(f"{dataset}: split '{split}' holds no clip to reconstruct; prepare with a larger --test-share")
    return _join(scores)


def _score(model: MotionModel, clip: Clip, device: torch.device) -> ClipScore:
    source = frames_to_images(clip.frame(0)[None], device)
    error = repeat_error = 0.0
    for start in range(0, clip.num_frames, FRAMES_AT_ONCE):
        numbers = range(start, min(start + FRAMES_AT_ONCE, clip.num_frames))
        driving = frames_to_images(np.stack([clip.frame(number) for number in numbers]), device)
        still = source.expand(len(numbers), -1, -1, -1)
        error += _summed_error(model(still, driving).image, driving)
        repeat_error += _summed_error(still, driving)
    count = clip.num_frames
    return ClipScore(clip_id=clip.clip_id, num_frames=count, l1=error / count, repeat_l1=repeat_error / count)


def _summed_error(images: Tensor, truth: Tensor) -> float:
    """Mean absolute error of each image, summed over the images."""
    return (images - truth).abs().mean(dim=(1, 2, 3)).double().sum().item()


def _join(scores: list[ClipScore]) -> Reconstruction:
    count = sum(score.num_frames for score in scores)
    return Reconstruction(
        l1=sum(score.l1 * score.num_frames for score in scores) / count,
        repeat_l1=sum(score.repeat_l1 * score.num_frames for score in scores) / count,
        num_clips=len(scores),
        num_frames=count,
        clips=tuple(scores),
    )
