"""Painting: shapes in their parts' frames over a moving background, anti-aliased, with a label for every pixel."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdam.pipelines.puppets.figure import PART_NAMES, Array, Pose, rotate
from hdam.pipelines.puppets.look import Look
from hdam.pipelines.puppets.palette import accent_share, paint
from hdam.pipelines.puppets.shape import Shape

DRAW_ORDER = (
    "left_upper_arm", "left_lower_arm", "left_upper_leg", "left_lower_leg", "right_upper_leg", "right_lower_leg",
    "torso", "head", "right_upper_arm", "right_lower_arm",
)  # fmt: skip
"""From back to front: the left arm is the far one."""

_SAMPLES = 2  # per pixel and direction
_OUTLINE = 0.022  # width in part coordinates
_SHADOW = 0.07  # reach of the shadow that a part casts on those behind it


class Camera(NamedTuple):
    """How the background moves: a point p of the picture shows its point `shift + zoom * rotate(p, angle)`."""

    shift: Array
    """[frame, 2]"""
    angle: Array
    """[frame], radians"""
    zoom: Array
    """[frame]"""


class Canvas(NamedTuple):
    """The figure in one frame, at `_SAMPLES` samples per pixel and direction."""

    axis: Array
    """Coordinate of every sample along x, and along y."""
    colour: Array
    """[sample, sample, 3], multiplied by `alpha`."""
    alpha: Array
    """[sample, sample]"""


def render_figure(look: Look, pose: Pose, *, frame: int, size: int) -> tuple[Array, Array, NDArray[np.uint8]]:
    """Colour times alpha [height, width, 3], alpha [height, width] and labels [height, width] of one frame."""
    side = size * _SAMPLES
    axis = (((np.arange(side) + 0.5) / _SAMPLES - 0.5) * 2 / (size - 1) - 1).astype(np.float32)
    canvas = Canvas(axis, np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.float32))
    labels = np.zeros((size, size), np.uint8)
    for name in DRAW_ORDER:
        part = PART_NAMES.index(name)
        cover = np.zeros((side, side), np.float32)
        for shape in look.shapes[name]:
            _draw(canvas, cover, shape, look, (pose.origin[frame, part], pose.angle[frame, part], pose.scale[frame]))
        labels[_shrink(cover) >= 0.5] = part + 1
    return _shrink(canvas.colour), _shrink(canvas.alpha), labels


def _draw(canvas: Canvas, cover: Array, shape: Shape, look: Look, placement: tuple[Array, float, float]) -> None:
    """Paint one shape on the canvas and mark it in `cover`, touching no more samples than it can reach."""
    origin, angle, scale = placement
    middle = origin + scale * rotate((np.array(shape.start) + shape.end) / 2, angle)
    reach = scale * (shape.reach + _SHADOW)
    columns, rows = (slice(*np.searchsorted(canvas.axis, (c - reach, c + reach))) for c in middle)
    x, y = (canvas.axis[columns] - origin[0])[None, :] / scale, (canvas.axis[rows] - origin[1])[:, None] / scale
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = shape.local((x * cos + y * sin).astype(np.float32), (y * cos - x * sin).astype(np.float32))
    distance = shape.distance(x, y)
    sample = float(canvas.axis[1] - canvas.axis[0]) / scale
    alpha = np.clip(0.5 - distance / sample, 0.0, 1.0)
    colour = paint(shape.material, x, y, softness=sample * _SAMPLES)
    if shape.has_outline:
        ink = 0.85 * np.clip(0.5 + (distance + _OUTLINE) / (sample * _SAMPLES), 0.0, 1.0)
        depth = np.clip(-distance / max(shape.radius), 0.0, 1.0)
        colour = colour * (0.90 + 0.14 * np.sqrt(depth))[..., None]
        colour = colour + ink[..., None] * (look.outline - colour)
        shadow = 0.3 * np.clip(1 - distance / _SHADOW, 0.0, 1.0) ** 2
        canvas.colour[rows, columns] *= (1 - shadow)[..., None]
    behind = 1 - alpha
    canvas.colour[rows, columns] *= behind[..., None]
    canvas.colour[rows, columns] += alpha[..., None] * colour
    canvas.alpha[rows, columns] = alpha + behind * canvas.alpha[rows, columns]
    cover[rows, columns] = np.maximum(cover[rows, columns], alpha)


def render_backdrop(rng: np.random.Generator, look: Look, *, camera: Camera, size: int) -> Array:
    """Soft blobs and a faint pattern seen through the moving camera: [frame, height, width, 3], 0 ... 1."""
    axis = np.linspace(-1, 1, size)
    point = np.stack(np.meshgrid(axis, axis), axis=-1)[None]
    world = camera.shift[:, None, None] + camera.zoom[:, None, None, None] * rotate(point, camera.angle[:, None, None])
    world = world.astype(np.float32)
    x, y = world[..., 0], world[..., 1]
    blobs = [_blobs(rng, x, y) for _ in range(2)]
    share = accent_share(look.backdrop, x, y, softness=4 / (size - 1))
    colour = look.backdrop.base + (0.55 * share + 0.45 * blobs[0])[..., None] * (
        look.backdrop.accent - look.backdrop.base
    )
    return colour + (0.8 * blobs[1])[..., None] * (look.glow - colour)


def _blobs(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A smooth random field between 0 and 1: a few plane waves."""
    total = np.zeros_like(x)
    for _ in range(3):
        angle, phase, wavelength = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 2.2)
        frequency = 2 * np.pi / wavelength
        total += np.cos(
            np.float32(frequency * np.cos(angle)) * x + np.float32(frequency * np.sin(angle)) * y + np.float32(phase)
        )
    return 0.5 + 0.5 * np.tanh(total)


def _shrink(samples: Array) -> Array:
    """Mean over the samples of each pixel."""
    size = samples.shape[0] // _SAMPLES
    return samples.reshape(size, _SAMPLES, size, _SAMPLES, *samples.shape[2:]).mean(axis=(1, 3))
