"""The plan of an experiment: which stages it has, and what their keys depend on."""

import pytest
from small_training import small_training

from hdam.experiments.loading import override
from hdam.pipelines.errors import InputError
from hdam.platform.runs import StageRecord, find_stage, write_record
from hdam.platform.stages import check_kind, plan_stages, with_screening

PAPER = {"procedure": "paper"}
FOMM = {"model.anchors.num_intermediate": 0, "model.anchors.has_root": False}


def keys(changes=None, *, fingerprint="data"):
    """Key of every stage by its kind."""
    stages = plan_stages(small_training("here", {**PAPER, **(changes or {})}), fingerprint)
    return {stage.kind: stage.key for stage in stages}


def changed(changes, **options):
    """The stages that have another key after `changes`."""
    before, after = keys(), keys(changes, **options)
    assert list(before) == list(after)
    return [kind for kind in before if before[kind] != after[kind]]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        (PAPER, ["dam", "screen", "hdam", "evaluate"]),
        ({}, ["hdam", "evaluate"]),
        ({**PAPER, "model.anchors.num_intermediate": 0}, ["dam", "evaluate"]),
        (FOMM, ["fomm", "evaluate"]),
        ({**FOMM, "model.family": "regionmm"}, ["regionmm", "evaluate"]),
        ({**FOMM, "model.family": "regionmm", "model.has_avd": True}, ["regionmm", "avd", "evaluate"]),
        ({**PAPER, "model.has_avd": True}, ["dam", "screen", "hdam", "avd", "evaluate"]),
    ],
)
def test_the_stages_follow_from_the_model_and_the_procedure(changes, kinds):
    stages = plan_stages(small_training("here", changes), "data")
    assert [stage.kind for stage in stages] == kinds
    assert len({stage.name for stage in stages}) == len(stages)
    assert stages[-1].inputs == (kinds[-2],)


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"avd.lr": 1e-4, "losses.avd_affine": 2.0, "model.avd.stretch": 0.1}, ["avd", "evaluate"]),
        ({"losses.equivariance_affine": 2.0}, ["regionmm", "avd", "evaluate"]),
        ({"losses.delta": 0.2, "screen.epsilon": 0.1, "dam.lr": 1.0}, []),
    ],
)
def test_the_network_of_avd_is_trained_after_its_regions(changes, kinds):
    base = {**FOMM, "model.family": "regionmm", "model.has_avd": True}
    before, after = (
        {s.kind: s.key for s in plan_stages(small_training("here", c), "d")} for c in (base, base | changes)
    )
    assert [kind for kind in before if before[kind] != after[kind]] == kinds


ALL = ["dam", "screen", "hdam", "evaluate"]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"losses.delta": 0.2}, ["hdam", "evaluate"]),
        ({"losses.orthogonal": 3.0, "losses.completeness": 0.0}, ["hdam", "evaluate"]),
        ({"model.anchors.num_intermediate": 5, "model.detector.attention_width": 4}, ["hdam", "evaluate"]),
        ({"screen.epsilon": 0.1}, ["screen", "hdam", "evaluate"]),
        ({"screen.seed": 1}, ["screen", "hdam", "evaluate"]),
        ({"losses.root_to_motion": 3.0}, ALL),
        ({"dam.duration": "7 steps"}, ALL),
        ({"model.anchors.num_motion": 4}, ALL),
        ({"seed": 1}, ALL),
        ({"data.repeats": 17}, ALL),
        ({"resources.workers": 4, "log.metrics_every": 1, "question": "Another?", "name": "other"}, []),
        ({"data.path": "elsewhere"}, []),
    ],
)
def test_a_key_changes_with_what_the_stage_depends_on_and_nothing_else(changes, kinds):
    assert changed(changes) == kinds


def test_other_data_are_other_stages():
    assert changed({}, fingerprint="other data") == ALL


def test_a_dam_is_the_same_whatever_it_is_for():
    alone = keys({"model.anchors.num_intermediate": 0, "dam.lr": 0.5})
    assert alone["dam"] == keys({"dam.lr": 0.5})["dam"] != keys()["dam"]
    assert alone["dam"] == keys({"model.anchors.num_intermediate": 0, "optim.lr": 0.5})["dam"]


def test_the_recipe_of_dam_may_differ():
    dam, _, hdam, _ = plan_stages(small_training("here", {**PAPER, "dam.duration": "7 steps", "dam.lr": 0.5}), "data")
    assert str(dam.experiment.optim.duration) == "7 steps" and dam.experiment.optim.lr == 0.5
    assert str(hdam.experiment.optim.duration) == "30 steps" and hdam.experiment.optim.lr == 1e-3
    assert dam.experiment.model.anchors.variant == "dam"


def test_a_file_of_weights_counts_by_its_content(tmp_path):
    for name, content in {"a.pth": b"same", "b.pth": b"same", "c.pth": b"other"}.items():
        (tmp_path / name).write_bytes(content)
    found = [keys({"losses.perceptual.weights": str(tmp_path / name)})["dam"] for name in ("a.pth", "b.pth", "c.pth")]
    assert found[0] == found[1] != found[2]


def test_anchors_are_screened_or_told_and_not_both():
    experiment = small_training("here", {"model.ignored": [1]})
    assert [stage.kind for stage in plan_stages(experiment, "data")] == ["hdam", "evaluate"]
    with pytest.raises(InputError, match=r"model\.ignored=\[1\].*stage screen.*procedure: scratch"):
        plan_stages(override(experiment, PAPER), "data")
    assert with_screening(small_training("here", PAPER), (0, 2)).model.ignored == (0, 2)


@pytest.mark.parametrize("text", ["fomm", "train"])
def test_a_stage_that_is_not_there_is_named(text):
    stages = plan_stages(small_training("here", PAPER), "data")
    assert check_kind("screen", stages) == "screen"
    with pytest.raises(
        InputError, match=f"--from {text}: no stage of this experiment; it has dam, screen, hdam, evaluate"
    ):
        check_kind(text, stages)


def put(folder, *, status, dam):
    folder.mkdir(parents=True)
    write_record(folder, StageRecord(status=status, inputs={"dam": dam}))
    return folder


def test_a_stage_is_found_by_its_name_and_what_it_was_built_on(tmp_path):
    def find(dam="dam-1", is_new=False):
        return find_stage(tmp_path, "hdam-2", inputs={"dam": dam}, is_new=is_new).name

    assert find() == "hdam-2"
    put(tmp_path / "hdam-2", status="finished", dam="dam-1")
    assert find() == "hdam-2"
    assert find(is_new=True) == find(dam="dam-1-2") == "hdam-2-2", "another DAM of the same settings"
    put(tmp_path / "hdam-2-2", status="interrupted", dam="dam-1")
    assert find() == "hdam-2", "the finished one"
    assert find(dam="dam-1-2") == "hdam-2-3"
    put(tmp_path / "hdam-2-3", status="failed", dam="dam-1-2")
    assert find(dam="dam-1-2") == "hdam-2-3", "the one that was begun"
