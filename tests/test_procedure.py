"""The paper's procedure on real Ray and MLflow, from DAM to the registered HDAM; and what is used again."""

import json
import logging
from pathlib import Path

import pytest
import torch
from local_store import keep_results_in
from PIL import Image
from small_training import small_training

from hdam.models.screening import SCREENING_SCALE
from hdam.platform import tracking
from hdam.platform.checkpoints import newest_checkpoint, read_checkpoint, read_seal
from hdam.platform.registry import load_model, show_model
from hdam.platform.runs import RunRecord, StageRecord, read_record, write_record
from hdam.platform.status import examine_experiment
from hdam.platform.train import train

CHANGES = {
    "procedure": "paper",
    "optim.duration": "8 steps",
    "dam.duration": "12 steps",
    "screen.num_batches": 3,
    "log.checkpoint_every": 4,
    "resources.workers": 1,
}


@pytest.fixture(scope="module", autouse=True)
def results(tmp_path_factory, ray_session):
    """One folder for all tests here, which use each other's stages."""
    with pytest.MonkeyPatch.context() as patch:
        yield keep_results_in(tmp_path_factory.mktemp("procedure") / "results", patch)


@pytest.fixture(scope="module")
def first(dataset):
    """A run in which every anchor is abnormal, and what it said."""
    return run(dataset, {"screen.epsilon": 0.0})


@pytest.fixture(scope="module")
def epsilon(first):
    """An ε that the anchor with the highest loss alone exceeds."""
    report, _ = first
    *_, second, highest = sorted(result_of(report, "screen")["losses"])
    return (second + highest) / 2


@pytest.fixture(scope="module")
def screened(dataset, epsilon):
    """A run in which one anchor is abnormal, and what it said."""
    return run(dataset, {"screen.epsilon": epsilon})


def run(dataset, changes, **options):
    """A report of `train` and its log."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("hdam")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        report = train(small_training(dataset, {**CHANGES, **changes}), **options)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return report, "\n".join(lines)


def stage_of(report, kind):
    return next(stage for stage in report.stages if stage.kind == kind)


def result_of(report, kind):
    return read_record(Path(stage_of(report, kind).folder), StageRecord).result


def known_stages(report):
    return [stage.kind for stage in report.stages if stage.was_known]


def children_of(run_id):
    """The child runs of an MLflow run, by stage."""
    client = tracking.connect()
    experiment_id = client.get_run(run_id).info.experiment_id
    found = client.search_runs([experiment_id], filter_string=f"tags.mlflow.parentRunId = '{run_id}'")
    return {child.data.tags["stage"]: child for child in found}


def test_one_command_does_all_stages(first):
    report, said = first
    assert [stage.kind for stage in report.stages] == ["dam", "screen", "hdam", "evaluate"]
    assert known_stages(report) == []
    assert (result_of(report, "dam")["steps"], report.num_steps) == (12, 8)
    assert report.reconstruction.num_clips == 2
    assert "weights from dam-" in said and " 2 fresh" in said
    growth = json.loads((Path(stage_of(report, "hdam").folder) / "growth.json").read_text())
    assert set(growth["fresh"]) == {"detector.attention.key.weight", "detector.attention.query.weight"}
    assert set(growth["grown"]) == {f"detector.{h}_head.{p}" for h in ("heatmap", "affine") for p in ("weight", "bias")}
    assert not list(Path(stage_of(report, "hdam").folder).glob("initial*")), "the first checkpoint has them"


def test_the_flow_of_dam_is_where_hdam_begins(first):
    report, _ = first
    dam, hdam = (newest_checkpoint(Path(stage_of(report, kind).folder)) for kind in ("dam", "hdam"))
    before, after = (read_checkpoint(checkpoint)["model"] for checkpoint in (dam, hdam))
    name = "generator.final.weight"
    assert 0 < (after[name] - before[name]).abs().max() < 0.02 < before[name].abs().max(), "eight steps of Adam away"


def test_all_abnormal_goes_on_with_a_word(first):
    report, said = first
    assert report.ignored == (0, 1, 2)
    assert "all 3 motion anchors are abnormal" in said and "raise screen.epsilon" in said
    model = load_model(report.model_uri).model
    image = torch.rand(1, 3, 32, 32)
    assert model(image, image).attention.abs().sum() == 0


def test_every_stage_is_a_child_run_and_all_are_finished(first):
    report, _ = first
    client = tracking.connect()
    parent = client.get_run(report.mlflow_run_id)
    children = children_of(report.mlflow_run_id)
    assert {kind: child.info.run_id for kind, child in children.items()} == {
        stage.kind: stage.mlflow_run_id for stage in report.stages
    }
    assert {parent.info.status, *(child.info.status for child in children.values())} == {"FINISHED"}
    assert children["hdam"].data.tags["stage.key"] in stage_of(report, "hdam").folder
    assert parent.data.metrics["test/l1"] == pytest.approx(report.reconstruction.l1)
    artifacts = {
        kind: {item.path for item in client.list_artifacts(child.info.run_id)} for kind, child in children.items()
    }
    assert {"screening.json", "screening.png"} <= artifacts["screen"]
    assert "evaluation.json" in artifacts["evaluate"] and "growth.json" in artifacts["hdam"]
    table = client.load_table(parent.info.experiment_id, "screening.json", [children["screen"].info.run_id])
    assert table["equivariance_loss"].tolist() == pytest.approx(result_of(report, "screen")["losses"])
    assert table["is_abnormal"].all()


def test_another_epsilon_uses_dam_again_and_says_so(first, screened, epsilon):
    (before, _), (report, said) = first, screened
    assert known_stages(report) == ["dam"]
    dam = stage_of(report, "dam")
    assert f"stage dam is known, from run {dam.mlflow_run_id[:8]} of squares ({dam.folder})" in said
    assert dam.folder == stage_of(before, "dam").folder
    losses = result_of(report, "screen")["losses"]
    assert losses == result_of(before, "screen")["losses"], "the seed decides what is measured"
    assert report.ignored == (losses.index(max(losses)),)
    link = children_of(report.mlflow_run_id)["dam"]
    assert link.data.tags["reused_from"] == dam.mlflow_run_id and link.info.status == "FINISHED"


def test_an_abnormal_anchor_is_recorded_everywhere_and_masked(screened):
    report, _ = screened
    (anchor,) = report.ignored
    checkpoint = newest_checkpoint(report.training_dir)
    assert read_seal(checkpoint)["experiment"]["model"]["ignored"] == [anchor]
    loaded = load_model(report.model_uri)
    assert loaded.experiment.model.ignored == (anchor,)
    attention = loaded.model(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)).attention
    assert attention[:, :, anchor].abs().max() == 0 and torch.allclose(attention.sum(-1), torch.ones(2, 2))
    tags = show_model(report.model_name).versions[0].tags
    assert tags["ignored"] == str([anchor]) and tags["stage"] == report.training_dir.name
    assert children_of(report.mlflow_run_id)["screen"].data.tags["ignored"] == str([anchor])
    assert load_model(str(checkpoint)).experiment.model.ignored == (anchor,)


def test_the_picture_of_the_screening_marks_what_is_abnormal(first, screened):
    pictures = [
        Image.open(Path(stage_of(report, "screen").folder) / "screening.png") for report, _ in (first, screened)
    ]
    reds = [sum(pixel == (220, 20, 20) for pixel in picture.convert("RGB").getdata()) for picture in pictures]
    assert reds[0] > 2 * reds[1] > 0
    assert SCREENING_SCALE == 10, "the picture's title says so"


def test_another_delta_uses_dam_and_screening_again(dataset, screened, epsilon):
    report, said = run(dataset, {"screen.epsilon": epsilon, "losses.delta": 0.9})
    assert known_stages(report) == ["dam", "screen"]
    assert report.ignored == screened[0].ignored
    assert said.count("is known, from run") == 2
    assert report.model_version != screened[0].model_version


def test_the_same_stages_under_another_name_are_the_same_model(dataset, screened, epsilon):
    report, said = run(dataset, {"screen.epsilon": epsilon, "name": "twin"})
    assert known_stages(report) == ["dam", "screen", "hdam", "evaluate"]
    assert report.model_uri == screened[0].model_uri and "is registered already" in said
    assert report.run_dir != screened[0].run_dir and report.reconstruction == screened[0].reconstruction
    assert len(children_of(report.mlflow_run_id)) == 4


def test_the_dam_alone_is_evaluated_without_training(dataset, first):
    report, _ = run(dataset, {"model.anchors.num_intermediate": 0})
    assert known_stages(report) == ["dam"] and [stage.kind for stage in report.stages] == ["dam", "evaluate"]
    assert load_model(report.model_uri).experiment.model.anchors.variant == "dam"
    assert report.num_steps == 12


def test_a_stage_can_be_done_anew_with_all_that_follows(dataset, screened, epsilon):
    changes = {"screen.epsilon": epsilon}
    report, _ = run(dataset, changes, start="evaluate")
    assert known_stages(report) == ["dam", "screen", "hdam"]
    assert stage_of(report, "evaluate").folder == stage_of(screened[0], "evaluate").folder + "-2"
    assert report.run_dir.name == screened[0].run_dir.name + "-2"
    again, _ = run(dataset, changes)
    assert again.was_known and again.run_dir == report.run_dir


def test_what_was_done_anew_is_gone_on_with_after_an_interruption(dataset, screened, epsilon):
    """The record of a run says which folders its stages have, whatever else is finished."""
    changes = {"screen.epsilon": epsilon, "name": "interrupted"}
    report, _ = run(dataset, changes)
    record = read_record(report.run_dir, RunRecord)
    other = Path(stage_of(report, "evaluate").folder + "-9")
    other.mkdir()
    stages = {**record.stages, "evaluate": other.name}
    write_record(report.run_dir, RunRecord(status="running", mlflow_run_id=record.mlflow_run_id, stages=stages))
    again, _ = run(dataset, changes)
    assert stage_of(again, "evaluate").folder == str(other) and not stage_of(again, "evaluate").was_known
    assert again.mlflow_run_id == report.mlflow_run_id


def test_the_status_says_what_is_there(dataset, screened, epsilon):
    status = examine_experiment(small_training(dataset, {**CHANGES, "screen.epsilon": epsilon, "name": "squares"}))
    assert status.state == "finished" and status.model_uri == screened[0].model_uri
    assert [(stage.kind, stage.state) for stage in status.stages] == [
        ("dam", "finished"), ("screen", "finished"), ("hdam", "finished"), ("evaluate", "finished")
    ]  # fmt: skip
    assert status.stages[0].details == "12 steps" and "1 of 3 anchors abnormal" in status.stages[1].details
    assert status.stages[2].best
    other = examine_experiment(small_training(dataset, {**CHANGES, "screen.epsilon": 0.123}))
    assert other.state == "to do" and [stage.state for stage in other.stages] == ["finished", "to do", "to do", "to do"]


def test_the_status_tells_a_killed_driver_and_mends_mlflow(dataset, screened, epsilon):
    changes = {**CHANGES, "screen.epsilon": epsilon, "name": "killed"}
    report, _ = run(dataset, {"screen.epsilon": epsilon, "name": "killed"})
    client = tracking.connect()
    client.update_run(report.mlflow_run_id, status="RUNNING")
    record = read_record(report.run_dir, RunRecord)
    write_record(report.run_dir, RunRecord(status="running", mlflow_run_id=record.mlflow_run_id, stages=record.stages))
    assert examine_experiment(small_training(dataset, changes)).state == "killed"
    assert client.get_run(report.mlflow_run_id).info.status == "KILLED"
