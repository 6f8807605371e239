"""Sweep files: every shipped one loads, and mistakes are told in one line that names the key."""

import pytest
import yaml
from shipped import EXPERIMENTS, FOLDER, HEADER, SWEEPS, header, stem

from hdam.experiments.loading import load_experiment
from hdam.experiments.sweep_loading import EXPERIMENT, load_sweep
from hdam.pipelines.errors import InputError
from hdam.platform.stages import plan_stages
from hdam.platform.tune.points import num_points, point_at

LARGE = ("ablate_hierarchy", "ablate_intermediate", "ablate_attention_losses", "sweep_delta", "sweep_epsilon")
LARGE += ("sweep_motion_anchors",)


def test_the_shipped_sweeps_are_these():
    assert {path.stem for path in SWEEPS} == {"search_structure", *LARGE, *(f"{name}_puppets64" for name in LARGE)}


@pytest.mark.parametrize("path", SWEEPS, ids=stem)
def test_a_shipped_sweep_loads_and_says_what_to_expect(path):
    loaded, parts = load_sweep(path), header(path)
    assert loaded.sweep.name == path.stem
    assert tuple(parts) == HEADER and all(parts.values())
    assert parts["Question"] == loaded.sweep.question
    assert f"hdam tune experiments/{path.name} " in parts["Command"]
    for index in range(num_points(loaded, None)):
        point = point_at(loaded, index)
        assert plan_stages(loaded.experiment(point, seed=loaded.sweep.seeds[0]), "data")


@pytest.mark.parametrize("path", [path for path in SWEEPS if "puppets" in path.stem or "search" in path.stem], ids=stem)
def test_a_small_sweep_can_tell_a_difference_from_chance(path):
    loaded = load_sweep(path)
    assert len(loaded.sweep.seeds) > 1
    assert all(experiment.data.size == 64 for experiment in loaded.experiments.values())


def test_what_is_searched_is_what_the_name_says():
    values = load_sweep(FOLDER / "ablate_intermediate_puppets64.yaml").sweep.search["model.anchors.num_intermediate"]
    assert values.grid == (1, 2, 3, 4, 5)
    hierarchy = load_sweep(FOLDER / "ablate_hierarchy.yaml")
    variants = [hierarchy.experiment(point_at(hierarchy, i), seed=0).model.variant for i in range(3)]
    assert variants == ["fomm", "dam", "hdam"]


def test_sweeps_and_experiments_are_told_apart():
    with pytest.raises(InputError, match=r"is a sweep, not an experiment: hdam tune takes it"):
        load_experiment(SWEEPS[0])
    with pytest.raises(InputError, match=r"is an experiment, not a sweep: hdam train takes it"):
        load_sweep(EXPERIMENTS[0])


DELTA, MOTION = "losses.delta", "model.anchors.num_motion"
GOOD = {"name": "mine", "question": "Which?", "experiment": "puppets64.yaml", "search": {DELTA: {"grid": [0.1]}}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"concurency": 2}, "concurency: Extra inputs are not permitted"),
        ({"search": {"losses.delt": {"grid": [1]}}}, "search.losses.delt: .*nearest known key is 'losses.delta'"),
        ({"search": {"optim.lr": {"grid": [-1.0]}}}, "search.optim.lr: .*greater than 0"),
        ({"search": {DELTA: {"grit": [1]}}}, "grit: Extra inputs"),
        ({"search": {DELTA: {"grid": [1], "choice": [1]}}}, "expected one of grid, .*found 2"),
        ({"search": {DELTA: {"grid": []}}}, "grid is empty"),
        ({"search": {DELTA: {"uniform": [1.0, 0.5]}}, "algorithm": "random", "num_trials": 2}, "from 1 to 0.5"),
        ({"search": {DELTA: {"loguniform": [0, 0.5]}}, "algorithm": "random", "num_trials": 2}, "begins at 0"),
        ({"search": {DELTA: {"uniform": [0.1, 0.5]}}}, "has no end for algorithm: grid"),
        ({"algorithm": "random"}, "set num_trials"),
        ({"algorithm": "anneal"}, "algorithm: .*'grid', 'random' or 'optuna'"),
        ({"search": {}}, "nothing is varied"),
        ({"search": {"seed": {"grid": [1, 2]}}}, "search.seed: .*list them there"),
        ({"set": {"seed": 5}}, "set.seed: .*list them there"),
        ({"search": {"name": {"grid": ["a", "b"]}}}, "search.name: trials go by the name of the sweep"),
        ({"search": {DELTA: {"grid": [0.1, 0.3, 0.1]}}}, "search.losses.delta: .*grid has 0.1 twice"),
        ({"experiment": []}, "experiment"),
        ({"seeds": [1, 1]}, "has one twice"),
        ({"set": {DELTA: 0.2}}, "both searched and set"),
        ({"set": {"optim.lrr": 0.2}}, "unknown key 'optim.lrr'"),
        ({"resources": {"worker": 2}}, "unknown key 'resources.worker'"),
        ({"resources": {"workers": 3}}, "batch_size=32 does not divide over 3 workers"),
        ({"metric": "ratio"}, "metric: String should match"),
        ({"experiment": "yours.yaml"}, "yours.yaml: no such file"),
        ({"experiment": "sweep_delta.yaml"}, "is a sweep, not an experiment"),
        ({"scheduler": "pbt", "algorithm": "optuna", "num_trials": 3}, "pbt changes the settings"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path, changes, told):
    path = tmp_path / "mine.yaml"
    (tmp_path / "sweep_delta.yaml").write_text((FOLDER / "sweep_delta.yaml").read_text())
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    with pytest.raises(InputError, match=told) as error:
        load_sweep(path)
    assert str(path) in str(error.value) or "sweep_delta" in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_are_laid_over_each_other(tmp_path):
    path = tmp_path / "mine.yaml"
    content = {**GOOD, "set": {"optim.lr": "1e-4"}, "resources": {"workers": 1}, "seeds": [4]}
    path.write_text(yaml.safe_dump(content))
    loaded = load_sweep(path, {"data.path": "here", "optim.lr": 3e-4})
    trial, full = loaded.experiment({DELTA: 0.1}, seed=4), loaded.experiment_at_full({DELTA: 0.1}, seed=4)
    assert (trial.data.path, trial.optim.lr, trial.losses.delta, trial.seed) == ("here", 3e-4, 0.1, 4)
    assert (trial.resources.workers, full.resources.workers) == (1, 2)
    assert trial.name == "mine" and trial.question == "Which?"
    given = load_sweep(path, {"resources.workers": 2}).experiment({DELTA: 0.1}, seed=4)
    assert given.resources.workers == 2, "the command line has the last word"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (DELTA, "--set losses.delta: .*mine.yaml searches it"),
        ("seed", "--set seed: .*`seeds`; list them there, in .*mine.yaml"),
        ("question", "--set question: "),
        ("num_trials", "--set num_trials: unknown key"),
    ],
)
def test_a_change_that_would_change_nothing_is_refused(tmp_path, name, told):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    with pytest.raises(InputError, match=told):
        load_sweep(path, {name: 1})


def test_points_do_not_depend_on_how_many_there_are(tmp_path):
    path = tmp_path / "mine.yaml"
    search = {
        DELTA: {"uniform": [0.1, 0.5]},
        "optim.lr": {"loguniform": ["1e-5", 0.1]},
        MOTION: {"int": [5, 9]},
    }
    path.write_text(yaml.safe_dump({**GOOD, "search": search, "algorithm": "random", "num_trials": 3}))
    loaded = load_sweep(path)
    points = [point_at(loaded, index) for index in range(40)]
    assert points[:3] == [point_at(loaded, index) for index in range(3)]
    assert num_points(loaded, None) == 3 and num_points(loaded, 5) == 5
    assert all(0.1 <= point[DELTA] <= 0.5 and 1e-5 <= point["optim.lr"] <= 0.1 for point in points)
    assert {point[MOTION] for point in points} == {5, 6, 7, 8, 9}
    assert sum(point["optim.lr"] < 1e-3 for point in points) >= 10, "drawn evenly over orders of magnitude"


def test_several_experiments_are_one_more_thing_to_vary(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "experiment": ["puppets64.yaml", "puppets64_fomm.yaml"]}))
    loaded = load_sweep(path)
    assert [point_at(loaded, i)[EXPERIMENT] for i in range(num_points(loaded, None))] == ["puppets64", "puppets64_fomm"]
