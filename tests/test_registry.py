"""The registry: what is registered is found again, by every name, also by a plain Python process."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from local_store import keep_results_in
from media_files import assert_one_line
from small_models import SIZE, small_experiment, small_model

from hdam.models.weights import WeightsError
from hdam.pipelines.errors import InputError
from hdam.platform import registry
from hdam.platform.animate import as_image, moments
from hdam.platform.evaluation.evaluate import evaluate
from hdam.platform.evaluation.plan import EvaluationSettings
from hdam.platform.evaluation.results import read_evaluation
from hdam.platform.images import images_to_frames
from hdam.platform.model_folder import EXPERIMENT_NAME, WEIGHTS_NAME, read_model, write_model
from hdam.platform.promotion import promote
from hdam.platform.tracking import connect

NAME = "hdam-squares"
TAGS = {"variant": "hdam", "dataset": "squares", "steps": "7", "l1": "0.0123", "ratio": "0.61"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A tracking database with two versions of one model; returns the run of the second."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        keep_results_in(folder / "results", patch)
        patch.chdir(folder)
        client = connect()
        experiment_id = client.create_experiment("small", artifact_location=(folder / "artifacts").as_uri())
        for seed in (1, 2):
            run_id = client.create_run(experiment_id).info.run_id
            loaded = small_model(seed=seed)
            version = registry.register(
                model=loaded.model, experiment=loaded.experiment, name=NAME, run_id=run_id, tags=TAGS
            )
            assert version == str(seed)
            assert client.get_run(run_id).info.status == "RUNNING", "registering does not end a run"
        assert not list(folder.glob("mlruns")) and not list(folder.glob("mlflow.db"))
        yield run_id


def same_weights(model, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("reference", ["@candidate", "/2", "run"])
def test_every_name_leads_to_the_same_model(store, reference):
    uri = f"runs:/{store}/model" if reference == "run" else f"models:/{NAME}{reference}"
    loaded = registry.load_model(uri)
    assert same_weights(small_model(seed=2).model, loaded.model)
    assert loaded.experiment == small_experiment()
    assert not loaded.model.training
    assert loaded.uri == (uri if reference == "run" else f"models:/{NAME}/2"), "an alias may move"
    assert (loaded.name, loaded.version) == (("model", "") if reference == "run" else (NAME, "2"))


def test_a_folder_is_a_model_too(tmp_path):
    model = small_model(seed=5)
    write_model(tmp_path / "mine", model=model.model, experiment=model.experiment)
    loaded = registry.load_model(str(tmp_path / "mine"))
    assert same_weights(model.model, loaded.model)
    assert loaded.name == "mine"


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("models:/nobody@candidate", f"no registered model 'nobody'; there are {NAME}"),
        (f"models:/{NAME}@champion", r"no alias 'champion'; .*@candidate → 2"),
        (f"models:/{NAME}/9", "no version '9'; .*versions 2, 1"),
        (f"models:/{NAME}", "which version"),
        (f"models:/{NAME}/", "which version"),
        ("models:/", "no registered model ''"),
        ("runs:/0123456789abcdef0123456789abcdef/model", "0123456789abcdef"),
        ("absent/folder", "no such folder; expected models:/NAME@ALIAS"),
        ("", "no such folder"),
        ("s3://bucket/model", "no such folder"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(store, uri, problem):
    with pytest.raises(InputError, match=problem) as caught:
        registry.load_model(uri)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_fit_are_refused(tmp_path):
    model = small_model()
    folder = tmp_path / "model"
    write_model(folder, model=model.model, experiment=model.experiment)
    (folder / EXPERIMENT_NAME).write_text(small_experiment({"model.anchors.num_motion": 6}).model_dump_json())
    with pytest.raises(WeightsError, match="does not fit"):
        read_model(folder)
    (folder / EXPERIMENT_NAME).write_text('{"name": "x"}')
    with pytest.raises(InputError, match="settings that this hdam does not know"):
        read_model(folder)
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(InputError, match=f"{WEIGHTS_NAME} is missing"):
        read_model(folder)


def test_versions_and_aliases_are_listed(store):
    (model,) = registry.list_models()
    assert model == registry.show_model(NAME)
    assert [version.version for version in model.versions] == ["2", "1"]
    assert [version.aliases for version in model.versions] == [("candidate",), ()]
    assert model.versions[0].run_id == store
    assert model.versions[0].tags == TAGS
    with pytest.raises(InputError, match="no registered model 'nobody'"):
        registry.show_model("nobody")


def test_an_alias_moves(store):
    registry.set_alias(NAME, "1", "best")
    assert registry.load_model(f"models:/{NAME}@best").version == "1"
    registry.set_alias(NAME, "2", "best")
    assert registry.load_model(f"models:/{NAME}@best").version == "2"
    with pytest.raises(InputError, match="no version '3'"):
        registry.set_alias(NAME, "3", "best")
    with pytest.raises(InputError, match="alias"):
        registry.set_alias(NAME, "2", "no good/alias")


def test_an_alias_that_moves_while_a_model_is_loaded_changes_nothing(store, monkeypatch, caplog):
    registry.set_alias(NAME, "1", "moving")
    download = registry.mlflow.artifacts.download_artifacts

    def move_first(*args, **options):
        registry.set_alias(NAME, "2", "moving")
        return download(*args, **options)

    monkeypatch.setattr(registry.mlflow.artifacts, "download_artifacts", move_first)
    with caplog.at_level(logging.INFO, logger="hdam"):
        loaded = registry.load_model(f"models:/{NAME}@moving")
    assert same_weights(small_model(seed=1).model, loaded.model)
    assert (loaded.version, loaded.uri) == ("1", f"models:/{NAME}/1")
    assert f"models:/{NAME}@moving is version 1" in caplog.text


@pytest.mark.usefixtures("ray_session")
def test_an_evaluation_goes_on_with_the_version_that_it_began_with(store, dataset):
    registry.set_alias(NAME, "1", "measured")
    seen = []

    def move(done, total):
        registry.set_alias(NAME, "2", "measured")
        seen.append(done)

    loaded = registry.load_model(f"models:/{NAME}@measured")
    settings = EvaluationSettings(protocols=("reconstruction",), metrics=("l1",))
    record = read_evaluation(evaluate(loaded, dataset, settings=settings, on_item=move))
    assert seen == [0, 1, 2] and registry.load_model(f"models:/{NAME}@measured").version == "2"
    assert (record.model["version"], record.model["uri"]) == ("1", f"models:/{NAME}/1")
    straight = evaluate(registry.load_model(f"models:/{NAME}/1"), dataset, settings=settings, fresh=True)
    assert read_evaluation(straight).means == record.means


@pytest.mark.parametrize("what", ["weights", "everything"])
def test_a_version_whose_files_are_gone_is_told(store, what):
    client = connect()
    loaded, run_id = (
        small_model(seed=3),
        client.create_run(client.get_experiment_by_name("small").experiment_id).info.run_id,
    )
    version = registry.register(
        model=loaded.model, experiment=loaded.experiment, name="hdam-gone", run_id=run_id, tags={}
    )
    folder = Path(urlsplit(client.get_model_version_download_uri("hdam-gone", version)).path)
    if what == "everything":
        shutil.rmtree(folder)
    else:
        next(folder.rglob(WEIGHTS_NAME)).unlink()
    with pytest.raises(InputError) as error:
        registry.load_model("models:/hdam-gone@candidate")
    assert_one_line(error, f"models:/hdam-gone/{version}", "files cannot be read", "were they deleted?")


def test_nothing_in_a_logged_model_is_a_pickle(store):
    client = connect()
    source = client.get_model_version(NAME, "2").source
    folder = registry.mlflow.artifacts.download_artifacts(source)
    names = [name for _, _, files in os.walk(folder) for name in files]
    assert {WEIGHTS_NAME, EXPERIMENT_NAME, "served_model.py", "MLmodel"} <= set(names)
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin"))]


SERVED = """
import sys, numpy as np, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
arrays = np.load(sys.argv[2])
painted = model.predict({"source": arrays["source"], "driving": arrays["driving"]}, params={"mode": "absolute"})
np.save(sys.argv[3], painted)
try:
    model.predict({"source": arrays["source"].astype(float), "driving": arrays["driving"]})
except mlflow.exceptions.MlflowException as error:
    print("refused:", str(error).splitlines()[0])
"""


def test_a_plain_python_process_predicts_what_animate_paints(store, tmp_path):
    source, *driving = np.random.default_rng(0).integers(0, 256, (4, 40, 56, 3), dtype=np.uint8)
    np.savez(tmp_path / "in.npz", source=source[None], driving=driving)
    command = [sys.executable, "-c", SERVED, f"models:/{NAME}@candidate", tmp_path / "in.npz", tmp_path / "out.npy"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": registry.mlflow.get_tracking_uri(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "refused:" in done.stdout, "the signature holds"
    cpu = torch.device("cpu")
    model = small_model(seed=2).model
    still, *images = (as_image(frame, size=SIZE, device=cpu) for frame in (source, *driving))
    expected = [images_to_frames(m.transfer.image)[0] for m in moments(model, still, images, mode="absolute")]
    painted = np.load(tmp_path / "out.npy")
    assert painted.shape == (3, SIZE, SIZE, 3)
    assert np.abs(painted.astype(int) - np.array(expected)).max() <= 1  # another process may sum in another order


def test_a_champion_says_why(store):
    assert promote(NAME, "1", "the first that there is") == ""
    assert promote(NAME, "2", " fewer lost hands ") == "1"
    newest, oldest = registry.show_model(NAME).versions
    assert "champion" in newest.aliases and not oldest.aliases
    assert newest.tags["promoted.reason"] == "fewer lost hands" and newest.tags["promoted.instead_of"] == "1"
    assert oldest.tags["promoted.reason"] == "the first that there is" and "promoted.at" in oldest.tags
    with pytest.raises(InputError, match="has no version '3'"):
        promote(NAME, "3", "it may be better")
    with pytest.raises(InputError, match="--reason"):
        promote(NAME, "1", " ")
    assert "champion" in registry.show_model(NAME).versions[0].aliases
