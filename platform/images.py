"""Between the frames of files and the images of models."""

import numpy as np
import torch
from torch import Tensor


def frames_to_images(frames: np.ndarray, device: torch.device) -> Tensor:
    """Frames uint8 [frame, height, width, 3] as images float32 [frame, 3, height, width] in 0…1."""
    return torch.tensor(frames, device=device).movedim(-1, 1).float() / 255


def images_to_frames(images: Tensor) -> np.ndarray:
    """The way back: images in 0…1 as uint8 frames, rounded."""
    return (images.detach().clamp(0, 1) * 255).round().byte().movedim(1, -1).cpu().numpy()
