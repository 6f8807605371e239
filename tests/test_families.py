"""Families of models: those that there are, and the README's example of one more."""

import re
import sys
from pathlib import Path

import pytest
import torch
from narrow import narrow_model, random_images
from small_models import SIZE, small_experiment

from hdam.experiments.loading import load_experiment
from hdam.models import families
from hdam.models.animation import Animator
from hdam.models.config import AnchorConfig
from hdam.models.families import build_model, known_families
from hdam.models.objective import build_objective
from hdam.platform.stages import plan_stages
from hdam.platform.step import TrainStep

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def zero_order(tmp_path, monkeypatch):
    """The example's two files, the first of them among the families; returns the second."""
    listings = dict(re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
    code = tmp_path / "families" / "zero_order.py"
    code.parent.mkdir()
    code.write_text(listings["models/families/zero_order.py"], encoding="utf-8")
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(code.parent)])
    (tmp_path / "quickstart.yaml").write_bytes((ROOT / "experiments" / "quickstart.yaml").read_bytes())
    experiment = tmp_path / "zero_order.yaml"
    experiment.write_text(listings["experiments/zero_order.yaml"], encoding="utf-8")
    yield experiment
    sys.modules.pop("hdam.models.families.zero_order", None)


def test_the_families_are_the_files():
    assert known_families() == ("hdam", "regionmm")


def test_an_unknown_family_is_told_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"model.family=hdma; there are hdam, regionmm"):
        build_model(narrow_model(family="hdma"))


def test_the_variant_is_the_family_or_what_the_anchors_make_of_it():
    fomm = AnchorConfig(num_intermediate=0, has_root=False)
    assert narrow_model().variant == "hdam"
    assert narrow_model(anchors=fomm).variant == "fomm"
    assert narrow_model(anchors=fomm, family="regionmm").variant == "regionmm"


def test_the_readmes_fifth_model_takes_one_file_and_one_experiment(zero_order):
    small = small_experiment()
    sizes = {
        f"model.{part}": small.settings()["model"][part] for part in ("detector", "flow", "generator", "background")
    }
    changes = sizes | {"data.size": SIZE, "optim.batch_size": 2, "losses.perceptual.scales": [1.0, 0.5]}
    experiment = load_experiment(zero_order, changes)
    assert [stage.kind for stage in plan_stages(experiment, "data")] == ["zero_order", "evaluate"]
    assert "zero_order" in known_families()
    torch.manual_seed(0)
    trainer = TrainStep(experiment, build_objective(experiment.model, experiment.losses), steps_per_epoch=10)
    frames = {name: torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8) for name in ("source", "driving")}
    losses = [trainer(frames).losses["total"].item() for _ in range(20)]
    assert losses[-1] < losses[0]
    model = trainer.objective.model.eval()
    assert torch.equal(model.detect(random_images(SIZE)).motion.affine[0, 0], torch.eye(2))
    animator = Animator(model, random_images(SIZE, batch=1))
    assert animator.frame(random_images(SIZE, batch=1, seed=1)).image.shape == (1, 3, SIZE, SIZE)
