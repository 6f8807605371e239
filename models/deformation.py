"""Known random maps of the image plane: the training aid behind the equivariance and the augmented loss."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hdam.models.config import DeformationConfig, Reading
from hdam.models.geometry import coordinate_grid, sample
from hdam.models.structures import Affines, Image, Points

SMALLEST_RADIUS = 1e-6


class Deformation(NamedTuple):
    """z ↦ A z + b + Σ_j w_j U(‖z − c_j‖₁), U(r) = r² log r; the thin-plate term adds the same amount to x and y."""

    affine: Float[Tensor, "batch 2 3"]
    """(A | b)."""
    thin_plate: Float[Tensor, "batch control"] | None
    """Weights w_j of the control points; None for an affine map."""

    def to(self, like: Tensor) -> "Deformation":
        """The same map on the device and in the precision of `like`."""
        return Deformation(self.affine.to(like), None if self.thin_plate is None else self.thin_plate.to(like))

    def of(self, part: slice) -> "Deformation":
        """The maps of some images of the batch."""
        return Deformation(self.affine[part], None if self.thin_plate is None else self.thin_plate[part])

    def points(self, points: Points) -> Points:
        """Image of every point."""
        return self._move(points)

    def jacobian(self, points: Points) -> Affines:
        """Derivative of the map at every point, differentiable in the points."""
        linear = self.affine[:, None, :, :2].expand(-1, points.shape[1], -1, -1)
        if self.thin_plate is None:
            return linear
        offsets = self._offsets(points)
        radius = offsets.abs().sum(-1)
        slope = 2 * radius * torch.log(radius + SMALLEST_RADIUS) + radius.square() / (radius + SMALLEST_RADIUS)
        gradient = ((self.thin_plate[:, None] * slope)[..., None] * offsets.sign()).sum(2)
        return linear + gradient[:, :, None, :].expand(-1, -1, 2, -1)

    def image(self, image: Image, *, reading: Reading) -> Image:
        """The deformed image: its pixel z shows `image` at the map of z; reflected at the border."""
        height, width = image.shape[-2:]
        grid = coordinate_grid(height, width, like=image).view(1, -1, 2)
        moved = self._move(grid).view(-1, height, width, 2)
        return sample(image, moved, reading=reading, padding="reflection")

    def _move(self, points: Float[Tensor, "batch_or_1 anchor 2"]) -> Points:
        """`points` may be shared by the whole batch; their distances to the control points are then taken once."""
        linear, shift = self.affine[:, :, :2], self.affine[:, :, 2]
        moved = points @ linear.transpose(1, 2) + shift[:, None]
        if self.thin_plate is None:
            return moved
        radius = self._offsets(points).abs().sum(-1)
        height = radius.square() * torch.log(radius + SMALLEST_RADIUS)
        return moved + height @ self.thin_plate[:, :, None]

    def _offsets(self, points: Float[Tensor, "batch_or_1 anchor 2"]) -> Float[Tensor, "batch_or_1 anchor control 2"]:
        assert self.thin_plate is not None
        side = round(self.thin_plate.shape[1] ** 0.5)
        control = coordinate_grid(side, side, like=points).view(-1, 2)
        return points[:, :, None] - control


class Deformations(NamedTuple):
    """The two random maps of one training step."""

    augmentation: Deformation | None
    """Affine map of the driving image for the augmented perceptual loss; None where that loss is left out."""
    equivariance: Deformation

    def to(self, like: Tensor) -> "Deformations":
        """The same maps on the device and in the precision of `like`."""
        return Deformations(self.augmentation and self.augmentation.to(like), self.equivariance.to(like))

    def of(self, part: slice) -> "Deformations":
        """The maps of some images of the batch."""
        return Deformations(self.augmentation and self.augmentation.of(part), self.equivariance.of(part))


def draw_affine(batch: int, config: DeformationConfig, *, generator: torch.Generator | None) -> Deformation:
    """Identity plus normal noise on all six numbers."""
    noise = torch.randn(batch, 2, 3, generator=generator) * config.sigma_affine
    return Deformation(noise + torch.eye(2, 3), None)


def draw_thin_plate(batch: int, config: DeformationConfig, *, generator: torch.Generator | None) -> Deformation:
    """A random affine map plus normal thin-plate weights on a num_points × num_points grid."""
    affine = draw_affine(batch, config, generator=generator).affine
    weights = torch.randn(batch, 1, config.num_points**2, generator=generator) * config.sigma_thin_plate
    return Deformation(affine, weights[:, 0])
