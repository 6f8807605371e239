"""The results of one clip, as the frames that a file would hold."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdam.models.animation import Animator, Mode
from hdam.models.model import MotionModel
from hdam.pipelines.frame_codec import Pixels
from hdam.platform.images import frames_to_images, images_to_frames

FRAMES_AT_ONCE = 16

Frames = np.ndarray
"""uint8 [frame, height, width, 3], RGB."""


class Painted(NamedTuple):
    """What a model made of a clip."""

    frames: Frames
    is_sound: NDArray[np.bool_]
    """[frame]; false where the model painted something that is no number, which a frame cannot hold."""


@torch.no_grad()
def follow_itself(model: MotionModel, frames: Frames) -> Painted:
    """Reconstruction: frame 0 follows all frames, itself included, the background moving as the model predicts."""
    device = next(model.parameters()).device
    still = frames_to_images(frames[:1], device)
    images = (
        model(still.expand(len(some), -1, -1, -1), frames_to_images(some, device)).image for some in pieces(frames)
    )
    return _painted(images)


def follow_other(model: MotionModel, source: Pixels, driving: Frames, *, mode: Mode) -> Painted:
    """Animation: `source`, uint8 [height, width, 3], follows the driving frames before a background that stands still.

    Raises ValueError for the mode `avd` where the model has no AVD network.
    """
    device = next(model.parameters()).device
    animator = Animator(model, frames_to_images(source[None], device), mode=mode)
    return _painted(animator.frame(frames_to_images(frame[None], device)).image for frame in driving)


def pieces(frames: Frames) -> Iterator[Frames]:
    """At most FRAMES_AT_ONCE frames each, always cut at the same places, so that scores are the same each time."""
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        yield frames[start : start + FRAMES_AT_ONCE]


def _painted(images: Iterable[Tensor]) -> Painted:
    parts = [
        Painted(images_to_frames(some.nan_to_num()), some.isfinite().all(dim=(1, 2, 3)).cpu().numpy())
        for some in images
    ]
    return Painted(*(np.concatenate(column) for column in zip(*parts, strict=True)))
