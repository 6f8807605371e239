"""Frames of real clips as images, and what makes images worse."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from hdam.pipelines.media import read_frames


def first_frames(path, count=2, size=256):
    """The first frames of a clip, squeezed to a square: float32 [frame, 3, size, size] in 0…1."""
    frames = [np.asarray(Image.fromarray(frame).resize((size, size))) for frame in read_frames(path, stop=count)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255


def shifted(images, pixels):
    """Moved to the right; the left border is repeated."""
    return F.pad(images, (pixels, 0, 0, 0), mode="replicate")[..., : images.shape[-1]]


def blurred(images):
    """The mean over 5×5 pixels."""
    return F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
