"""What is written down about a run, and that a store which does not take it is a warning."""

import json
import math
from pathlib import Path

import pytest
import yaml
from local_store import keep_results_in
from mlflow.exceptions import MlflowException
from small_training import make_dataset, small_training

from hdam.pipelines.manifest import load_manifest
from hdam.platform import tracked_run, tracking

UNKNOWN = "f" * 32


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A tracking store in SQLite with one run: (client, experiment, manifest, run id)."""
    folder = tmp_path_factory.mktemp("tracking")
    with pytest.MonkeyPatch.context() as patch:
        keep_results_in(folder / "results", patch)
        dataset = make_dataset(folder, num_clips=4, num_test=1)
        experiment, manifest = small_training(dataset, {"seed": 7}), load_manifest(dataset)
        client = tracking.connect()
        yield client, experiment, manifest, tracked_run.start_run(client, experiment, manifest, run_name="first")


@pytest.fixture
def run(store):
    """A run of its own in the store: (client, run id)."""
    client, experiment, manifest, _ = store
    return client, tracked_run.start_run(client, experiment, manifest, run_name="another")


def test_a_run_says_what_is_trained_on_what_with_what(store):
    client, experiment, manifest, run_id = store
    run = client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert client.get_experiment(run.info.experiment_id).name == experiment.name
    assert run.data.params["optim.lr"] == "0.001"
    assert run.data.params["model.anchors.num_motion"] == "3"
    assert set(run.data.params) == set(tracked_run.flatten(experiment.settings()))
    assert run.data.tags["dataset.fingerprint"] == manifest.fingerprint
    assert run.data.tags["variant"] == "hdam"
    assert {"version.torch", "version.ray", "version.hdam"} <= set(run.data.tags)
    assert run.inputs.dataset_inputs[0].dataset.name == manifest.name
    path = Path(client.download_artifacts(run_id, "experiment.yaml"))
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == experiment.settings()
    assert str(tracking.results_dir() / "artifacts") in run.info.artifact_uri


def test_a_run_is_shown_below_its_parent_with_tags_of_its_own(store):
    client, experiment, manifest, parent = store
    child = tracked_run.start_run(
        client, experiment, manifest, run_name="child", parent_id=parent, tags={"stage": "dam"}
    )
    tags = client.get_run(child).data.tags
    assert (tags["mlflow.parentRunId"], tags["stage"], tags["variant"]) == (parent, "dam", "hdam")
    assert "mlflow.parentRunId" not in client.get_run(parent).data.tags


def test_a_run_ends_and_is_resumed(run):
    client, run_id = run
    tracked_run.end_run(client, run_id, "KILLED")
    assert tracked_run.run_status(client, run_id) == "KILLED"
    assert tracked_run.resume_run(client, run_id)
    assert tracked_run.run_status(client, run_id) == "RUNNING"


def test_a_run_that_the_store_does_not_know_has_no_status(store, caplog):
    client, *_ = store
    assert not tracked_run.resume_run(client, UNKNOWN)
    assert tracked_run.run_status(client, UNKNOWN) is None
    assert not caplog.text


def test_tags_metrics_and_files_are_there_in_the_end(run, tmp_path):
    client, run_id = run
    (tmp_path / "weights.txt").write_text("heavy", encoding="utf-8")
    tracked_run.set_tags(client, run_id, {"stage": "dam", "variant": "changed"})
    tracked_run.log_metrics(client, run_id, {"test/l1": 0.1, "test/ratio": math.nan}, step=20)
    tracked_run.log_file(client, run_id, tmp_path / "weights.txt")
    data = client.get_run(run_id).data
    assert (data.tags["stage"], data.tags["variant"]) == ("dam", "changed")
    assert data.metrics["test/l1"] == 0.1 and math.isnan(data.metrics["test/ratio"])
    assert [metric.step for metric in client.get_metric_history(run_id, "test/l1")] == [20]
    assert Path(client.download_artifacts(run_id, "weights.txt")).read_text(encoding="utf-8") == "heavy"


def test_a_run_may_have_several_tables_and_the_last_of_a_name_counts(run):
    client, run_id = run
    tracked_run.log_table(client, run_id, "evaluation.json", {"clip_id": ["old"], "l1": [0.3]})
    tracked_run.log_table(client, run_id, "anchors.json", {"anchor": [0, 1, 2]})
    tracked_run.log_table(client, run_id, "evaluation.json", {"clip_id": ["a", "b"], "l1": [0.1, 0.2]})
    found = client.get_run(run_id)
    table = json.loads(Path(client.download_artifacts(run_id, "evaluation.json")).read_text(encoding="utf-8"))
    assert table == {"columns": ["clip_id", "l1"], "data": [["a", 0.1], ["b", 0.2]]}
    assert client.load_table(found.info.experiment_id, "evaluation.json", [run_id]).shape == (2, 2)
    assert client.load_table(found.info.experiment_id, "anchors.json", [run_id]).shape == (3, 1)
    shown = json.loads(found.data.tags["mlflow.loggedArtifacts"])
    assert [table["path"] for table in shown] == ["evaluation.json", "anchors.json"]


def test_what_the_store_does_not_take_is_a_warning_where_that_will_do(store, caplog):
    client, *_ = store
    with pytest.raises(MlflowException, match="not found"):
        tracked_run.set_tags(client, UNKNOWN, {"stage": "dam"})
    with tracking.tolerated("the tags were not set"):
        tracked_run.set_tags(client, UNKNOWN, {"stage": "dam"})
    assert f"MLflow at {tracking.tracking_uri()}: the tags were not set (Run with id=" in caplog.text
