"""How much anchors and flow masks tell about a structure that is known: true joints, centroid and parts.

Pure functions of tensors, computed in float64. Lengths are given as shares of the image's side, which is 2 in
coordinates.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

SIDE = 2.0
"""Of the image, in coordinates."""
RIDGE = 1e-5
"""Added to the variances of the regression's inputs, in coordinates²: an anchor that wanders by less than 0.003, a
tenth of a pixel at 64 pixels, tells nothing. Less would let a few bodies be learnt by heart from such traces."""

Labels = Int[Tensor, "frame height width"]
Counts = Int[Tensor, "true found"]


class Score(NamedTuple):
    """A mean distance, and how it compares with knowing nothing."""

    error: float
    """Share of the image's side."""
    relative: float
    """In units of what something that knows nothing of the image reaches: 0 is perfect, 1 is useless."""


class JointRegression(NamedTuple):
    """Joints as a linear function of anchors, with an intercept."""

    weight: Float[Tensor, "input output"]
    anchor_mean: Float[Tensor, " input"]
    joint_mean: Float[Tensor, " output"]

    def predict(self, anchors: Float[Tensor, "frame anchor 2"]) -> Float[Tensor, "frame joint 2"]:
        """Where the joints are."""
        flat = (anchors.double().flatten(1) - self.anchor_mean) @ self.weight + self.joint_mean
        return flat.unflatten(1, (-1, 2))


def fit_joints(
    anchors: Float[Tensor, "frame anchor 2"], joints: Float[Tensor, "frame joint 2"], *, ridge: float = RIDGE
) -> JointRegression:
    """Least squares with a ridge: W = (XᵀX/n + ridge · I)⁻¹ XᵀY/n, X and Y less their means over the n frames."""
    inputs, outputs = anchors.double().flatten(1), joints.double().flatten(1)
    x, y = inputs - inputs.mean(0), outputs - outputs.mean(0)
    gram = x.T @ x / len(x) + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return JointRegression(torch.linalg.solve(gram, x.T @ y / len(x)), inputs.mean(0), outputs.mean(0))


def score_positions(
    found: Float[Tensor, "frame point 2"], truth: Float[Tensor, "frame point 2"], *, guess: Float[Tensor, "point 2"]
) -> Score:
    """Mean distance of `found` to `truth`; relative to that of `guess`, the same in every frame."""
    return _score(_mean_length(found.double() - truth.double()), _mean_length(guess.double() - truth.double()))


def score_looks(positions: Float[Tensor, "figure pose look anchor 2"]) -> Score:
    """How far anchors move when the same figure in the same pose is dressed anew.

    Relative to how far the same anchor lies from itself in two images of different figures. Anchors that ignore the
    image have 1, those that follow the pose alone have 0.
    Raises ValueError for a single figure or a single look.
    """
    num_figures, num_poses, num_looks = positions.shape[:3]
    if num_figures < 2 or num_looks < 2:
        raise ValueError(f"{num_figures} figures in {num_looks} looks; expected at least 2 of each")
    positions = positions.double()
    same_pose = positions.flatten(0, 1).movedim(2, 1)  # [figure and pose, anchor, look, 2]
    is_other_look = ~torch.eye(num_looks, dtype=torch.bool, device=positions.device)
    everything = positions.flatten(0, 2).transpose(0, 1)  # [anchor, image, 2]
    figure = torch.arange(num_figures, device=positions.device).repeat_interleave(num_poses * num_looks)
    is_other_figure = figure[:, None] != figure
    moved = _distances(same_pose)[..., is_other_look].mean().item()
    unrelated = _distances(everything)[..., is_other_figure].mean().item()
    return _score(moved / SIDE, unrelated / SIDE)


def count_labels(truth: Labels, found: Labels, *, num_true: int, num_found: int) -> Counts:
    """How many pixels have true label t and found label f; tables of several batches add up."""
    both = truth.flatten().long() * num_found + found.flatten().long()
    return torch.bincount(both, minlength=num_true * num_found).view(num_true, num_found)


def adjusted_rand_index(counts: Counts) -> float:
    """Agreement of two partitions whatever their labels are called (Hubert and Arabie, 1985): 1 same, 0 chance.

    Two partitions that both leave everything together agree. Raises ValueError for fewer than two pixels.
    """
    table = counts.double()
    total = _pairs(table.sum())
    if total <= 0:
        raise ValueError(f"{int(table.sum())} pixels have no pair to compare; expected at least 2")
    true, found = _pairs(table.sum(1)).sum(), _pairs(table.sum(0)).sum()
    expected, highest = true * found / total, (true + found) / 2
    if highest == expected:
        return 1.0
    return ((_pairs(table).sum() - expected) / (highest - expected)).item()


def best_overlaps(counts: Counts) -> Float[Tensor, " true"]:
    """Of every true label, intersection over union with the found label that fits best; NaN where it never occurs."""
    table = counts.double()
    union = table.sum(1, keepdim=True) + table.sum(0, keepdim=True) - table
    best = (table / union.clamp(min=1)).amax(1)
    return best.masked_fill(table.sum(1) == 0, torch.nan)


def _score(error: float, unit: float) -> Score:
    return Score(error, error / unit if unit > 0 else torch.nan)


def _mean_length(offset: Float[Tensor, "frame point 2"]) -> float:
    return torch.linalg.vector_norm(offset, dim=-1).mean().item() / SIDE


def _distances(points: Float[Tensor, "*rest point 2"]) -> Float[Tensor, "*rest point point"]:
    return torch.linalg.vector_norm(points[..., :, None, :] - points[..., None, :, :], dim=-1)


def _pairs(count: Float[Tensor, "*rest"]) -> Float[Tensor, "*rest"]:
    return count * (count - 1) / 2
