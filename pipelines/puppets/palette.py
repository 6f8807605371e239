"""Colours that go together and stay apart, and the patterns that puppets and their backgrounds are made of."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hdam.pipelines.puppets.figure import Array

Colour = NDArray[np.floating]
"""sRGB, 0 ... 1, [3]."""
Pattern = Literal["plain", "gradient", "rings", "pinstripes", "diagonal", "checks", "dots", "zigzag"]
TEXTURES: tuple[Pattern, ...] = get_args(Pattern)[1:]


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Two colours and the pattern in which they alternate."""

    base: Colour
    accent: Colour
    pattern: Pattern = "plain"
    period: float = 0.2
    """Length of one repetition, in units of half a frame."""


def plain(colour: Colour) -> Material:
    """One colour without a pattern."""
    return Material(base=colour, accent=colour)


def oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """sRGB of an OKLCH colour (Ottosson, "A perceptual color space for image processing"), clipped; hue in turns."""
    a, b = chroma * np.cos(2 * np.pi * hue), chroma * np.sin(2 * np.pi * hue)
    to_cones = [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    to_rgb = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    linear = np.clip(np.array(to_rgb) @ (np.array(to_cones) @ [lightness, a, b]) ** 3, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


class Palette:
    """Draws colours that differ from all those drawn before."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.hue = rng.uniform()
        self.used: list[Colour] = []

    def keep(self, colour: Colour) -> Colour:
        """Remember a colour that was chosen otherwise, and give it back."""
        self.used.append(colour)
        return colour

    def vivid(self) -> Colour:
        """A saturated colour of the next hue, as far as can be from everything in use."""
        # Steps of the golden ratio spread any number of hues evenly, and every identity begins elsewhere.
        self.hue += 0.381966 + self.rng.uniform(-0.05, 0.05)
        draw = self.rng.uniform
        return self._farthest([oklch(draw(0.52, 0.86), draw(0.13, 0.20), self.hue) for _ in range(8)])

    def skin(self) -> Colour:
        """A natural skin tone, from pale to dark brown."""
        draw = self.rng.uniform
        return self._farthest([oklch(draw(0.50, 0.88), draw(0.05, 0.09), draw(0.13, 0.18)) for _ in range(2)])

    def hair(self) -> Colour:
        """A natural or a dyed colour of hair."""
        draw = self.rng.uniform
        natural = [oklch(draw(0.22, 0.80), draw(0.02, 0.12), draw(0.12, 0.22)) for _ in range(6)]
        return self._farthest([*natural, oklch(draw(0.5, 0.75), 0.17, draw())])

    def _farthest(self, candidates: list[Colour]) -> Colour:
        return self.keep(max(candidates, key=lambda colour: min(np.linalg.norm(colour - used) for used in self.used)))


def companion(colour: Colour, share: float) -> Colour:
    """The second colour of a pattern: `colour` mixed with white if it is dark, with black if it is light."""
    target = 1.0 if colour @ [0.3, 0.6, 0.1] < 0.6 else 0.0
    return ((1 - share) * colour + share * target).astype(np.float32)


def pale(colour: Colour) -> Colour:
    """A light tint of `colour`."""
    return (0.4 * colour + 0.6).astype(np.float32)


def paint(material: Material, x: Array, y: Array, *, softness: float) -> Array:
    """Colours of `material` at (x, y), any shape [...] -> [..., 3]; edges are blurred over `softness`."""
    if material.pattern == "plain":
        return np.broadcast_to(material.base, (*x.shape, 3))
    return material.base + accent_share(material, x, y, softness=softness)[..., None] * (
        material.accent - material.base
    )


def accent_share(material: Material, x: Array, y: Array, *, softness: float) -> Array:
    """How much of the accent shows at (x, y), 0 ... 1; a gradient takes two periods."""
    x, y, softness, pattern = x / material.period, y / material.period, softness / material.period, material.pattern
    if pattern == "gradient":
        return 0.5 - 0.5 * np.cos(np.pi * np.clip(y / 2, 0, 1))
    if pattern == "dots":
        distance = np.hypot(x - np.round(x), y - np.round(y))
        return _edge(0.3 - distance, softness)
    if pattern == "checks":
        return _edge(_triangle(x) * _triangle(y) * 2, softness)
    along = {
        "rings": y,
        "pinstripes": x,
        "diagonal": (x + y) * np.sqrt(0.5),
        "zigzag": y + 0.5 * np.abs(_triangle(x)),
    }[pattern]
    return _edge(_triangle(along), softness)


def _triangle(x: Array) -> Array:
    """Triangle wave of period 1 between -0.25 and 0.25; its slope is 1, so that it measures distance."""
    return np.abs(x - np.floor(x) - 0.5) - 0.25


def _edge(distance: Array, softness: float) -> Array:
    """1 where `distance` is positive, 0 where negative, a ramp of width `softness` between."""
    return np.clip(0.5 + distance / softness, 0.0, 1.0)
