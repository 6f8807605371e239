"""A sweep on real Ray Tune: its trials end as they should, and the best model is a candidate."""

import csv

import pytest
from local_store import keep_results_in
from rich.console import Console
from small_sweep import STEPS, small_sweep
from sweep_runs import check_accounted, children_of

from hdam.platform import tracking
from hdam.platform.registry import load_model, show_model
from hdam.platform.runs import STAGES_DIR
from hdam.platform.tune.show import show_sweep
from hdam.platform.tune.sweep import tune

BLOCKS = "model.detector.num_blocks"
SWEEP = {"search": {BLOCKS: {"grid": [2, 6]}}, "changes": {"procedure": "scratch"}}
"""Frames of 32 pixels are too small for six blocks: the second trial fails."""


pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def results(tmp_path_factory, ray_session):
    with pytest.MonkeyPatch.context() as patch:
        yield keep_results_in(tmp_path_factory.mktemp("tune") / "results", patch)


@pytest.fixture(scope="module")
def report(dataset, results):
    return tune(small_sweep(results.parent, dataset, **SWEEP))


def test_a_trial_that_fails_is_kept_and_ends_nothing(report):
    finished, failed = report.trials
    assert (finished.status, failed.status) == ("finished", "failed")
    assert "do not work at data.size=32" in failed.reason and "\n" not in failed.reason
    check_accounted(report)
    run = tracking.connect().get_run(failed.mlflow_run_id)
    assert run.data.params[BLOCKS] == "6" and run.data.tags[f"setting.{BLOCKS}"] == "6"


def test_a_trial_is_a_run_with_its_scores_and_stages(report):
    (finished, _), client = report.trials, tracking.connect()
    assert [step for step, _ in finished.history] == [4, STEPS]
    run = client.get_run(finished.mlflow_run_id)
    assert run.data.metrics["test/ratio"] == pytest.approx(finished.metrics["test/ratio"])
    told = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "held_out/ratio")}
    assert told == dict(finished.history)
    assert set(children_of(run.info.run_id)) == {"hdam", "evaluate"}
    assert {"loss/total", "held_out/ratio", "test/l1"} <= set(finished.metrics)


def test_the_best_model_is_a_candidate_that_names_the_sweep(report):
    model = load_model("models:/hdam-squares@candidate")
    assert report.best.number == 1 and model.version == report.model_uri.rpartition("/")[2]
    (version,) = show_model("hdam-squares").versions
    assert version.tags["sweep"] == report.name and version.tags["sweep.run"] == report.mlflow_run_id
    assert version.tags["trial"] == "1" and version.run_id == report.best.mlflow_run_id
    assert model.experiment.name == "sweep"


def test_the_report_is_kept_as_table_and_text(report):
    text = (report.folder / "report.md").read_text()
    assert "Which is best?" in text and "Trial 2 failed: " in text and report.model_uri in text
    with (report.folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["finished", "failed"]
    assert float(rows[0]["test/ratio"]) == report.trials[0].metrics["test/ratio"]
    client = tracking.connect()
    kept = {item.path for item in client.list_artifacts(report.mlflow_run_id)}
    assert {"report.md", "trials.csv", "trials.json", "experiment.yaml"} <= kept
    assert client.get_run(report.mlflow_run_id).data.tags["best.trial"] == "1"
    console = Console(record=True, width=120)
    show_sweep(report, console)
    said = console.export_text()
    assert "num_blocks" in said and "1 failed" in said and "alias candidate" in said


def test_the_same_sweep_has_nothing_left_to_do(dataset, results, report):
    again = tune(small_sweep(results.parent, dataset, **SWEEP), restore=True)
    assert again.was_known and again.trials == report.trials and again.model_uri == report.model_uri
    assert len(list((results / STAGES_DIR).glob("hdam-*"))) == 1
