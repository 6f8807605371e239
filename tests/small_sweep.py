"""A sweep small enough to be done in a test."""

import yaml
from small_training import small_training

from hdam.experiments.sweep_loading import load_sweep

STEPS = 8
PAPER = {
    "procedure": "paper",
    "optim.duration": f"{STEPS} steps",
    "dam.duration": "12 steps",
    "screen.num_batches": 3,
    "log.checkpoint_every": 4,
    "log.metrics_every": 4,
    "resources.workers": 1,
}
LONG = {
    "procedure": "scratch",
    "optim.duration": "200 steps",
    "optim.milestones": [],
    "log.checkpoint_every": 20,
    "log.metrics_every": 20,
}
"""Changes: long enough to be stopped in the middle."""
SHORT = {**LONG, "optim.duration": "60 steps", "log.checkpoint_every": 10}
"""Likewise, by who does not take long."""


def write_sweep(folder, dataset, *, changes=None, **sweep):
    """The files of an experiment and of a sweep that varies it; returns the path of the sweep."""
    experiment = small_training(dataset, {**PAPER, **(changes or {})})
    (folder / "squares.yaml").write_text(yaml.safe_dump(experiment.settings()))
    path = folder / "sweep.yaml"
    content = {"name": "sweep", "question": "Which is best?", "experiment": "squares.yaml", **sweep}
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    return path


def small_sweep(folder, dataset, *, changes=None, **sweep):
    """The same, loaded."""
    return load_sweep(write_sweep(folder, dataset, changes=changes, **sweep))
