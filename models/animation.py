"""Animating a still image by a driving video, frame by frame in bounded memory."""

from typing import Literal

import torch
from torch import Tensor

from hdam.models.geometry import motion_affine
from hdam.models.model import MotionModel
from hdam.models.structures import Anchors, AnchorTree, Image, Points, Transfer

Mode = Literal["absolute", "relative", "avd"]


class Animator:
    """Paints one driving frame after the other; the source is detected and encoded once.

    `absolute` takes the driving anchors as they are; `relative` adds their motion since the first driving frame to
    the source's anchors (FOMM, section 3.5), scaled by the two objects' sizes; `avd` lets the AVD network give the
    source the driving pose. As in the published demonstrations the background stands still.
    """

    def __init__(self, model: MotionModel, source: Image, *, mode: Mode = "relative") -> None:
        """Raises ValueError for the mode `avd` where the model has no AVD network."""
        if mode == "avd" and model.avd is None:
            raise ValueError("mode avd needs a model with an AVD network; train one with model.has_avd: true")
        self._model = model
        self._mode = mode
        self._first: AnchorTree | None = None
        with torch.no_grad():
            self._encoded = model.generator.encode(source)
            self.source = model.detect(source)

    @torch.no_grad()
    def frame(self, driving: Image) -> Transfer:
        """The result for the next driving frame, [1, 3, height, width] in 0…1."""
        tree = self._model.detect(driving)
        if self._mode == "absolute":
            return self._model.paint(self._encoded, self.source, tree)
        moved = self._relative(tree) if self._mode == "relative" else self._reposed(tree)
        transfer = self._model.paint(self._encoded, self.source, tree._replace(motion=moved))
        return transfer._replace(driving=tree._replace(motion=moved), attention=self._model.attend(tree))

    def _relative(self, driving: AnchorTree) -> Anchors:
        if self._first is None:
            self._first = driving
        scale = size_ratio(self.source.motion.position, self._first.motion.position)
        return relative_motion(self.source.motion, driving.motion, self._first.motion, scale=scale)

    def _reposed(self, driving: AnchorTree) -> Anchors:
        assert self._model.avd is not None
        moved: Anchors = self._model.avd(self.source.motion, driving.motion)
        return moved


def relative_motion(source: Anchors, driving: Anchors, first: Anchors, *, scale: Tensor | float = 1.0) -> Anchors:
    """Source anchors moved as the driving ones moved since the first driving frame."""
    position = source.position + (driving.position - first.position) * scale
    affine = motion_affine(driving, first) @ source.affine
    covariance = None if source.covariance is None else affine @ affine.transpose(-1, -2)
    return Anchors(position, affine, covariance)


def size_ratio(source: Points, driving: Points) -> float:
    """Square root of the ratio of the convex hulls' areas, of the first item of each batch; 1 for a flat one."""
    areas = _hull_area(source[0]), _hull_area(driving[0])
    return (areas[0] / areas[1]) ** 0.5 if min(areas) > 0 else 1.0


def _hull_area(points: Tensor) -> float:
    """Area of the convex hull, by the monotone chain and the shoelace formula."""
    ordered = sorted(map(tuple, points.double().tolist()))
    hull = _chain(ordered) + _chain(ordered[::-1])
    ahead = hull[1:] + hull[:1]
    return abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(hull, ahead, strict=True))) / 2


def _chain(ordered: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    chain: list[tuple[float, ...]] = []
    for point in ordered:
        while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
            chain.pop()
        chain.append(point)
    return chain[:-1]


def _turn(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
