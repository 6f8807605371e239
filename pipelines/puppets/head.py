"""Faces and headgear, in the head's own frame: its centre is the origin, +y points to the neck.

Lengths in this file are in units of the head's radius; `head_shapes` scales them to the puppet.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from hdam.pipelines.puppets.palette import Material, Palette, companion, oklch, pale, plain
from hdam.pipelines.puppets.shape import Shape

Point = tuple[float, float]
Kind = Literal["person", "animal", "fantasy"]


class Stuff(NamedTuple):
    """What heads are made of."""

    skin: Material
    hair: Material
    cloth: Material


class Gear(NamedTuple):
    """What is drawn behind the skull, and what on top of it."""

    behind: list[Shape]
    front: list[Shape]


_WHITE, _INK = plain(oklch(0.98, 0.01, 0.2)), plain(oklch(0.2, 0.03, 0.8))
_LIPS = plain(oklch(0.45, 0.15, 0.05))
_ROSE = oklch(0.68, 0.17, 0.03)


def head_shapes(
    rng: np.random.Generator, size: float, *, kind: Kind, skin: Material, palette: Palette
) -> Iterator[Shape]:
    """Everything above the neck, from back to front; `size` is the radius of the head in units of half a frame."""
    gears = _GEARS[kind]
    hair = palette.hair() if rng.random() < 0.6 else palette.vivid()
    cloth = Material(base=hair, accent=companion(hair, 0.45), pattern="diagonal", period=0.16)
    stuff = Stuff(skin=skin, hair=plain(hair), cloth=cloth)
    gear = gears[int(rng.integers(len(gears)))](stuff)
    skull = Shape(
        start=(0, -0.10),
        end=(0, 0.14),
        radius=(rng.uniform(0.76, 0.84), rng.uniform(0.76, 0.82)),
        spread=rng.uniform(0.0, 0.15),
        material=skin,
    )
    for shape in (*gear.behind, skull, *gear.front, *_face(rng, kind, skin)):
        yield replace(
            shape,
            start=(shape.start[0] * size, shape.start[1] * size),
            end=(shape.end[0] * size, shape.end[1] * size),
            radius=(shape.radius[0] * size, shape.radius[1] * size),
            spread=shape.spread * size,
        )


def _stroke(start: Point, end: Point, width: float, material: Material) -> Shape:
    """A mark on the face: a line, or a dot where it begins and ends in one point."""
    return Shape(start=start, end=end, radius=(width, width), material=material, has_outline=False)


def _mirrored(start: Point, end: Point, radius: tuple[float, float], material: Material) -> list[Shape]:
    """A shape and its mirror image."""
    return [
        Shape(start=(side * start[0], start[1]), end=(side * end[0], end[1]), radius=radius, material=material)
        for side in (-1, 1)
    ]


def _face(rng: np.random.Generator, kind: Kind, skin: Material) -> Iterator[Shape]:
    """Cheeks, eyes and a mouth, turned a little to one side; an animal's muzzle, or sometimes a nose."""
    turn, apart, level = rng.uniform(-0.1, 0.1), rng.uniform(0.32, 0.40), rng.uniform(-0.04, 0.06)
    blush = plain((0.55 * skin.base + 0.45 * _ROSE).astype(np.float32))
    has_nose = rng.random() < 0.5
    for side in (-1, 1):
        cheek = (turn + side * (apart + 0.18), level + 0.32)
        yield _stroke(cheek, cheek, 0.16, blush)
    tip = (turn, level + 0.26)
    if kind == "animal":
        yield _stroke((turn - 0.1, level + 0.42), (turn + 0.1, level + 0.42), 0.29, plain(pale(skin.base)))
        yield _stroke(tip, tip, 0.1, _INK)
    elif has_nose:
        yield _stroke(tip, tip, 0.09, blush)
    yield from _eyes(rng, [(turn - apart, level), (turn + apart, level)])
    yield from _mouth(rng, turn, level + 0.5)


def _eyes(rng: np.random.Generator, centres: list[Point]) -> Iterator[Shape]:
    """Round white eyes with pupils, or dark ovals; a glint in each."""
    is_round, gaze = rng.random() < 0.55, rng.uniform(-0.06, 0.06)
    for x, y in centres:
        if is_round:
            yield _stroke((x, y), (x, y), 0.25, _WHITE)
            yield _stroke((x + gaze, y + 0.02), (x + gaze, y + 0.02), 0.155, _INK)
        else:
            yield _stroke((x, y - 0.06), (x, y + 0.06), 0.145, _INK)
        glint = (x + gaze + 0.05, y - 0.06)
        yield _stroke(glint, glint, 0.05, _WHITE)


def _mouth(rng: np.random.Generator, x: float, y: float) -> Iterator[Shape]:
    """A smile, or an astonished mouth."""
    if rng.random() < 0.2:
        yield _stroke((x, y), (x, y + 0.06), 0.1, _LIPS)
        return
    corners = [(x - 0.26, y - 0.06), (x - 0.10, y + 0.05), (x + 0.10, y + 0.05), (x + 0.26, y - 0.06)]
    for start, end in pairwise(corners):
        yield _stroke(start, end, 0.055, _LIPS)


def _round_ears(stuff: Stuff) -> Gear:
    inner = [_stroke((x, -0.62), (x, -0.62), 0.16, stuff.hair) for x in (-0.64, 0.64)]
    return Gear([*_mirrored((0.64, -0.62), (0.64, -0.62), (0.32, 0.32), stuff.skin), *inner], [])


def _tall_ears(stuff: Stuff) -> Gear:
    inner = [_stroke((side * 0.41, -0.7), (side * 0.48, -1.12), 0.1, stuff.hair) for side in (-1, 1)]
    return Gear([*_mirrored((0.36, -0.6), (0.48, -1.12), (0.2, 0.22), stuff.skin), *inner], [])


def _pointed_ears(stuff: Stuff) -> Gear:
    brow = [_stroke((x, -0.78), (0.85 * x, -0.5), 0.06, stuff.hair) for x in (-0.22, 0.0, 0.22)]
    return Gear(_mirrored((0.5, -0.5), (0.72, -1.02), (0.32, 0.07), stuff.skin), brow)


def _floppy_ears(stuff: Stuff) -> Gear:
    return Gear([], _mirrored((0.72, -0.5), (1.0, 0.25), (0.16, 0.22), stuff.hair))


def _fringe(stuff: Stuff) -> Shape:
    return replace(_stroke((0, -0.62), (0, -0.52), 0.24, stuff.hair), spread=0.5)


def _mane(stuff: Stuff) -> Shape:
    return replace(_stroke((0, -0.16), (0, -0.1), 0.9, stuff.hair), spread=0.06, has_outline=True)


def _bun(stuff: Stuff) -> Gear:
    bun = Shape(start=(0, -1.06), end=(0, -1.06), radius=(0.3, 0.3), material=stuff.hair)
    return Gear([bun, _mane(stuff)], [_fringe(stuff)])


def _pigtails(stuff: Stuff) -> Gear:
    tails = _mirrored((0.85, -0.25), (1.1, 0.4), (0.16, 0.27), stuff.hair)
    return Gear([*tails, _mane(stuff)], [_fringe(stuff)])


def _bob(stuff: Stuff) -> Gear:
    locks = _mirrored((0.66, -0.2), (0.82, 0.62), (0.3, 0.22), stuff.hair)
    return Gear([*locks, _mane(stuff)], [_fringe(stuff)])


def _curls(stuff: Stuff) -> Gear:
    angles = np.deg2rad(np.linspace(-105, 105, 8))
    centres = [(0.8 * float(np.sin(angle)), -0.12 - 0.75 * float(np.cos(angle))) for angle in angles]
    return Gear([Shape(start=c, end=c, radius=(0.32, 0.32), material=stuff.hair) for c in centres], [_fringe(stuff)])


def _cap(stuff: Stuff) -> Gear:
    crown = Shape(start=(0, -0.66), end=(0, -0.5), radius=(0.36, 0.3), spread=0.5, material=stuff.cloth)
    brim = plain(stuff.cloth.accent)
    return Gear([], [crown, Shape(start=(0, -0.34), end=(0, -0.32), radius=(0.09, 0.09), spread=0.78, material=brim)])


def _cone(stuff: Stuff) -> Gear:
    hat = Shape(start=(0, -0.68), end=(0, -1.3), radius=(0.46, 0.06), material=stuff.cloth)
    pompom = Shape(start=(0, -1.3), end=(0, -1.3), radius=(0.17, 0.17), material=plain(stuff.cloth.accent))
    return Gear([], [hat, pompom])


def _antennae(stuff: Stuff) -> Gear:
    stalks = _mirrored((0.25, -0.7), (0.5, -1.1), (0.08, 0.07), stuff.skin)
    return Gear([*stalks, *_mirrored((0.52, -1.14), (0.52, -1.14), (0.2, 0.2), stuff.hair)], [])


_PERSON_GEARS = (_bun, _pigtails, _bob, _curls, _cap, _cone)
_ANIMAL_GEARS = (_round_ears, _tall_ears, _pointed_ears, _floppy_ears)
_GEARS: dict[Kind, tuple[Callable[[Stuff], Gear], ...]] = {
    "person": _PERSON_GEARS,
    "animal": _ANIMAL_GEARS,
    "fantasy": (_antennae, *_PERSON_GEARS, *_ANIMAL_GEARS),
}
