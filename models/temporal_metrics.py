"""How steady a video is: what changes between neighbouring frames besides the motion (Lai et al., ECCV 2018)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hdam.models.geometry import sample
from hdam.models.joint_metrics import FrameScores
from hdam.models.structures import Image

Displacement = Float[Tensor, "batch height width 2"]
"""Optical flow: (x, y) in pixels from a pixel of one frame to the same thing in another frame."""

# Thresholds of Ruder et al. (GCPR 2016, section 3.2), in pixels².
CONSISTENCY_SHARE, CONSISTENCY_OFFSET = 0.01, 0.5
BOUNDARY_SHARE, BOUNDARY_OFFSET = 0.01, 0.002


def warp_error(current: Image, previous: Image, *, to_previous: Displacement, to_current: Displacement) -> FrameScores:
    """Mean squared difference of each frame and the one before it, warped by `to_previous`, over its visible pixels.

    Images in 0…1; the mean runs over pixels and colours, as in the authors' script; 0 is ideal, and a still picture has
    it, too. `to_previous` lies on the pixels of `current`, `to_current` on those of `previous`; take both from the true
    video, for flow of the result may follow its flicker. A frame of which nothing is visible in the previous one has no
    score (the script counts 0). The first frame has no previous one: a clip of n frames has n − 1 scores.
    """
    where = visible(to_previous, to_current)
    warped = displaced(previous.double(), to_previous.double())
    squared = (current.double() - warped).square().mean(1)
    total = torch.where(where, squared, 0.0).sum(dim=(1, 2))
    is_measured = where.any(2).any(1)
    return FrameScores((total / where.sum(dim=(1, 2))).masked_fill(~is_measured, torch.nan), is_measured)


def visible(to_previous: Displacement, to_current: Displacement) -> Bool[Tensor, "batch height width"]:
    """Pixels of the current frame that were seen in the previous one, and do not lie at a motion boundary.

    Occluded is what does not come back: |v + w|² > 0.01 (|v|² + |w|²) + 0.5, w being `to_previous` and v `to_current`
    where w leads. At a boundary is |∇w|² > 0.01 |w|² + 0.002. So far Ruder et al.; what w leads out of the frame is not
    visible either.
    """
    there = to_previous.double()
    back = displaced(to_current.double().permute(0, 3, 1, 2), there).permute(0, 2, 3, 1)
    there_squared, back_squared = there.square().sum(-1), back.square().sum(-1)
    error = (there + back).square().sum(-1)
    is_occluded = error > CONSISTENCY_SHARE * (there_squared + back_squared) + CONSISTENCY_OFFSET
    is_boundary = _squared_gradient(there) > BOUNDARY_SHARE * there_squared + BOUNDARY_OFFSET
    target, last = _targets(there)
    is_inside = ((target >= 0) & (target <= last)).all(-1)
    return is_inside & ~is_occluded & ~is_boundary


def displaced(
    image: Float[Tensor, "batch channel height width"], flow: Displacement
) -> Float[Tensor, "batch channel height width"]:
    """The image taken bilinearly where `flow` leads from every pixel; zero outside."""
    target, last = _targets(flow)
    return sample(image, 2 * target / last.clamp(min=1) - 1, reading="paper")


def _targets(flow: Displacement) -> tuple[Displacement, Float[Tensor, "2"]]:
    """Where flow leads, in pixels from the top left one, and the position (x, y) of the bottom right one."""
    height, width = flow.shape[1:3]
    y, x = (torch.arange(size, dtype=flow.dtype, device=flow.device) for size in (height, width))
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    return pixels + flow, torch.tensor([width - 1, height - 1], dtype=flow.dtype, device=flow.device)


def _squared_gradient(flow: Displacement) -> Float[Tensor, "batch height width"]:
    """Sum of the squared differences to the pixel on the right and to the one below, of both components."""
    right = flow.diff(dim=2, append=flow[:, :, -1:])
    below = flow.diff(dim=1, append=flow[:, -1:])
    return (right.square() + below.square()).sum(-1)
