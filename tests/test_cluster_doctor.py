"""`hdam doctor --cluster`: every node says what it reaches, and what it does not."""

import os

import pytest
from local_store import keep_results_in
from media_files import assert_one_line
from typer.testing import CliRunner

from hdam.pipelines.errors import InputError
from hdam.platform import cluster, cluster_doctor
from hdam.platform.cli import app
from hdam.platform.cluster_doctor import examine_cluster
from hdam.platform.sharing import store

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def results(ray_session, tmp_path, monkeypatch):
    monkeypatch.delenv(store.VARIABLE, raising=False)
    return keep_results_in(tmp_path / "results", monkeypatch)


def by_subject(findings):
    return {finding.subject.partition(": ")[2]: finding for finding in findings}


def test_all_is_well_where_it_is(dataset, s3, monkeypatch):
    found = by_subject(examine_cluster(dataset))
    assert list(found) == ["versions", "tracking server", "results folder", "dataset"]
    assert all(finding.is_good and finding.is_essential for finding in found.values()), found
    monkeypatch.setenv(store.VARIABLE, f"{s3}/doctor")
    found = by_subject(examine_cluster())
    assert found["store"].is_good and found["store"].found == f"{s3}/doctor"
    assert store.Place(f"{s3}/doctor").names() == [], "probes are removed"


def test_what_a_node_does_not_reach_is_named_with_the_node(s3, monkeypatch):
    monkeypatch.setenv(store.VARIABLE, "s3://no-such-bucket/a")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setattr(cluster_doctor, "PACKAGES", ("hdam",))
    monkeypatch.setattr(cluster_doctor, "_versions", lambda: {"hdam": "99.0"})
    found = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["doctor", "--cluster", "--data", f"{s3}/no-dataset"])
    assert found.exit_code == 1
    assert f"Missing: {os.uname().nodename} (" in " ".join(found.stdout.split()) and "secret" not in found.stdout
    told = {subject: finding.found for subject, finding in by_subject(examine_cluster(f"{s3}/no-dataset")).items()}
    assert "instead of 99.0" in told["versions"] and "refused" in told["tracking server"]
    assert "no such bucket" in told["store"] and "no such dataset" in told["dataset"]


def test_results_that_nodes_do_not_share_are_told(monkeypatch, tmp_path):
    question = cluster_doctor.Question(tracking_uri="", store=None, marker=str(tmp_path / "x"), dataset="", versions={})
    found = {answer.subject: answer for answer in cluster_doctor.answer(question)}["results folder"]
    assert not found.is_good and store.VARIABLE in found.consequence


def test_a_node_that_does_not_answer_in_time_is_no_node_without_hdam(monkeypatch):
    monkeypatch.setattr(cluster_doctor, "SECONDS_TO_ANSWER", 0.0)
    node = {"NodeManagerHostname": "gpu-1", "NodeID": "0123456789"}
    [finding] = cluster_doctor._findings(node, object(), ready=[])
    assert finding.subject == "gpu-1 (012345): hdam" and finding.is_essential and not finding.is_good
    assert finding.found == "no answer within 0 s"
    assert "hangs, the tracking server, the store or the dataset" in finding.consequence


@pytest.mark.parametrize("folder", ["/proc", "/proc/self/status"])
def test_results_that_cannot_be_written_are_one_line(monkeypatch, folder):
    monkeypatch.setenv("HDAM_RESULTS", folder)
    with pytest.raises(InputError) as error:
        examine_cluster()
    assert_one_line(error, f"no results can be kept in {folder} (")


def test_without_a_cluster_there_is_nothing_to_ask(monkeypatch):
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError) as error:
        examine_cluster()
    assert_one_line(error, "RAY_ADDRESS is not set")
    found = CliRunner().invoke(app, ["doctor", "--data", "x"])
    assert found.exit_code == 2
