"""How near the pose and the identity of result frames are to the true ones, by what a detector finds in both.

Definitions are those of the published evaluation (Siarohin et al., NeurIPS 2019, section 4): a number per frame, then
the mean over frames. Which frames have a number:

| found in            | keypoint distance (AKD) | missing rate (MKR) | embedding distance (AED) |
|---------------------|-------------------------|--------------------|--------------------------|
| both                | over the joints in both | yes                | yes                      |
| the truth alone     | none                    | 1 for all joints   | none                     |
| the result alone    | none                    | 0                  | none                     |
| neither             | none                    | 0                  | none                     |

A model whose results are not recognisable thus has an AKD and AED over the few frames that are: read them beside MKR,
the share of frames found, and the number of frames that count. A clip without frames gives no numbers.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PerFrame = Float[Tensor, " frame"]
"""One number per frame, float64."""


class Joints(NamedTuple):
    """Joints or landmarks in frames, as a detector found them."""

    position: Float[Tensor, "frame joint 2"]
    """(x, y) in pixels; anything where a joint was not found."""
    is_found: Bool[Tensor, "frame joint"]


class Embeddings(NamedTuple):
    """Who is shown in frames, as vectors of a recognition network."""

    vector: Float[Tensor, "frame channel"]
    """Anything where nobody was found."""
    is_found: Bool[Tensor, " frame"]


class FrameScores(NamedTuple):
    """A metric that not every frame has; what `MeanState.add` takes."""

    value: PerFrame
    """NaN where there is none."""
    is_measured: Bool[Tensor, " frame"]


def keypoint_distance(result: Joints, truth: Joints) -> FrameScores:
    """Average keypoint distance: mean of |Δx| and |Δy| in pixels over the joints found in both; 0 is ideal.

    Half of the city-block distance, not the Euclidean one. Compare images of one size only: published ones are of 256².
    """
    in_both = result.is_found & truth.is_found
    distance = (result.position.double() - truth.position.double()).abs().mean(-1)
    # Not a product with the mask: positions of joints that were not found may be NaN.
    total = torch.where(in_both, distance, 0.0).sum(-1)
    return _where_measured(total / in_both.sum(-1), in_both.any(-1))


def missing_rate(result: Joints, truth: Joints) -> PerFrame:
    """Missing keypoint rate: joints found in the truth and not in the result, by the number of joints; 0 is ideal."""
    return (truth.is_found & ~result.is_found).double().mean(-1)


def embedding_distance(result: Embeddings, truth: Embeddings) -> FrameScores:
    """Average "Euclidean" distance of embeddings, which the published scripts square: Σ (a − b)²; 0 is ideal."""
    squared = (result.vector.double() - truth.vector.double()).square().sum(-1)
    return _where_measured(squared, result.is_found & truth.is_found)


def found_share(joints: Joints) -> PerFrame:
    """1 for frames in which any joint was found, 0 for others; needs no truth. The mean is the share of frames."""
    return joints.is_found.any(-1).double()


def _where_measured(value: PerFrame, is_measured: Bool[Tensor, " frame"]) -> FrameScores:
    return FrameScores(value.masked_fill(~is_measured, torch.nan), is_measured)
