"""Puppets: procedural articulated figures with their true joints, centroid and part masks.

The embedded default of the quickstart, and the ground truth of everything that measures structure.
`figure` moves a skeleton, `look` (with `head`, `palette`, `shape`) dresses it, `render` draws it and `clips`
writes it down; `wardrobe` dresses one figure several times.
"""

from hdam.pipelines.puppets.clips import PuppetTruth, render_puppet, write_puppets
from hdam.pipelines.puppets.figure import FPS, JOINT_NAMES, PART_JOINTS, PART_NAMES
from hdam.pipelines.puppets.wardrobe import render_looks

__all__ = [
    "FPS",
    "JOINT_NAMES",
    "PART_JOINTS",
    "PART_NAMES",
    "PuppetTruth",
    "render_looks",
    "render_puppet",
    "write_puppets",
]
