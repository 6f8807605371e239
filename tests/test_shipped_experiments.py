"""The shipped experiments: datasets × models, of which every number stands once."""

import json
import re

import pytest
from shipped import EXPERIMENTS, FOLDER, HEADER, SWEEPS, header, read, stem

from hdam.experiments.loading import load_experiment
from hdam.pipelines.errors import InputError
from hdam.platform.stages import plan_stages

BASES = sorted((FOLDER / "base").glob("*.yaml"))

MODELS = ("fomm", "dam", "hdam", "regionmm")
DATASETS = ("taichi256", "taichi512", "voxceleb256", "fashion256", "mgif256")
SMALL = ("puppets64", "cartoons64")
PAIRS = [(d, m) for d in DATASETS for m in MODELS if (d, m) != ("fashion256", "regionmm")]
"""RegionMM's paper has no FashionVideo."""
RIVALS = [(dataset, model) for dataset in SMALL for model in MODELS if model != "hdam"]
"""Small baselines; the HDAM of a small dataset has the dataset's name alone."""
EXPECTED = {"quickstart", *SMALL}
EXPECTED |= {f"{dataset}_{model}" for dataset, model in PAIRS + RIVALS}


def bases_of(path):
    named = read(path).get("base", [])
    return [FOLDER / base for base in ([named] if isinstance(named, str) else named)]


def leaves(settings, prefix=""):
    """Settings by dotted name."""
    found = {}
    for key, value in settings.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def load(name):
    return load_experiment(FOLDER / f"{name}.yaml")


def test_the_shipped_experiments_are_these():
    assert {path.stem for path in EXPERIMENTS} == EXPECTED


@pytest.mark.parametrize("path", EXPERIMENTS, ids=stem)
def test_a_shipped_experiment_loads_and_says_what_to_expect(path):
    experiment, parts = load_experiment(path), header(path)
    assert experiment.name == path.stem
    assert tuple(parts) == HEADER and all(parts.values())
    assert parts["Question"] == experiment.question
    command = "make quickstart" if path.stem == "quickstart" else f"hdam train experiments/{path.name} "
    assert command in parts["Command"]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=stem)
def test_no_number_stands_twice(path):
    below = {}
    for base in bases_of(path):
        below |= leaves(read(base))
    assert not [key for key, value in leaves(read(path)).items() if key in below and below[key] == value]


def test_every_base_is_used_and_is_no_experiment():
    used = {base for path in EXPERIMENTS for base in bases_of(path)}
    assert used == {FOLDER / "quickstart.yaml", *BASES}
    for base in BASES:
        assert not {"base", "name", "question"} & set(read(base))
        assert base.read_text(encoding="utf-8").startswith("# ")
        with pytest.raises(InputError, match="name: Field required"):
            load_experiment(base)


@pytest.mark.parametrize(("dataset", "model"), PAIRS + RIVALS)
def test_a_file_trains_the_model_that_it_is_named_after(dataset, model):
    kinds = [stage.kind for stage in plan_stages(load(f"{dataset}_{model}"), "data")]
    assert model in kinds
    assert (kinds[0], "hdam" in kinds) == ("dam" if model == "hdam" else model, model == "hdam")


@pytest.mark.parametrize("dataset", DATASETS)
def test_hdam_begins_with_the_dam_of_the_same_dataset(dataset):
    alone, first = (plan_stages(load(f"{dataset}_{model}"), "data")[0] for model in ("dam", "hdam"))
    assert alone.name == first.name


@pytest.mark.parametrize(("dataset", "model"), RIVALS)
def test_small_models_are_compared_on_equal_terms(dataset, model):
    ours, rival = load(dataset), load(f"{dataset}_{model}")
    assert ours.procedure == "paper" and ours.dam.duration is None, "as many steps of DAM as of HDAM"
    assert rival.optim.duration.count == 2 * ours.optim.duration.count
    assert [m.count for m in rival.optim.milestones] == [2 * m.count for m in ours.optim.milestones]
    for part in ("seed", "data", "log", "resources"):
        assert getattr(ours, part) == getattr(rival, part)
    for part in ("batch_size", "lr", "decay", "betas"):
        assert getattr(ours.optim, part) == getattr(rival.optim, part)
    for part in ("detector", "flow", "discriminator"):
        assert getattr(ours.model, part) == getattr(rival.model, part)
    assert ours.model.anchors.num_motion == rival.model.anchors.num_motion
    if model == "dam":
        assert ours.losses.root_to_motion == rival.losses.root_to_motion


@pytest.mark.parametrize(
    ("name", "published"), [("taichi256_dam", "dam"), ("taichi256_hdam", "hdam"), ("mgif256_hdam", "hdam_mgif")]
)
def test_the_recipes_are_the_published_ones(golden, name, published):
    config = json.loads((golden / f"{published}_config.json").read_text())
    network, training, experiment = config["model_params"], config["train_params"], load(name)
    model, losses, weights = experiment.model, experiment.losses, training["loss_weights"]
    assert model.anchors.total == network["common_params"]["num_kp"]
    assert model.anchors.num_intermediate == network["generator_params"]["num_root_kp"] - 1
    assert (model.background.kind != "zero") == network["use_bg_predictor"]
    assert model.detector.has_shared_affine == network["kp_detector_params"]["single_jacobian_map"]
    assert model.generator.has_skips == network["generator_params"]["skips"]
    assert model.discriminator.has_spectral_norm == network["discriminator_params"].get("sn", False)
    assert losses.gan == weights["generator_gan"]
    assert losses.equivariance_position == weights["equivariance_value"]
    assert losses.feature_matching == weights["feature_matching"][0]
    assert experiment.data.repeats == training["num_repeats"]
    assert experiment.optim.lr == training["lr_generator"]
    assert str(experiment.optim.duration) == f"{training['num_epochs']} epochs"
    assert [str(m) for m in experiment.optim.milestones] == [f"{e} epochs" for e in training["epoch_milestones"]]


def test_the_readme_lists_every_experiment_and_sweep():
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in (*EXPERIMENTS, *SWEEPS)} <= set(re.findall(r"`(\w+\.yaml)`", text))
