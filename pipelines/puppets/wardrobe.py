"""The same figure in the same pose, dressed anew: what a structure must not depend on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hdam.pipelines.puppets.clips import draw_camera, paint_frames
from hdam.pipelines.puppets.figure import Hull, Pose, draw_motion, draw_proportions, pose_figure
from hdam.pipelines.puppets.look import draw_look, hull_of
from hdam.pipelines.puppets.render import Camera


def render_looks(
    *, seed: int, index: int, frames: Sequence[int], size: int, num_looks: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Paint some frames of figure `index` of the collection `seed` in several looks.

    Returns images [look, frame, size, size, 3] in RGB and the joints of all looks, [frame, joint, 2] in -1 ... 1. A
    look is colours, patterns, clothes, face, hair and background; bones, pose and camera are the same to the last
    bit. The figure is `render_puppet`'s but for its size, which is such that every look fits into the frame.
    """
    body_rng, look_rng, motion_rng, camera_rng, field_rng = np.random.default_rng([seed, index]).spawn(5)
    body = draw_proportions(body_rng)
    looks = [draw_look(rng, body) for rng in look_rng.spawn(num_looks)]
    hulls = [hull_of(look) for look in looks]
    hull = Hull(*(np.concatenate(discs) for discs in zip(*hulls, strict=True)))
    num_frames, chosen = max(frames) + 1, list(frames)
    motion = draw_motion(motion_rng, num_frames)
    pose = pose_figure(body, hull, motion=motion, height=body_rng.uniform(1.74, 1.88))
    pose = Pose(*(track[chosen] for track in pose))
    camera = Camera(*(track[chosen] for track in draw_camera(camera_rng, num_frames)))
    images = [
        paint_frames(look, pose, rng=rng, camera=camera, size=size)[0]
        for look, rng in zip(looks, field_rng.spawn(num_looks), strict=True)
    ]
    return np.stack(images), pose.joints.astype(np.float32)
