"""A dataset and an experiment small enough to be trained in a test."""

import csv

import numpy as np
from PIL import Image

from hdam.experiments.experiment import Experiment
from hdam.experiments.loading import override
from hdam.pipelines.prepare import PrepareOptions, prepare

SIZE = 32
WIDTHS = {"width": 4, "max_width": 16, "num_blocks": 2}
NUM_FRAMES = 12


def moving_square(clip, num_frames=NUM_FRAMES):
    """A square that crosses a gradient; pixel (0, 0) says which clip and which frame it is."""
    rng = np.random.default_rng(clip)
    across, down = np.meshgrid(np.linspace(0, 255, SIZE), np.linspace(0, 255, SIZE))
    back = np.stack([across, down, np.full_like(across, 20 * clip % 256)], axis=-1)
    colour, row = rng.integers(0, 256, 3), int(rng.integers(2, SIZE - 14))
    frames = np.repeat(back[None], num_frames, axis=0).astype(np.uint8)
    for index, frame in enumerate(frames):
        left = 1 + index * (SIZE - 12) // num_frames
        frame[row : row + 10, left : left + 10] = colour
        frame[0, 0] = (clip, index, 77)
    return frames


def make_dataset(folder, *, num_clips=8, num_test=2, num_frames=NUM_FRAMES, max_chunk_frames=64, clips_per_identity=1):
    """Lossless clips of moving squares, prepared into `folder/squares`; the last `num_test` are held out."""
    videos = folder / "videos"
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "identity", "split"])
        for clip in range(num_clips):
            frames_dir = videos / f"clip{clip}"
            frames_dir.mkdir(parents=True)
            for index, frame in enumerate(moving_square(clip, num_frames)):
                Image.fromarray(frame).save(frames_dir / f"{index:03d}.png")
            split = "test" if clip >= num_clips - num_test else "train"
            table.writerow([f"videos/clip{clip}", f"square{clip // clips_per_identity}", split])
    options = PrepareOptions(size=SIZE, codec="png", max_chunk_frames=max_chunk_frames)
    return prepare(videos, folder / "squares", options=options, table=folder / "table.csv").dataset


def small_training(dataset, changes=None):
    """An HDAM of a few thousand weights, from scratch, in a few steps; `changes` by dotted name."""
    experiment = Experiment(
        name="squares",
        question="Does the road hold?",
        procedure="scratch",
        data={"path": str(dataset), "size": SIZE, "repeats": 16},
        model={
            "anchors": {"num_motion": 3, "num_intermediate": 2},
            "detector": {**WIDTHS, "scale": 0.5, "attention_width": 8},
            "flow": {**WIDTHS, "scale": 0.5},
            "generator": {"width": 4, "max_width": 16, "num_down_blocks": 2, "num_bottleneck_blocks": 1},
            "background": {"kind": "zero"},
        },
        losses={"perceptual": {"network": "pixels", "scales": (1.0, 0.5), "layer_weights": (10.0,)}},
        optim={"duration": "30 steps", "batch_size": 8, "lr": 1e-3, "milestones": ("25 steps",)},
        resources={"workers": 2},
        log={"metrics_every": 5, "pictures_every": 20, "checkpoint_every": 5},
    )
    return override(experiment, changes or {})
