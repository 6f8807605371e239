"""Screening: which motion anchors do not move along when the image is deformed in a known way.

Such an anchor follows no part of the object. It is left out of the attention, L_ortho, L_compl and the pictures
(supplementary, p. 2), and stays in the flow.
"""

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hdam.models.config import DeformationConfig
from hdam.models.deformation import Deformation, draw_thin_plate
from hdam.models.model import MotionModel
from hdam.models.structures import Image

SCREENING_SCALE = 10.0
"""ε is compared with this many times the mean absolute coordinate error, as in the published code, whatever weight
the loss has in training. ε = 0.3 so allows 0.03 in coordinates from −1 to 1, which is 1.5 % of the image's side."""

Batch = Float[Tensor, "_batch 3 _height _width"]
"""Images of a stream, in which the last batch may be a smaller one."""


class Screening(NamedTuple):
    """What screening found."""

    losses: Float[Tensor, " motion"]
    """Equivariance loss of every motion anchor: SCREENING_SCALE × its mean absolute coordinate error; on the CPU."""
    ignored: tuple[int, ...]
    """The abnormal ones, in ascending order."""
    num_images: int
    """Images that the losses are means over."""


@torch.no_grad()
def screen_anchors(
    model: MotionModel,
    images: Iterable[Batch],
    *,
    num_batches: int,
    epsilon: float,
    deformation: DeformationConfig,
    generator: torch.Generator,
) -> Screening:
    """Measure the equivariance loss of every motion anchor, and find those above `epsilon`.

    `images` are batches in 0…1 on the model's device, of which the first `num_batches` are taken, or all if there are
    fewer; every image counts the same. `generator`, on the CPU, draws one deformation per image. The model measures
    with its running statistics and is left as it was.

    Raises ValueError for no images, num_batches below 1, or an epsilon that is negative or no number.
    """
    _check_epsilon(epsilon)
    if num_batches < 1:
        raise ValueError(f"screening over {num_batches} batches; expected at least 1")
    total = torch.zeros(model.config.anchors.num_motion, dtype=torch.float64)
    num_images = 0
    was_training = model.training
    model.eval()
    try:
        for batch in islice(images, num_batches):
            drawn = draw_thin_plate(len(batch), deformation, generator=generator)
            total += equivariance_errors(model, batch, drawn).sum(0).to(total)
            num_images += len(batch)
    finally:
        model.train(was_training)
    if not num_images:
        raise ValueError("screening got no images; expected at least one batch of the training set")
    losses = SCREENING_SCALE * total / num_images
    return Screening(losses, abnormal_anchors(losses, epsilon=epsilon), num_images)


def equivariance_errors(model: MotionModel, images: Image, deformation: Deformation) -> Float[Tensor, "batch motion"]:
    """|z − T(z')| of every image and motion anchor, averaged over x and y (main paper, eq. 11, before its mean).

    z is detected in the image and z' in the image deformed by T. Not scaled: in coordinates. The mode of the model
    is left as it is; running statistics are what a threshold is meant for.
    """
    deformation = deformation.to(images)
    deformed = deformation.image(images, reading=model.config.reading)
    detected, found = model.detect(images).motion.position, model.detect(deformed).motion.position
    return (detected - deformation.points(found)).abs().mean(-1)


def abnormal_anchors(losses: Float[Tensor, " motion"], *, epsilon: float) -> tuple[int, ...]:
    """Motion anchors whose loss exceeds `epsilon`, on the scale of `Screening.losses`, or is no number.

    Raises ValueError for an epsilon that is negative or no number.
    """
    _check_epsilon(epsilon)
    return tuple(k for k, loss in enumerate(losses.tolist()) if not loss <= epsilon)


def _check_epsilon(epsilon: float) -> None:
    if not epsilon >= 0:
        raise ValueError(f"screening with ε={epsilon}; expected 0 or more (0.3 in the supplementary)")
