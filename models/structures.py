"""The nouns of the project: images, anchors, motion, and the bundles that functions return.

Coordinates are (x, y) in −1…1, x to the right and y down; −1 and 1 are the centres of the border pixels.
Axes always stand in the order batch, anchor, height, width, channel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Image = Float[Tensor, "batch 3 height width"]
Points = Float[Tensor, "batch anchor 2"]
Affines = Float[Tensor, "batch anchor 2 2"]
Grid = Float[Tensor, "batch height width 2"]
Scalar = Float[Tensor, ""]


class Anchors(NamedTuple):
    """Points with a local affine frame."""

    position: Points
    affine: Affines
    """Linear part of the frame, acting on (x, y) columns."""
    covariance: Affines | None = None
    """Of a region: how far it reaches, in coordinates². Its affine then holds its principal axes, which have a length
    but no direction: turning one around changes nothing. None for points, whose affine has a direction."""

    def split(self, sizes: Sequence[int]) -> list["Anchors"]:
        """So many anchors each, in their order; the opposite of `join`."""
        parts = (None if tensor is None else tensor.split(list(sizes), 1) for tensor in self)
        position, affine, covariance = parts
        assert position is not None and affine is not None
        covariances = [None] * len(sizes) if covariance is None else covariance
        return [Anchors(*each) for each in zip(position, affine, covariances, strict=True)]

    @classmethod
    def join(cls, groups: Sequence["Anchors"]) -> "Anchors":
        """All anchors one after the other; either all of them are regions or none."""
        covariances = [group.covariance for group in groups if group.covariance is not None]
        return cls(
            torch.cat([group.position for group in groups], 1),
            torch.cat([group.affine for group in groups], 1),
            torch.cat(covariances, 1) if covariances else None,
        )


class AnchorTree(NamedTuple):
    """Anchors of one image by level: root → intermediate → motion. DAM has no intermediate level, FOMM no root."""

    motion: Anchors
    intermediate: Anchors | None
    root: Anchors | None
    features: Float[Tensor, "batch channel height width"] | None = None
    """Last layer of the detector, from which the attention is taken; None for anchors that were not detected."""

    @classmethod
    def split(cls, anchors: Anchors, *, num_motion: int, has_root: bool, features: Tensor | None) -> "AnchorTree":
        """Take apart anchors that stand in the order motion, intermediate, root."""
        total = anchors.position.shape[1]
        levels = anchors.split([num_motion, total - num_motion - int(has_root), int(has_root)])
        motion, intermediate, root = (level if level.position.shape[1] else None for level in levels)
        if motion is None:
            raise ValueError(f"a tree of {total} anchors without motion anchors; at least one has to move pixels")
        return cls(motion, intermediate, root, features)

    @property
    def all(self) -> Anchors:
        """All anchors in the order motion, intermediate, root."""
        return Anchors.join([level for level in (self.motion, self.intermediate, self.root) if level is not None])


class DenseMotion(NamedTuple):
    """Where every pixel of the result is taken from."""

    flow: Grid
    """Backward sampling grid, driving → source."""
    masks: Float[Tensor, "batch candidate height width"]
    """Soft choice among the candidate flows, background first; sums to 1."""
    occlusion: Float[Tensor, "batch 1 height width"]
    """1 = can be warped from the source, 0 = must be painted."""


class Transfer(NamedTuple):
    """The painted result for one driving image, and its by-products."""

    image: Image
    """Result, 0…1."""
    warped: Image
    """The source warped by the flow at full resolution."""
    motion: DenseMotion
    source: AnchorTree
    driving: AnchorTree
    attention: Float[Tensor, "batch intermediate motion"] | None
    """How much each intermediate anchor owns each motion anchor of the driving image; HDAM only."""
