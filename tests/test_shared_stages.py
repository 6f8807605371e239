"""Stages and what belongs to them, begun on one disk, and used and finished on another."""

import contextlib
import logging
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from local_store import keep_results_in
from ray.exceptions import RayActorError
from small_models import small_model
from small_training import small_training
from stored_checkpoints import STAGE, keep, upload

from hdam.experiments.experiment import ScreenConfig
from hdam.models.objective import build_objective
from hdam.pipelines.errors import InputError
from hdam.platform import stage_training
from hdam.platform.checkpoints import STATE_NAME, read_checkpoint, write_checkpoint
from hdam.platform.cluster import Machine
from hdam.platform.evaluation import actors
from hdam.platform.evaluation import evaluate as evaluation
from hdam.platform.evaluation.plan import EvaluationSettings
from hdam.platform.evaluation.results import read_evaluation
from hdam.platform.locks import holding
from hdam.platform.messages import Pictured
from hdam.platform.prepared import prepare_training
from hdam.platform.runs import StageRecord, claim_stage, numbered_folders, read_record, write_record
from hdam.platform.sharing import store
from hdam.platform.sharing.checkpoints import (
    brought,
    fetch_newest,
    stored_checkpoints,
)
from hdam.platform.sharing.files import offer_file
from hdam.platform.sharing.stages import adopt_stage, fetch_stage, share_stage
from hdam.platform.sharing.store import Place, StoreError, place_of
from hdam.platform.stage_evaluation import evaluate_checkpoint
from hdam.platform.stage_screening import screen_checkpoint
from hdam.platform.status import examine_experiment
from hdam.platform.train import train
from hdam.platform.tune.population import take_weights


def test_what_one_disk_recorded_another_one_reads(shared, disks):
    with holding(disks("first")):
        write_record(disks("first"), StageRecord(status="finished", result={"steps": 3}))
    record = read_record(disks("second"), StageRecord)
    assert (record.status, record.result) == ("finished", {"steps": 3})
    assert [folder.name for folder in numbered_folders(disks("second").parent, "hdam-0123456789")] == [
        "hdam-0123456789"
    ]


def test_stages_that_two_machines_begin_are_one(shared, disks):
    claimed = []
    for name in ("first", "second"):
        stages_dir = disks(name).parent
        claimed.append(claim_stage(stages_dir, "hdam-0123456789", inputs={"dam": "dam-1"}, is_new=False).name)
    assert claimed == ["hdam-0123456789"] * 2
    assert claim_stage(disks("third").parent, "hdam-0123456789", inputs={"dam": "dam-2"}, is_new=False).name.endswith(
        "-2"
    )


def test_files_of_the_driver_reach_other_disks_once(shared, disks, tmp_path, monkeypatch):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    offered = offer_file(weights, shared)
    monkeypatch.setattr(Place, "put", lambda *_: pytest.fail("it is there already"))
    assert offer_file(weights, shared) == offered
    weights.unlink()
    offered.fetch()
    assert weights.read_bytes() == b"weights"
    weights.write_bytes(b"others")
    with pytest.raises(InputError, match=r"weights\.pth on .* is another file than the driver's"):
        offered.fetch()
    assert weights.read_bytes() == b"others"


def test_first_weights_of_before_are_replaced(shared, disks, monkeypatch):
    initial = disks("first") / "initial.safetensors"
    initial.parent.mkdir(parents=True)
    initial.write_bytes(b"new")
    offered = offer_file(initial, place_of(initial.parent))
    initial.write_bytes(b"left by another training")
    offered.fetch()
    assert initial.read_bytes() == b"new"


@pytest.fixture
def listen(results, monkeypatch):
    """Makes a listener; also the list of the pictures that it has sent."""
    sent = []
    monkeypatch.setattr(
        stage_training, "Outbox", lambda *_, **__: SimpleNamespace(add_picture=lambda path, step: sent.append(path))
    )
    stage = SimpleNamespace(kind="hdam")
    job = SimpleNamespace(client=None, run_id="", folder=results, on_message=lambda *_: None, stage=stage)
    return stage_training.Listener(lambda _: None, job), sent


def test_pictures_of_a_worker_on_another_disk_come_with_their_message(listen, results):
    listener, sent = listen
    path = results / STAGE / "pictures" / "step-00000005.png"
    listener(Pictured(step=5, path=str(path), content=b"picture"))
    assert sent == [path] and path.read_bytes() == b"picture"


def test_a_full_disk_of_the_driver_costs_pictures_alone(listen, small_disk, caplog):
    listener, sent = listen
    paths = [small_disk / "pictures" / f"step-{step:08d}.png" for step in range(3)]
    with (small_disk / "filling").open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    for step, path in enumerate(paths[:2]):
        listener(Pictured(step=step, path=str(path), content=bytes(1 << 16)))
    assert sent == [] and not list(small_disk.rglob("*.p*"))
    assert len(caplog.messages) == 1 and "No space left" in caplog.text
    (small_disk / "filling").unlink()
    listener(Pictured(step=2, path=str(paths[2]), content=b"picture"))
    assert sent == paths[2:]


def test_a_node_of_its_own_disk_screens_what_another_has_trained(shared, disks, dataset):
    """As on a cluster, without one: what runs on the node is called here."""
    experiment = small_training(dataset)
    model = build_objective(experiment.model, experiment.losses).model
    checkpoint = write_checkpoint(
        disks("first"), {"model": model.state_dict()}, step=3, keep=2, experiment=experiment.settings()
    )
    place = place_of(disks("first"))
    upload(disks("first"), place)
    there, told = disks("second") / checkpoint.name, []
    found = evaluate_checkpoint(there, dataset, place=place, total=2, tell=told.append)
    assert len(found.clips) == 2 and told
    plan = prepare_training(experiment).plan
    screened, sheet = screen_checkpoint(
        disks("third") / checkpoint.name, plan, ScreenConfig(num_batches=1), place=place, tell=told.append
    )
    assert len(screened.losses) == 3 and sheet.width > 0
    with pytest.raises(StoreError, match=r"step-00000009 of .* does not come whole"):
        brought(disks("third") / "step-00000009", place)


@pytest.mark.parametrize("fault", [None, KeyboardInterrupt(), RayActorError()])
def test_clips_that_another_disk_has_measured_come_home_and_nothing_stays(
    shared, disks, dataset, monkeypatch, tmp_path, fault
):
    """As on a cluster, without one: an actor on another node is called here."""

    def score_elsewhere(make, items, **_):
        home = os.environ["HDAM_RESULTS"]
        _, settings, names, folder, place = make.args
        for item in items:
            disks("second")
            there = Path(os.environ["HDAM_RESULTS"]) / folder.relative_to(home)
            scored = make.func(dataset, settings, names, there, place)(item)
            monkeypatch.setenv("HDAM_RESULTS", home)
            assert {"frames", "model", "videos"} <= set(place.names())
            yield scored
            if faults:
                raise faults.pop()

    disks("first")
    faults = [fault] if fault else []
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    settings = EvaluationSettings(protocols=("reconstruction",), metrics=("l1",))
    monkeypatch.setattr(evaluation, "run_on_actors", score_elsewhere)
    monkeypatch.setattr(evaluation, "ray_session", lambda _: nullcontext())
    monkeypatch.setattr(actors, "has_now", lambda: Machine(1, 0))
    if fault:
        told = None if isinstance(fault, KeyboardInterrupt) else r"^not measured: a process died: .*; the same command"
        with pytest.raises((KeyboardInterrupt, InputError), match=told):
            evaluation.evaluate(small_model(), dataset, settings=settings)
        (found,) = (tmp_path / "first" / "evaluations").iterdir()
        assert place_of(found).names() == [] and not (found / "model").exists()
    folder = evaluation.evaluate(small_model(), dataset, settings=settings)
    record = read_evaluation(folder)
    assert record.status == "finished" and record.num_clips == 2
    assert len(list((folder / "videos").rglob("*.mp4"))) == 2
    assert place_of(folder).names() == [], "nothing of it stays in the store"
    assert not (tmp_path / "second" / "evaluations").exists() and not list((tmp_path / "temporary").iterdir())
    assert not (folder / "model").exists()


@pytest.mark.usefixtures("ray_session")
def test_a_new_machine_knows_what_was_trained(dataset, shared, tmp_path, monkeypatch, caplog):
    changes = {"optim.duration": "10 steps", "log.pictures_every": 5, "resources.workers": 1}

    def train_on(disk, name):
        keep_results_in(tmp_path / disk, monkeypatch)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
        return train(small_training(dataset, {**changes, "name": name}))

    (tmp_path / "first").mkdir()
    first = train_on("first", "squares")
    (trained,) = [stage for stage in first.stages if stage.kind == "hdam"]
    place = Place(f"{shared.address}/stages/{Path(trained.folder).name}")
    assert sorted(stored_checkpoints(place)) == ["step-00000005", "step-00000010"]
    assert not any(name.endswith(".safetensors") for name in place.names())
    with caplog.at_level(logging.INFO, logger="hdam"):
        again = train_on("second", "squares")
        other = train_on("second", "others")
    assert again.model_version == first.model_version and "finished already" in caplog.text
    assert [stage.was_known for stage in other.stages] == [True, True]
    assert other.reconstruction == first.reconstruction
    fetched = fetch_newest(tmp_path / "second" / "stages" / Path(trained.folder).name, place)
    assert (fetched / STATE_NAME).read_bytes() == (Path(trained.folder) / fetched.name / STATE_NAME).read_bytes()
    status = examine_experiment(small_training(dataset, {**changes, "name": "others"}))
    assert [stage.state for stage in status.stages] == ["finished", "finished"]
    assert status.stages[0].place == place.address and status.stages[0].best


def test_what_is_of_one_disk_stays_there(shared, disks):
    folder = disks("first")
    with holding(folder) as attempt:
        for name in ("growth.json", "unsent.jsonl", "progress.json", "initial.safetensors"):
            (folder / name).write_text("{}")
        write_record(folder, StageRecord(status="running"))
        share_stage(folder, attempt, lineage="", keep=2)
        assert [name for name in place_of(folder).names() if name != ".hold.json"] == ["growth.json", "stage.json"]


def test_members_of_a_population_leave_their_former_weights_everywhere(shared, disks):
    """Those that other nodes still have on their disks as well."""
    donor, place = disks("donor"), place_of(disks("node"))
    keep(donor, 4, weight=0.1)
    keep(disks("node"), 4, weight=0.2)
    upload(disks("node"), place)
    own = disks("head")
    own.mkdir(parents=True)
    write_record(own, StageRecord(status="interrupted"))
    prepared = SimpleNamespace(trained=SimpleNamespace(kind="hdam", name=own.name))
    take_weights(prepared, own.parent / "no run yet", donor)
    lineage = read_record(own, StageRecord).lineage
    upload(own, place, lineage=lineage)
    upload(disks("node"), place, lineage=lineage)
    for disk in ("head", "node"):
        assert read_checkpoint(fetch_newest(disks(disk), place))["weight"][0] == pytest.approx(0.1)


def test_results_of_before_are_uploaded_when_they_are_used(shared, disks, monkeypatch):
    folder = disks("first")
    with monkeypatch.context() as patch:
        patch.delenv(store.VARIABLE)
        keep(folder, 3)
        (folder / "growth.json").write_text("{}")
        write_record(folder, StageRecord(status="finished"))
    place = place_of(folder)
    assert not shared.is_there()
    adopt_stage(folder, keep=2)
    assert sorted(stored_checkpoints(place)) == ["step-00000003"] and place.read("growth.json") == b"{}"
    assert read_record(disks("second"), StageRecord).status == "finished"
    fetch_stage(disks("second"))
    assert (disks("second") / "growth.json").read_text() == "{}"
