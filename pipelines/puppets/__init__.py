"""Puppets: procedural articulated figures with their true joints, centroid and part masks.

The embedded default of the quickstart, and the ground truth of everything that measures structure.
`figure` moves a skeleton, `look` (with `head`, `palette`, `shape`) dresses it, `render` draws it and `clips`
writes it down.
"""

from hdam.pipelines.puppets.clips import PuppetTruth, render_puppet, write_puppets
from hdam.pipelines.puppets.figure import FPS, JOINT_NAMES, PART_JOINTS, PART_NAMES

__all__ = ["FPS", "JOINT_NAMES", "PART_JOINTS", "PART_NAMES", "PuppetTruth", "render_puppet", "write_puppets"]
