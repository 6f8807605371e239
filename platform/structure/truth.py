"""Frames of puppets with what is known about them, read from a prepared dataset."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdam.pipelines.clips import Clip
from hdam.pipelines.contact_sheet import spread
from hdam.pipelines.errors import InputError
from hdam.pipelines.puppets import PART_NAMES
from hdam.pipelines.shards import iter_clips
from hdam.platform.images import frames_to_images


class ClipFrames(NamedTuple):
    """The first frame of a clip, and some later ones."""

    source: Tensor
    """[1, 3, height, width] in 0…1."""
    driving: Tensor
    """[frame, 3, height, width] in 0…1."""


class Truth(NamedTuple):
    """What is known about the driving frames, on the CPU."""

    joints: Tensor
    """[frame, joint, 2]"""
    centroid: Tensor
    """[frame, 1, 2]"""
    parts: Tensor
    """Label map [frame, height, width]: 0 the background, p + 1 the part p."""


def read_frames(dataset: str, split: str, *, num_frames: int, device: torch.device) -> Iterator[ClipFrames]:
    """At most `num_frames` driving frames of every clip; frame 0 is the source. Clips of one frame are left out."""
    for clip in iter_clips(dataset, split):
        if chosen := driving_frames(clip, num_frames):
            yield _frames_of(clip, chosen, device)


def read_known_frames(
    dataset: str, split: str, *, num_frames: int, device: torch.device
) -> Iterator[tuple[ClipFrames, Truth]]:
    """The same with their truth. Raises InputError for a clip without joints, centroid or part masks."""
    for clip in iter_clips(dataset, split):
        if clip.keypoints is None or clip.centroid is None or clip.part_masks is None:
            raise InputError(
                f"{dataset}: clip {clip.clip_id} has no true joints, centroid and parts; "
                "the structure score is for puppets: hdam puppets PUPPETS && hdam prepare PUPPETS DATASET"
            )
        if chosen := driving_frames(clip, num_frames):
            parts = np.stack([clip.part_mask(number) for number in chosen])
            if parts.max() > len(PART_NAMES):
                raise InputError(
                    f"{dataset}: clip {clip.clip_id} has a part {parts.max()}; puppets have {len(PART_NAMES)}"
                )
            truth = Truth(
                joints=torch.from_numpy(clip.keypoints[chosen]),
                centroid=torch.from_numpy(clip.centroid[chosen][:, None]),
                parts=torch.from_numpy(parts).long(),
            )
            yield _frames_of(clip, chosen, device), truth


def driving_frames(clip: Clip, num_frames: int) -> list[int]:
    """At most `num_frames` numbers of the frames after the first, evenly spread, the last among them."""
    return [1 + place for place in spread(clip.num_frames - 1, num_frames)]


def _frames_of(clip: Clip, chosen: list[int], device: torch.device) -> ClipFrames:
    driving = np.stack([clip.frame(number) for number in chosen])
    return ClipFrames(frames_to_images(clip.frame(0)[None], device), frames_to_images(driving, device))
