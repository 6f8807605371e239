"""Nodes that share nothing but stores: S3 for datasets, checkpoints and artifacts, and MLflow on PostgreSQL.

Slow: `make test-cluster`.
"""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from cluster_head import ClusterHead
from local_store import keep_results_in
from mlflow_server import MlflowServer
from PIL import Image
from postgres_server import PostgresServer
from processes import wait_until
from separate_nodes import SeparateNode
from small_sweep import write_sweep
from small_training import make_dataset, moving_square, small_training
from test_s3 import upload

from hdam.pipelines.prepare import prepare
from hdam.pipelines.prepare_options import PrepareOptions
from hdam.pipelines.puppets import write_puppets
from hdam.platform import tracking
from hdam.platform.registry import load_model, show_model
from hdam.platform.sharing.checkpoints import stored_checkpoints
from hdam.platform.sharing.store import VARIABLE, Place

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

CHANGES = {
    "procedure": "paper",
    "optim.duration": "8 steps",
    "dam.duration": "60 steps",
    "screen.num_batches": 2,
    "log.checkpoint_every": 4,
    "log.pictures_every": 20,
    "resources.workers": 1,
}


@pytest.fixture(scope="module")
def server(s3, postgres, tmp_path_factory):
    """MLflow on PostgreSQL, with its artifacts in S3, as everybody's tracking server."""
    with pytest.MonkeyPatch.context() as patch, PostgresServer() as database:
        folder = tmp_path_factory.mktemp("mlflow")
        with MlflowServer(folder, database=database.uri, artifacts=f"{s3}/artifacts") as server:
            keep_results_in(folder / "results", patch)
            patch.setenv("MLFLOW_TRACKING_URI", server.uri)
            yield server


@pytest.fixture(scope="module")
def squares(s3, tmp_path_factory):
    """The address of a dataset in S3."""
    upload(make_dataset(tmp_path_factory.mktemp("data")), f"{s3}/squares")
    return f"{s3}/squares"


def write_experiment(path, dataset, changes):
    path.write_text(yaml.safe_dump(small_training(dataset, {**CHANGES, **changes}).settings()))
    return path


def runs():
    """All MLflow runs by id."""
    client = tracking.connect()
    return {
        run.info.run_id: run for run in client.search_runs([each.experiment_id for each in client.search_experiments()])
    }


def files_of(run_id, folder=""):
    return [file.path for file in tracking.connect().list_artifacts(run_id, folder)]


def children_of(run_id):
    return [run for run in runs().values() if run.data.tags.get("mlflow.parentRunId") == run_id]


def test_a_new_head_with_an_empty_disk_goes_on(server, squares, s3, separate_disks, tmp_path):
    store = f"{s3}/nodes"
    experiment = write_experiment(tmp_path / "squares.yaml", squares, {})
    variables = {VARIABLE: store, "MLFLOW_TRACKING_URI": server.uri}

    def stages():
        return [name for name in Place(f"{store}/stages").names() if name.startswith("dam-")]

    with SeparateNode(tmp_path / "results") as head, SeparateNode(tmp_path / "results", head=head, num_cpus=3) as node:
        asked = head.command("doctor", "--cluster", "--data", squares, COLUMNS="200", MLFLOW_TRACKING_URI=server.uri)
        said, _ = asked.communicate(timeout=600)
        assert asked.returncode == 1 and "nodes share no results folder" in " ".join(said.split()), said
        asked = head.command("doctor", "--cluster", "--data", squares, COLUMNS="200", **variables)
        said, _ = asked.communicate(timeout=600)
        assert asked.returncode == 0 and "Everything essential is here" in said, said

        first = head.command("train", experiment, **variables)
        wait_until(lambda: first.poll() is not None or stages(), seconds=600)
        assert first.poll() is None, first.communicate()
        place = Place(f"{store}/stages/{stages()[0]}")
        wait_until(lambda: first.poll() is not None or len(stored_checkpoints(place)) >= 2, seconds=600)
        assert first.poll() is None, first.communicate()
        head.kill()
        node.kill()
        first.kill()
        first.wait()
    left = max(stored_checkpoints(place))
    assert not list((tmp_path / "results").iterdir()), "what they knew is gone"

    with SeparateNode(tmp_path / "results") as head, SeparateNode(tmp_path / "results", head=head, num_cpus=3):
        second = head.command("train", experiment, **variables)
        said, _ = second.communicate(timeout=1500)
        assert second.returncode == 0, said
        options = ("--data", squares, "--metrics", "l1", "--protocol", "reconstruction")
        evaluated = head.command("evaluate", "models:/hdam-squares@candidate", *options, **variables)
        measured, _ = evaluated.communicate(timeout=900)
        assert evaluated.returncode == 0 and "models:/hdam-squares@candidate is version 1" in measured, measured
    evaluations = Place(f"{store}/evaluations")
    assert not any(evaluations.folder(name).names() for name in evaluations.names()), "files of actors are gone"
    assert int(re.search(r"going on from the checkpoint of step\s+(\d+)", said)[1]) == int(left.removeprefix("step-"))
    assert stored_checkpoints(place).keys() >= {"step-00000060"}
    (version,) = show_model("hdam-squares").versions
    parent = tracking.connect().get_run(version.run_id)
    assert parent.info.status == "FINISHED"
    children = {child.data.tags["stage"]: child for child in children_of(version.run_id)}
    assert len(children) == len(children_of(version.run_id)) == 4, "every stage stays one run"
    assert "screening.png" in files_of(children["screen"].info.run_id)
    assert files_of(children["dam"].info.run_id, "images"), "pictures came from the worker's disk"
    assert load_model("models:/hdam-squares@candidate").version == version.version


def test_a_sweep_goes_on_on_a_new_head(server, squares, s3, separate_disks, tmp_path):
    """Its record is in the store alone, once the first head is gone; what that has finished is not done again."""
    changes = {**CHANGES, "procedure": "scratch", "optim.duration": "16 steps"}
    sweep = write_sweep(tmp_path, squares, changes=changes, search={"optim.lr": {"grid": [2e-4, 1e-4]}}, concurrency=1)
    variables = {VARIABLE: f"{s3}/sweeps", "MLFLOW_TRACKING_URI": server.uri}

    def trials():
        (name,) = [name for name in Place(f"{s3}/sweeps/sweeps").names() if name.startswith("sweep-")] or [""]
        content = Place(f"{s3}/sweeps/sweeps/{name}").read("sweep.json") if name else None
        return json.loads(content)["trials"] if content else []

    with SeparateNode(tmp_path / "results") as head, SeparateNode(tmp_path / "results", head=head, num_cpus=3) as node:
        first = head.command("tune", sweep, **variables)
        wait_until(lambda: first.poll() is not None or len(trials()) == 2, seconds=900)
        assert first.poll() is None, first.communicate()
        head.kill()
        node.kill()
        first.kill()
        first.wait()
    (finished, begun), runs_before = trials(), len(runs())
    assert finished["status"] == "finished" and begun["status"] != "finished"

    with SeparateNode(tmp_path / "results") as head, SeparateNode(tmp_path / "results", head=head, num_cpus=3):
        second = head.command("tune", sweep, "--restore", **variables)
        said, _ = second.communicate(timeout=1500)
        assert second.returncode == 0, said
    assert [trial["status"] for trial in trials()] == ["finished", "finished"]
    assert {**trials()[0], "mlflow_run_id": ""} == finished, "it was not begun again"
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs().values() if run.data.tags.get("trial")}
    (parent,) = parents
    assert tracking.connect().get_run(parent).info.status == "FINISHED"
    assert {run.info.status for run in children_of(parent)} == {"FINISHED"} and len(children_of(parent)) == 2
    assert "report.html" in files_of(parent)
    assert runs_before <= len(runs()) <= runs_before + 4, "what was finished has no second run"


def test_two_users_at_the_same_time_do_not_mix(server, squares, s3, tmp_path):
    """They need the same DAM, of which one waits for the other's, and other HDAMs."""
    users = {}
    for name, epsilon in (("alice", 0.0), ("bob", 1e9)):
        changes = {"name": name, "screen.epsilon": epsilon, "dam.duration": "8 steps"}
        experiment = write_experiment(tmp_path / f"{name}.yaml", squares, changes)
        users[name] = subprocess.Popen(
            [sys.executable, "-P", "-m", "hdam.platform.cli", "train", experiment],
            env={**os.environ, VARIABLE: f"{s3}/users", "HDAM_RESULTS": str(tmp_path / name)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    told = {name: user.communicate(timeout=1500)[0] for name, user in users.items()}
    assert [user.returncode for user in users.values()] == [0, 0], told
    assert sum("stage dam is known, from run" in " ".join(said.split()) for said in told.values()) == 1
    versions = {version.tags["experiment"]: version for version in show_model("hdam-squares").versions}
    alice, bob = versions["alice"], versions["bob"]
    assert alice.run_id != bob.run_id and alice.tags["stage"] != bob.tags["stage"]
    for name, version in (("alice", alice), ("bob", bob)):
        model = load_model(f"models:/hdam-squares/{version.version}")
        assert model.experiment.name == name and bool(model.experiment.model.ignored) == (name == "alice")
        assert tracking.connect().get_run(version.run_id).info.status == "FINISHED"
        assert {run.data.tags["stage"] for run in children_of(version.run_id)} == {"dam", "screen", "hdam", "evaluate"}
    stages = Place(f"{s3}/users/stages").names()
    kinds = sorted(name.partition("-")[0] for name in stages if not name.startswith("."))
    assert kinds == ["dam", "evaluate", "evaluate", "hdam", "hdam", "screen", "screen"], stages


@pytest.fixture(scope="module")
def puppets(s3, tmp_path_factory):
    """The address of a few puppets in S3."""
    folder = tmp_path_factory.mktemp("puppets")
    write_puppets(folder / "videos", num_clips=8, num_frames=12, size=32, seed=1)
    prepare(folder / "videos", f"{s3}/puppets", options=PrepareOptions(size=32, test_share=0.25))
    return f"{s3}/puppets"


def test_a_job_trains_on_puppets_from_s3_and_the_client_animates_its_model(server, puppets, s3, tmp_path):
    changes = {"procedure": "scratch", "name": "puppets_by_job"}
    experiment = write_experiment(tmp_path / "puppets.yaml", puppets, changes)
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with ClusterHead(env_vars=credentials) as head:
        told = {**head.environment, VARIABLE: f"{s3}/jobs", "HDAM_RESULTS": str(tmp_path / "nodes")}
        submitted = hdam("submit", "--", "train", experiment, env={**os.environ, **told})
        assert submitted.returncode == 0, submitted.stdout
        broken = hdam("submit", "--", "train", experiment, "--set", "data.size=64", env={**os.environ, **told})
    assert broken.returncode == 1 and "data.size=64" in broken.stdout, broken.stdout
    (version,) = show_model("hdam-puppets").versions
    assert tracking.connect().get_run(version.run_id).info.status == "FINISHED"
    (kind, *_), (folder,) = version.tags["stage"].split("-"), Place(f"{s3}/jobs/runs").names()
    assert kind == "hdam" and folder.startswith("puppets_by_job-")
    assert "step-00000008" in stored_checkpoints(Place(f"{s3}/jobs/stages/{version.tags['stage']}"))

    driving = write_puppets(tmp_path / "unseen", num_clips=2, num_frames=6, size=32, seed=99) / "clips" / "puppet_0000"
    Image.fromarray(moving_square(0)[0]).save(tmp_path / "source.png")
    client = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    files = ("--source", tmp_path / "source.png", "--driving", driving, "--out", tmp_path / "result.mp4")
    animated = hdam(
        "animate",
        "--model",
        "models:/hdam-puppets@candidate",
        *files,
        env={**client, "HDAM_RESULTS": str(tmp_path / "me")},
    )
    assert animated.returncode == 0 and "is version 1" in animated.stdout, animated.stdout
    assert (tmp_path / "result.mp4").stat().st_size > 0


def hdam(*words, env):
    """A command, and what it said on both streams."""
    command = [sys.executable, "-P", "-m", "hdam.platform.cli", *map(str, words)]
    return subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=1500
    )
