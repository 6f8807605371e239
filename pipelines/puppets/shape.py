"""The one primitive that puppets are cut from."""

from dataclasses import dataclass

import numpy as np

from hdam.pipelines.puppets.figure import Array
from hdam.pipelines.puppets.palette import Material


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The hull of a disc at `start` and a disc at `end`, widened to both sides by `spread`; in part coordinates."""

    start: tuple[float, float]
    end: tuple[float, float]
    radius: tuple[float, float]
    material: Material
    spread: float = 0.0
    has_outline: bool = True

    @property
    def reach(self) -> float:
        """Radius of a disc about the middle of the shape that holds all of it."""
        return float(np.hypot(*np.subtract(self.end, self.start))) / 2 + max(self.radius) + self.spread

    def local(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Part coordinates to the shape's own: origin at `start`, +y towards `end`."""
        dx, dy = self.end[0] - self.start[0], self.end[1] - self.start[1]
        length = np.hypot(dx, dy)
        cos, sin = (dy / length, dx / length) if length > 0 else (1.0, 0.0)
        x, y = x - self.start[0], y - self.start[1]
        return x * cos - y * sin, x * sin + y * cos

    def distance(self, x: Array, y: Array) -> Array:
        """Signed distance (negative inside) of points in the shape's own coordinates, in units of the part's frame.

        Quilez, "2D distance functions" (uneven capsule, elongation).
        """
        first, second = self.radius
        length = float(np.hypot(*np.subtract(self.end, self.start)))
        across = np.maximum(np.abs(x) - self.spread, 0.0)
        if length <= abs(first - second):
            return np.hypot(across, y) - max(first, second)
        slope = (first - second) / length
        rise = np.sqrt(1 - slope**2)
        along = rise * y - slope * across
        side = rise * across + slope * y - first
        side = np.where(along < 0, np.hypot(across, y) - first, side)
        return np.where(along > rise * length, np.hypot(across, y - length) - second, side)
