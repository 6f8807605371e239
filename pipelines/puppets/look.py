"""What a puppet looks like: the rounded shapes that make up each of its parts, and what they are made of.

Every shape, from a leg to an eye, is one primitive: a tapered capsule (two discs and their hull), where wanted
spread sideways into a rounded trapezoid.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hdam.pipelines.puppets.figure import PART_NAMES, Hull, Proportions
from hdam.pipelines.puppets.head import Kind, head_shapes
from hdam.pipelines.puppets.palette import TEXTURES, Colour, Material, Palette, Pattern, companion, oklch, pale, plain
from hdam.pipelines.puppets.shape import Shape


class Look(NamedTuple):
    """One identity's appearance."""

    shapes: dict[str, list[Shape]]
    """Shapes of each part, in drawing order."""
    outline: Colour
    backdrop: Material
    glow: Colour
    """Colour of the soft blobs in the background."""


def draw_look(rng: np.random.Generator, body: Proportions) -> Look:
    """A random appearance for `body`."""
    palette = Palette(rng)
    is_dark = rng.random() < 0.4
    hue, level = rng.uniform(), rng.uniform(0.34, 0.46) if is_dark else rng.uniform(0.80, 0.90)
    backdrop = Material(
        base=palette.keep(oklch(level, rng.uniform(0.05, 0.09), hue)),
        accent=palette.keep(
            oklch(level + rng.choice([-0.07, 0.07]), rng.uniform(0.05, 0.10), hue + rng.uniform(0.1, 0.3))
        ),
        pattern=_texture(rng),
        period=rng.uniform(0.35, 0.6),
    )
    glow = palette.keep(oklch(level + rng.uniform(0.02, 0.08), rng.uniform(0.05, 0.10), hue - rng.uniform(0.1, 0.3)))
    kind = _KINDS[int(rng.integers(len(_KINDS)))]
    materials = _OUTFITS[kind](rng, palette)
    shapes = {
        "torso": list(_torso(rng, body, materials)),
        "head": list(head_shapes(rng, body.head, kind=kind, skin=materials["head"], palette=palette)),
        **{name: list(_limb(body, name, materials)) for name in PART_NAMES[2:]},
    }
    ink = oklch(0.97 if is_dark else 0.2, 0.03, hue + 0.5)
    return Look(shapes, ink, backdrop, glow)


def hull_of(look: Look) -> Hull:
    """The discs that bound the figure."""
    discs = [
        (part, (x + side * shape.spread, y), radius)
        for part, name in enumerate(PART_NAMES)
        for shape in look.shapes[name]
        for (x, y), radius in zip((shape.start, shape.end), shape.radius, strict=True)
        for side in (-1, 1)
    ]
    part, centre, radius = zip(*discs, strict=True)
    return Hull(np.array(part), np.array(centre), np.array(radius))


def _texture(rng: np.random.Generator) -> Pattern:
    return TEXTURES[int(rng.integers(len(TEXTURES)))]


def _cloth(rng: np.random.Generator, colour: Colour) -> Material:
    """A patterned cloth of this colour."""
    return Material(
        base=colour,
        accent=companion(colour, rng.uniform(0.35, 0.6)),
        pattern=_texture(rng),
        period=rng.uniform(0.17, 0.24),
    )


def _both_sides(
    upper_arm: Material, lower_arm: Material, upper_leg: Material, lower_leg: Material
) -> dict[str, Material]:
    materials = {"upper_arm": upper_arm, "lower_arm": lower_arm, "upper_leg": upper_leg, "lower_leg": lower_leg}
    return {f"{side}_{name}": material for side in ("left", "right") for name, material in materials.items()}


def _clothes(rng: np.random.Generator, palette: Palette) -> dict[str, Material]:
    """Shirt and trousers over skin; sleeves and trouser legs long or short."""
    skin, top, trousers = plain(palette.skin()), _cloth(rng, palette.vivid()), _cloth(rng, palette.vivid())
    sleeve = skin if rng.random() < 0.5 else _cloth(rng, palette.vivid())
    stocking = skin if rng.random() < 0.4 else _cloth(rng, palette.vivid())
    return {
        "head": skin, "torso": top, "hand": skin, "shoe": plain(palette.vivid()),
        **_both_sides(plain(top.accent) if rng.random() < 0.5 else top, sleeve, trousers, stocking),
    }  # fmt: skip


def _fur(rng: np.random.Generator, palette: Palette) -> dict[str, Material]:
    """An animal in a waistcoat: one fur, with markings on the lower limbs."""
    fur = palette.vivid()
    light, marked = plain(fur), _cloth(rng, fur)
    return {
        "head": light, "torso": _cloth(rng, palette.vivid()), "hand": plain(pale(fur)),
        "shoe": plain(palette.vivid()), **_both_sides(light, marked, _cloth(rng, palette.vivid()), marked),
    }  # fmt: skip


def _harlequin(rng: np.random.Generator, palette: Palette) -> dict[str, Material]:
    """Every part of its own cloth."""
    face = palette.skin() if rng.random() < 0.5 else palette.vivid()
    return {
        "head": plain(face), "torso": _cloth(rng, palette.vivid()), "hand": plain(face),
        "shoe": plain(palette.vivid()), **{name: _cloth(rng, palette.vivid()) for name in PART_NAMES[2:]},
    }  # fmt: skip


_OUTFITS = {"person": _clothes, "animal": _fur, "fantasy": _harlequin}
_KINDS: tuple[Kind, ...] = ("person", "person", "animal", "animal", "fantasy")


def _torso(rng: np.random.Generator, body: Proportions, materials: dict[str, Material]) -> Iterator[Shape]:
    """A rounded trapezoid from the neck to just below the pelvis, with a skirt, buttons, a belt or a bow tie."""
    cloth, trim = materials["torso"], materials["shoe"]
    top, bottom = rng.uniform(0.12, 0.17), rng.uniform(0.14, 0.20)
    spread = max(body.shoulder - top + 0.02, 0.03)
    end = body.torso - 0.02
    if rng.random() < 0.25:
        yield Shape(start=(0, 0.6 * end), end=(0, end + 0.06), radius=(0.06, 0.12), spread=0.17,
                    material=materials["left_upper_leg"])  # fmt: skip
    yield Shape(start=(0, top - 0.03), end=(0, end - 0.09), radius=(top, bottom), spread=spread, material=cloth)
    extra = rng.integers(4)
    if extra == 0:
        for y in (0.36, 0.58, 0.80):
            yield Shape(start=(0, y * end), end=(0, y * end), radius=(0.035, 0.035), material=trim, has_outline=False)
    elif extra == 1:
        yield Shape(start=(0, 0.80 * end), end=(0, 0.84 * end), radius=(0.035, 0.035), material=trim,
                    spread=spread + 0.07, has_outline=False)  # fmt: skip
    elif extra == 2:
        for side in (-1, 1):
            yield Shape(start=(0, 0.1), end=(side * 0.09, 0.1), radius=(0.02, 0.06), material=trim)


def _limb(body: Proportions, name: str, materials: dict[str, Material]) -> Iterator[Shape]:
    """A tapered bone; at the end of a lower one a hand, or a shoe that points outwards."""
    side, half, limb = name.split("_")
    is_arm = limb == "arm"
    length = getattr(body, f"{half}_{limb}")
    thick = body.arm_radius if is_arm else body.leg_radius
    if half == "upper":
        yield Shape(start=(0, 0), end=(0, length), radius=(thick, 0.92 * thick), material=materials[name])
        return
    yield Shape(start=(0, 0), end=(0, length), radius=(0.92 * thick, 0.8 * thick), material=materials[name])
    if is_arm:
        yield Shape(
            start=(0, length), end=(0, length + 0.03), radius=(1.0 * thick, 1.0 * thick), material=materials["hand"]
        )
    else:
        toe = -0.09 if side == "left" else 0.09
        yield Shape(start=(-0.1 * toe, length), end=(toe, length + 0.02), radius=(0.95 * thick, 0.8 * thick),
                    material=materials["shoe"])  # fmt: skip
