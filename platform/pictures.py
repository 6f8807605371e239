"""Pictures of a training: the same few held-out pairs, painted again and again."""

from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from hdam.models.hdam import MotionModel
from hdam.models.structures import Image
from hdam.pipelines.shards import iter_clips
from hdam.platform.evaluation import frames_to_images
from hdam.platform.figures import sample_grid

PICTURES_DIR = "pictures"
NUM_PAIRS = 4


class ImagePair(NamedTuple):
    """Two frames of the same clips."""

    source: Image
    driving: Image


def held_out_pairs(dataset: str, split: str) -> ImagePair:
    """The first frame and the middle one of the first clips of a split."""
    clips = list(islice(iter_clips(dataset, split), NUM_PAIRS))
    cpu = torch.device("cpu")
    return ImagePair(
        frames_to_images(np.stack([clip.frame(0) for clip in clips]), cpu),
        frames_to_images(np.stack([clip.frame(clip.num_frames // 2) for clip in clips]), cpu),
    )


@torch.no_grad()
def paint_pairs(model: MotionModel, pairs: ImagePair, path: Path) -> None:
    """Paint `pairs` with `model` in evaluation mode, and write the grid of all by-products to `path`."""
    device, was_training = next(model.parameters()).device, model.training
    source, driving = pairs.source.to(device), pairs.driving.to(device)
    transfer = model.eval()(source, driving)
    model.train(was_training)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    sample_grid(transfer, source, driving, ignored=model.config.ignored).save(partial, "PNG")
    partial.replace(path)
