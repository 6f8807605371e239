"""The skeleton of a puppet: how long its bones are, how they swing, and where that puts every part in every frame.

Coordinates are those of the models: x right, y down, -1 and 1 are the centres of the border pixels. Every part has a
frame of its own: the torso and the limbs begin at their first joint and run along their own +y; the head sits in its
own centre with +y towards the neck. A positive angle turns clockwise as seen.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FPS = 25.0

JOINT_NAMES = (
    "pelvis", "neck", "head",
    "left_shoulder", "left_elbow", "left_hand", "right_shoulder", "right_elbow", "right_hand",
    "left_hip", "left_knee", "left_foot", "right_hip", "right_knee", "right_foot",
)  # fmt: skip
"""Left and right as seen in the picture at rest."""

PART_NAMES = (
    "torso", "head",
    "left_upper_arm", "left_lower_arm", "right_upper_arm", "right_lower_arm",
    "left_upper_leg", "left_lower_leg", "right_upper_leg", "right_lower_leg",
)  # fmt: skip
"""Part p carries the label p + 1 in a mask."""

PART_JOINTS = {
    "torso": ("neck", "pelvis"),
    "head": ("neck", "head"),
    **{
        f"{side}_{half}_{limb}": (f"{side}_{first}", f"{side}_{second}")
        for side in ("left", "right")
        for limb, joints in (("arm", ("shoulder", "elbow", "hand")), ("leg", ("hip", "knee", "foot")))
        for half, first, second in (("upper", *joints[:2]), ("lower", *joints[1:]))
    },
}
"""The two joints every part lies between."""

# Centre and amplitude of every degree of freedom: angles in degrees (limbs: outwards from hanging down, elbows bend
# further outwards, knees bend back inwards), zoom as a share of the size, sway as a share of its reach.
_CHANNELS = {
    "roll": (0, 10), "lean": (0, 8), "tilt": (0, 18), "zoom": (0, 0.08), "sway_x": (0, 1), "sway_y": (0, 1),
    "left_shoulder": (64, 36), "left_elbow": (18, 22), "right_shoulder": (64, 36), "right_elbow": (18, 22),
    "left_hip": (20, 26), "left_knee": (14, 22), "right_hip": (20, 26), "right_knee": (14, 22),
}  # fmt: skip
_REST = {"left_shoulder": 25.0, "right_shoulder": 25.0, "left_hip": 4.0, "right_hip": 4.0}
_REACH = 0.28  # of the sway, to each side: 14 % of the frame
_EDGE = 0.985  # the figure is kept within -_EDGE ... _EDGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Proportions:
    """Lengths of one identity's body, in units of half a frame before the body is scaled to fill it."""

    head: float
    """Radius of the head."""
    torso: float
    """Neck to pelvis."""
    shoulder: float
    """Half the distance between the shoulders."""
    hip: float
    """Half the distance between the hips."""
    upper_arm: float
    lower_arm: float
    upper_leg: float
    lower_leg: float
    arm_radius: float
    leg_radius: float


class Hull(NamedTuple):
    """Discs that together span the figure: part index, centre in that part's frame, radius."""

    part: NDArray[np.intp]
    centre: Array
    radius: Array


class Pose(NamedTuple):
    """The figure in every frame: `world = origin + scale * rotate(local, angle)` for each part."""

    joints: Array
    """[frame, joint, 2]"""
    origin: Array
    """[frame, part, 2]"""
    angle: Array
    """[frame, part], radians"""
    scale: Array
    """[frame]"""


def draw_proportions(rng: np.random.Generator) -> Proportions:
    """A random body: big-headed, thick-limbed, long or short of arm and leg."""
    arm, leg = rng.uniform(0.54, 0.66), rng.uniform(0.54, 0.70)
    arm_share, leg_share = rng.uniform(0.47, 0.55, size=2)
    hip = rng.uniform(0.135, 0.165)
    return Proportions(
        head=rng.uniform(0.28, 0.34),
        torso=rng.uniform(0.42, 0.54),
        shoulder=rng.uniform(0.22, 0.29),
        hip=hip,
        upper_arm=arm * arm_share,
        lower_arm=arm * (1 - arm_share),
        upper_leg=leg * leg_share,
        lower_leg=leg * (1 - leg_share),
        arm_radius=rng.uniform(0.11, 0.135),
        leg_radius=min(rng.uniform(0.11, 0.14), hip - 0.015),
    )


def rotate(point: Array, angle: Array | float) -> Array:
    """`point` [..., 2] turned by `angle` [...] (radians, clockwise as seen)."""
    point = np.asarray(point, dtype=np.float64)
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = point[..., 0], point[..., 1]
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)


def wave(rng: np.random.Generator, seconds: Array) -> Array:
    """A smooth random path within -1 ... 1: a slow swing and a faster, smaller one. `seconds` [frame] -> [frame]."""
    slow, fast = rng.uniform(1.4, 2.5), rng.uniform(0.75, 1.2)
    phase = rng.uniform(0, 2 * np.pi, size=2)
    share = rng.uniform(0.75, 0.9)
    return share * np.sin(2 * np.pi * seconds / slow + phase[0]) + (1 - share) * np.sin(
        2 * np.pi * seconds / fast + phase[1]
    )


def draw_motion(rng: np.random.Generator, num_frames: int) -> dict[str, Array]:
    """The value of every degree of freedom in every frame ([frame] each; angles in degrees).

    A path depends on time alone, so that a longer clip begins with the frames of a shorter one.
    """
    seconds = np.arange(num_frames) / FPS
    return {
        name: centre + amplitude * rng.uniform(0.75, 1.0) * wave(rng, seconds)
        for name, (centre, amplitude) in _CHANNELS.items()
    }


def rest_height(body: Proportions, hull: Hull) -> float:
    """Height of the figure standing still, arms hanging."""
    motion = {name: np.array([_REST.get(name, 0.0)]) for name in _CHANNELS}
    low, high = _extent(_articulate(body, motion), hull)
    return float(high[0, 1] - low[0, 1])


def pose_figure(body: Proportions, hull: Hull, *, motion: dict[str, Array], height: float) -> Pose:
    """Put the figure, `height` tall when at rest (the frame is 2), through `motion`; it stays inside the frame."""
    pose = _articulate(body, motion)
    low, high = _extent(pose, hull)
    scale = height / rest_height(body, hull) * (1 + motion["zoom"])
    # A pose too large for the frame (arms straight up) is zoomed out, smoothly and no more than it needs.
    scale = scale / (1 + (scale * (high - low).max(axis=1) / (2 * _EDGE)) ** 20) ** (1 / 20)
    factor = scale[:, None]
    wanted = _REACH * np.stack([motion["sway_x"], motion["sway_y"]], axis=1)
    shift = _soft_clip(wanted, -_EDGE - low * factor, _EDGE - high * factor)[:, None]
    return Pose(
        joints=pose.joints * factor[:, None] + shift,
        origin=pose.origin * factor[:, None] + shift,
        angle=pose.angle,
        scale=scale,
    )


def _articulate(body: Proportions, motion: dict[str, Array]) -> Pose:
    """Forward kinematics at scale 1; the figure at rest is centred on (0, 0)."""
    turn = {name: np.deg2rad(value) for name, value in motion.items()}
    roll = turn["roll"]
    chest = roll + turn["lean"]
    head = chest + turn["tilt"]
    drop = (2 * body.head + body.torso - body.upper_leg - body.lower_leg) / 2
    pelvis = _along(np.zeros_like(roll), 0, drop)
    neck = pelvis + _along(chest, 0, -body.torso)
    crown = neck + _along(head, 0, -0.88 * body.head)
    joints = {"pelvis": pelvis, "neck": neck, "head": crown}
    frames = {"torso": (neck, chest), "head": (crown, head)}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        arm = chest + sign * turn[f"{side}_shoulder"]
        leg = roll + sign * turn[f"{side}_hip"]
        limbs = {
            "arm": (neck + _along(chest, -sign * body.shoulder, body.arm_radius + 0.02), arm,
                    arm + sign * turn[f"{side}_elbow"], body.upper_arm, body.lower_arm),
            "leg": (pelvis + _along(roll, -sign * body.hip, 0), leg,
                    leg - sign * turn[f"{side}_knee"], body.upper_leg, body.lower_leg),
        }  # fmt: skip
        for limb, (start, upper, lower, upper_length, lower_length) in limbs.items():
            middle = start + _along(upper, 0, upper_length)
            first, second = PART_JOINTS[f"{side}_upper_{limb}"]
            third = PART_JOINTS[f"{side}_lower_{limb}"][1]
            joints |= {first: start, second: middle, third: middle + _along(lower, 0, lower_length)}
            frames |= {f"{side}_upper_{limb}": (start, upper), f"{side}_lower_{limb}": (middle, lower)}
    return Pose(
        joints=np.stack([joints[name] for name in JOINT_NAMES], axis=1),
        origin=np.stack([frames[name][0] for name in PART_NAMES], axis=1),
        angle=np.stack([frames[name][1] for name in PART_NAMES], axis=1),
        scale=np.ones_like(roll),
    )


def _along(angle: Array, x: float, y: float) -> Array:
    """The fixed point (x, y) of a part's frame, turned with it: `angle` [frame] -> [frame, 2]."""
    return rotate(np.broadcast_to([float(x), float(y)], (len(angle), 2)), angle)


def _extent(pose: Pose, hull: Hull) -> tuple[Array, Array]:
    """Corners of the figure's bounding box in every frame, each [frame, 2]."""
    centre = pose.origin[:, hull.part] + rotate(hull.centre[None], pose.angle[:, hull.part])
    radius = hull.radius[None, :, None]
    return (centre - radius).min(axis=1), (centre + radius).max(axis=1)


def _soft_clip(value: Array, low: Array, high: Array) -> Array:
    """Bend `value` smoothly into low ... high; where there is no room, their middle."""
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-6)
    offset = (value - middle) / half
    return middle + half * offset / (1 + np.abs(offset) ** 4) ** 0.25
