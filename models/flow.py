"""Dense motion: which anchor's motion each pixel follows, and what must be painted."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hdam.models.blocks import AntiAliasDownsample, Hourglass
from hdam.models.config import FlowConfig, Reading
from hdam.models.geometry import (
    coordinate_grid,
    expected_position,
    gaussian_maps,
    region_maps,
    sample,
    transform_homogeneous,
)
from hdam.models.structures import Anchors, DenseMotion, Image

CandidateFlow = Float[Tensor, "batch candidate height width 2"]


class FlowEstimator(nn.Module):
    """Hourglass over heat maps and candidate-warped sources; gives flow masks, flow and occlusion map."""

    def __init__(self, config: FlowConfig, num_motion: int, *, reading: Reading) -> None:
        super().__init__()
        self.reading = reading
        self.variance = config.heatmap_variance
        self.downsample = AntiAliasDownsample(config.scale, reading=reading)
        self.hourglass = Hourglass(
            (num_motion + 1) * 4, width=config.width, max_width=config.max_width, num_blocks=config.num_blocks
        )
        self.mask_head = nn.Conv2d(self.hourglass.outputs, num_motion + 1, 7, padding=3)
        self.occlusion_head = nn.Conv2d(self.hourglass.outputs, 1, 7, padding=3)

    def forward(
        self,
        image: Image,
        source: Anchors,
        driving: Anchors,
        background: Float[Tensor, "batch 3 3"] | None = None,
    ) -> DenseMotion:
        """Motion of `image` from the `source` anchors to the `driving` ones; `background` maps driving → source."""
        small = self.downsample(image)
        flows = candidate_flows(source, driving, small.shape[-2:], background=background)
        warped = warp_candidates(small, flows, reading=self.reading)
        heat = heatmap_difference(source, driving, small.shape[-2:], variance=self.variance)
        features = self.hourglass(torch.cat([heat[:, :, None], warped], 2).flatten(1, 2))
        masks = self.mask_head(features).softmax(1)
        flow = torch.einsum("bkhw,bkhwc->bhwc", masks, flows)
        return DenseMotion(flow, masks, self.occlusion_head(features).sigmoid())


def heatmap_difference(
    source: Anchors, driving: Anchors, size: tuple[int, int], *, variance: float
) -> Float[Tensor, "batch candidate height width"]:
    """Heat maps of the driving anchors minus those of the source; zero for the background, which comes first."""
    heat = heatmaps(driving, size, variance=variance) - heatmaps(source, size, variance=variance)
    return F.pad(heat, (0, 0, 0, 0, 1, 0))


def heatmaps(anchors: Anchors, size: tuple[int, int], *, variance: float) -> Float[Tensor, "batch anchor height width"]:
    """Round Gaussians of this variance at points; regions have a shape of their own."""
    if anchors.covariance is not None:
        return region_maps(anchors, size)
    return gaussian_maps(anchors.position, size, variance=variance)


def candidate_flows(
    source: Anchors, driving: Anchors, size: tuple[int, int], *, background: Float[Tensor, "batch 3 3"] | None
) -> CandidateFlow:
    """Backward flow of the background (index 0; the identity if None) and of each anchor alone (FOMM, eq. 4)."""
    height, width = size
    batch, anchors, _ = source.position.shape
    grid = coordinate_grid(height, width, like=source.position)
    points = grid.view(1, -1, 2).expand(batch, -1, -1)
    moved = expected_position(source, driving, points).view(batch, anchors, height, width, 2)
    still = grid.expand(batch, height, width, 2) if background is None else transform_homogeneous(background, grid)
    return torch.cat([still[:, None], moved], 1)


def warp_candidates(
    image: Image, flows: CandidateFlow, *, reading: Reading
) -> Float[Tensor, "batch candidate 3 height width"]:
    """The image warped by every candidate flow."""
    candidates = flows.shape[1]
    repeated = image[:, None].expand(-1, candidates, -1, -1, -1).flatten(0, 1)
    return sample(repeated, flows.flatten(0, 1), reading=reading).unflatten(0, (-1, candidates))
