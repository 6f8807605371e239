"""A model small enough to be built in every test, with the parts of a big one."""

import torch

from hdam.experiments.experiment import Experiment
from hdam.experiments.loading import override
from hdam.models.families import build_model
from hdam.platform.model_folder import LoadedModel

SIZE = 32
WIDTHS = {"width": 4, "max_width": 8, "num_blocks": 2}


def small_experiment(changes=None):
    """HDAM with 4 motion and 2 intermediate anchors on 32 pixels; `changes` by dotted name."""
    experiment = Experiment(
        name="small",
        question="Do the parts fit?",
        data={"size": SIZE},
        model={
            "anchors": {"num_motion": 4, "num_intermediate": 2},
            "detector": {**WIDTHS, "scale": 0.5, "attention_width": 4},
            "flow": {**WIDTHS, "scale": 0.5},
            "generator": {"width": 4, "max_width": 8, "num_down_blocks": 1, "num_bottleneck_blocks": 1},
            "background": WIDTHS,
        },
    )
    return override(experiment, changes or {})


def small_model(changes=None, *, seed=0):
    """A loaded model with random weights."""
    torch.manual_seed(seed)
    experiment = small_experiment(changes)
    model = build_model(experiment.model).eval()
    return LoadedModel(model=model, experiment=experiment, name="small", version="", uri="small")
