"""The same few held-out pairs, painted and scored again and again while a model trains."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from hdam.models.objective import AvdObjective, Objective
from hdam.models.structures import Image
from hdam.pipelines.clips import Clip
from hdam.pipelines.shards import iter_clips
from hdam.platform.figures import sample_grid, save_picture
from hdam.platform.images import frames_to_images

NUM_CLIPS = 16
NUM_PAINTED = 4
DRIVING_TIMES = (0.5, 1.0)
"""Of a clip's length: the frames that its first one has to follow. The first of them is painted."""
PAIRS_AT_ONCE = 8


class HeldOutScore(NamedTuple):
    """Mean absolute error over the held-out pairs, images in 0…1."""

    l1: float
    repeat_l1: float
    """Of repeating the source."""

    @property
    def ratio(self) -> float:
        """`l1` in units of `repeat_l1`."""
        return self.l1 / self.repeat_l1 if self.repeat_l1 else float("inf")


class HeldOut:
    """Pairs of one split; images are [pair, 3, size, size] in 0…1, on the CPU."""

    def __init__(self, source: Image, driving: Image) -> None:
        self.source = source
        self.driving = driving

    @torch.no_grad()
    def paint(self, objective: Objective | AvdObjective, path: Path) -> None:
        """Paint some pairs with a model in evaluation mode, and write the grid of all by-products to `path`."""
        with _evaluating(objective) as device:
            source, driving = (images[:NUM_PAINTED].to(device) for images in (self.source, self.driving))
            grid = sample_grid(
                objective.preview(source, driving), source, driving, ignored=objective.model.config.ignored
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        save_picture(grid, path)

    @torch.no_grad()
    def score(self, objective: Objective | AvdObjective) -> HeldOutScore:
        """The error of a model in evaluation mode: a quick look, no evaluation."""
        error = repeat_error = 0.0
        with _evaluating(objective) as device:
            pairs = zip(self.source.split(PAIRS_AT_ONCE), self.driving.split(PAIRS_AT_ONCE), strict=True)
            for source, driving in ((source.to(device), driving.to(device)) for source, driving in pairs):
                error += (objective.preview(source, driving).image - driving).abs().mean(dim=(1, 2, 3)).sum().item()
                repeat_error += (source - driving).abs().mean(dim=(1, 2, 3)).sum().item()
        return HeldOutScore(error / len(self.source), repeat_error / len(self.source))


def open_held_out(dataset: str, split: str) -> HeldOut:
    """The first frames of the first clips of a split, with later ones of the same clips."""
    clips = list(islice(iter_clips(dataset, split), NUM_CLIPS))
    source = [clip.frame(0) for _ in DRIVING_TIMES for clip in clips]
    driving = [_frame_at(clip, time) for time in DRIVING_TIMES for clip in clips]
    cpu = torch.device("cpu")
    return HeldOut(frames_to_images(np.stack(source), cpu), frames_to_images(np.stack(driving), cpu))


def _frame_at(clip: Clip, time: float) -> np.ndarray:
    return clip.frame(round(time * (clip.num_frames - 1)))


@contextmanager
def _evaluating(objective: Objective | AvdObjective) -> Iterator[torch.device]:
    """Evaluation mode, and back again; yields the model's device."""
    was_training = objective.training
    objective.eval()
    try:
        yield next(objective.parameters()).device
    finally:
        objective.train(was_training)
