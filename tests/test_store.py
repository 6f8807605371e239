"""The shared store: what one disk has uploaded, another one finds; whole, in time, and from one writer at a time."""

import logging
import os
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from local_store import keep_results_in
from media_files import assert_one_line
from processes import wait_until
from small_models import small_model
from small_training import small_training

from hdam.experiments.experiment import ScreenConfig
from hdam.models.objective import build_objective
from hdam.pipelines.errors import InputError
from hdam.platform import holds, shared_checkpoints, stage_training, store
from hdam.platform.checkpoints import STATE_NAME, newest_checkpoint, read_checkpoint, step_of, write_checkpoint
from hdam.platform.evaluation import evaluate as evaluation
from hdam.platform.evaluation.plan import EvaluationSettings
from hdam.platform.evaluation.results import read_evaluation
from hdam.platform.holds import held, is_holder, read_hold
from hdam.platform.messages import Pictured
from hdam.platform.prepared import prepare_training
from hdam.platform.runs import StageRecord, claim_stage, holding, is_held, numbered_folders, read_record, write_record
from hdam.platform.shared_checkpoints import (
    TakenOverError,
    Uploader,
    best_known,
    brought,
    fetch_newest,
    newest_step,
    share_checkpoints,
    stored_checkpoints,
)
from hdam.platform.shared_stages import adopt_stage, fetch_stage
from hdam.platform.stage_evaluation import evaluate_checkpoint
from hdam.platform.stage_screening import screen_checkpoint
from hdam.platform.status import examine_experiment
from hdam.platform.store import Place, StoreError, check_store, offer_file, place_of
from hdam.platform.train import train

NOWHERE = "http://127.0.0.1:9"
STAGE = "stages/hdam-0123456789"


@pytest.fixture
def shared(s3, request, monkeypatch):
    """A store of this test's own."""
    address = f"{s3}/{request.node.name}"
    monkeypatch.setenv(store.VARIABLE, address)
    return Place(address)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(holds, "SECONDS_TO_SETTLE", 0.1)
    monkeypatch.setattr(holds, "SECONDS_PER_BEAT", 0.1)


@pytest.fixture
def disks(tmp_path, monkeypatch):
    """Goes over to the disk of another machine, by name; returns the folder of a stage there."""

    def go_to(name):
        return keep_results_in(tmp_path / name, monkeypatch) / STAGE

    return go_to


def keep(run_dir, step, *, score=None):
    return write_checkpoint(run_dir, {"weight": torch.full((8,), float(step))}, step=step, keep=2, score=score)


def upload(run_dir, place, *, num_kept=2):
    with held(place, "me", is_waiting=True):
        share_checkpoints(run_dir, place, attempt="me", keep=num_kept)


@pytest.fixture(params=["s3", "folder"])
def place(request, s3, tmp_path):
    return Place(f"{s3}/{request.node.name}" if request.param == "s3" else str(tmp_path / "mounted"))


def test_files_come_and_go_whole(place, tmp_path):
    (tmp_path / "here").write_bytes(b"abc")
    assert place.names() == [] and place.read("a") is None and not place.get("a", tmp_path / "there")
    place.put(tmp_path / "here", "folder/a")
    place.write("b", b"de")
    assert place.names() == ["b", "folder"] and place.read("b") == b"de" and place.is_there()
    assert place.get("folder/a", tmp_path / "new" / "there")
    assert (tmp_path / "new" / "there").read_bytes() == b"abc"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["there"], "nothing half-written is left"
    place.remove("folder")
    place.remove("b")
    place.remove("b")
    assert place.names() == []


def test_without_a_store_there_is_no_place(results, monkeypatch):
    monkeypatch.delenv(store.VARIABLE, raising=False)
    assert place_of(results / STAGE) is None
    check_store()
    with holding(results / STAGE):
        assert [path.name for path in (results / STAGE).iterdir()] == [".lock"]
    monkeypatch.setenv(store.VARIABLE, "s3://bucket/folder/")
    assert place_of(results / STAGE) == Place(f"s3://bucket/folder/{STAGE}")
    assert place_of(results.parent / "elsewhere") is None


@pytest.mark.parametrize(
    ("address", "word"), [("s3://no-such-bucket/a", "no such bucket"), ("nonsense://a", "address")]
)
def test_a_store_that_nothing_can_be_written_to_is_told(s3, monkeypatch, address, word):
    monkeypatch.setenv(store.VARIABLE, address)
    with pytest.raises(InputError) as error:
        check_store()
    assert_one_line(error, address, word)


def test_a_store_that_does_not_answer_is_told(shared, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
    with pytest.raises(InputError) as error:
        check_store()
    assert_one_line(error, shared.address, "no store answers there", store.VARIABLE)


def test_another_disk_goes_on_from_the_newest_whole_checkpoint(shared, disks):
    place = place_of(disks("first"))
    for step, score in ((1, 0.1), (2, 0.5), (3, 0.4)):
        first = keep(disks("first"), step, score=score)
    upload(disks("first"), place)
    place.put(first / STATE_NAME, f"step-00000004/{STATE_NAME}")  # a worker was killed before the seal
    assert newest_step(disks("second"), place) == 3
    fetched = fetch_newest(disks("second"), place)
    assert fetched == disks("second") / "step-00000003"
    assert {path.name: path.read_bytes() for path in fetched.iterdir()} == {
        path.name: path.read_bytes() for path in first.iterdir()
    }
    assert read_checkpoint(fetched)["weight"][0] == 3
    assert best_known(disks("second"), place) == "step-00000001", "the best stays, however old"


def test_the_store_keeps_what_a_disk_would_keep(shared, disks):
    place, run_dir = place_of(disks("first")), disks("first")
    for step, score in ((1, 0.1), (2, 0.5), (3, 0.4), (4, 0.3)):
        keep(run_dir, step, score=score)
        upload(run_dir, place)
    place.write(f"step-00000002/{STATE_NAME}", b"left over")
    upload(run_dir, place)
    assert [name for name in place.names() if name != holds.HOLD_NAME] == [f"step-0000000{step}" for step in (1, 3, 4)]
    keep(disks("second"), 5, score=0.9)  # knows nothing of those before
    upload(disks("second"), place)
    assert sorted(stored_checkpoints(place)) == [f"step-0000000{step}" for step in (1, 4, 5)]


def test_a_damaged_checkpoint_of_the_store_is_passed_over_by_all(shared, disks, caplog):
    place = place_of(disks("first"))
    for step in (1, 2):
        keep(disks("first"), step)
    upload(disks("first"), place)
    content = place.read(f"step-00000002/{STATE_NAME}")
    place.write(f"step-00000002/{STATE_NAME}", content[:-1] + bytes([content[-1] ^ 1]))
    assert step_of(fetch_newest(disks("second"), place)) == 1
    assert f"{place.address}/step-00000002 is damaged" in caplog.text
    assert newest_step(disks("third"), place) == 1, "so that stream and workers agree on where they begin"


def test_uploads_wait_for_a_store_that_is_away_and_the_training_does_not(shared, disks, monkeypatch):
    run_dir, told, endpoint = disks("first"), [], os.environ["AWS_ENDPOINT_URL"]
    place, heard = place_of(run_dir), threading.Event()

    def tell(text):
        told.append(text)
        heard.set()

    with held(place, "me", is_waiting=True):
        uploader = Uploader(run_dir, place, attempt="me", keep=2, tell=tell)
        keep(run_dir, 1)
        uploader.upload()
        assert wait_until(lambda: newest_step(run_dir, place) == 1, seconds=60)
        monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
        for step in (2, 3, 4):
            keep(run_dir, step)
            uploader.upload()
        assert heard.wait(60)
        assert step_of(newest_checkpoint(run_dir)) == 4
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        uploader.finish()
    assert sorted(stored_checkpoints(place)) == ["step-00000003", "step-00000004"]
    assert len(told) == 1 and "no store answers there" in told[0] and "uploaded when it answers" in told[0]


def test_a_store_that_stays_away_ends_the_training_with_a_word(shared, disks, monkeypatch):
    run_dir = disks("first")
    place = place_of(run_dir)
    monkeypatch.setattr(shared_checkpoints, "SECONDS_OF_PATIENCE", 0.0)
    with held(place, "me", is_waiting=True):
        uploader = Uploader(run_dir, place, attempt="me", keep=2, tell=lambda _: None)
        keep(run_dir, 1)
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", NOWHERE)
            uploader.upload()
            with pytest.raises(StoreError, match="no store answers there"):
                uploader.finish()
    assert step_of(newest_checkpoint(run_dir)) == 1


def test_an_attempt_that_was_taken_over_uploads_nothing(shared, disks):
    run_dir = disks("first")
    place = place_of(run_dir)
    keep(run_dir, 1)
    with held(place, "newer", is_waiting=True):
        uploader = Uploader(run_dir, place, attempt="older", keep=2, tell=lambda _: None)
        uploader.upload()
        with pytest.raises(TakenOverError, match="another attempt has taken over"):
            uploader.finish()
    assert stored_checkpoints(place) == {}


def test_who_holds_a_place_keeps_other_machines_out(shared, disks):
    place = place_of(disks("first"))
    with held(place, "first", is_waiting=False):
        run_dir = disks("second")
        assert is_held(run_dir)
        with pytest.raises(InputError) as error, holding(run_dir):
            pass
        assert_one_line(error, place.address, "being worked on by another process", "--fresh")
        with pytest.raises(InputError, match="taken over by another process"):
            write_record(run_dir, StageRecord(status="finished"))
        assert is_holder(place, "first")
    assert read_hold(place) is None and not is_held(run_dir)
    with holding(run_dir) as attempt:
        assert is_holder(place, attempt)


def test_a_hold_whose_driver_is_gone_is_taken_over(shared, disks, caplog, monkeypatch):
    monkeypatch.setattr(holds, "SECONDS_TO_STALE", 1.5)
    place = place_of(disks("first"))
    holds._write(place, holds.Hold("dead", holds.disk_name(), "a-host", 7))
    disks("second")
    with caplog.at_level(logging.INFO, logger="hdam"), held(place, "new", is_waiting=False):
        assert is_holder(place, "new") and not is_holder(place, "dead")
    assert "held by a-host" in caplog.text


def test_the_same_disk_takes_over_at_once(shared, disks, monkeypatch):
    place = place_of(disks("first"))
    holds._write(place, holds.Hold("dead", holds.disk_name(), "here", 7))
    monkeypatch.setattr(holds, "is_alive", lambda *_: pytest.fail("nobody else can have it: the lock is ours"))
    with held(place, "new", is_waiting=False):
        assert is_holder(place, "new")


def test_a_driver_that_slept_through_its_hold_gives_way(shared, disks, caplog):
    place = place_of(disks("first"))
    with held(place, "sleeper", is_waiting=False):
        holds._write(place, holds.Hold("new", "another disk", "a-host", 0))
        assert wait_until(lambda: "taken over" in caplog.text, seconds=60)
    assert is_holder(place, "new"), "its end removes no other's hold"


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


def test_pictures_of_a_worker_on_another_disk_come_with_their_message(results, monkeypatch):
    sent = []
    monkeypatch.setattr(
        stage_training, "Outbox", lambda *_, **__: SimpleNamespace(add_picture=lambda path, step: sent.append(path))
    )
    job = SimpleNamespace(
        client=None, run_id="", folder=results, on_message=lambda *_: None, stage=SimpleNamespace(kind="hdam")
    )
    listener = stage_training.Listener(lambda _: None, job)
    path = results / STAGE / "pictures" / "step-00000005.png"
    listener(Pictured(step=5, path=str(path), content=b"picture"))
    assert sent == [path] and path.read_bytes() == b"picture"


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
    with pytest.raises(StoreError, match="step-00000009 is gone"):
        brought(disks("third") / "step-00000009", place)


def test_clips_that_another_disk_has_measured_come_home(shared, disks, dataset, monkeypatch):
    """As on a cluster, without one: an actor on another node is called here."""

    def score_elsewhere(make, items, **_):
        home = os.environ["HDAM_RESULTS"]
        _, settings, names, folder, place = make.args
        for item in items:
            disks("second")
            there = Path(os.environ["HDAM_RESULTS"]) / folder.relative_to(home)
            scored = make.func(dataset, settings, names, there, place)(item)
            monkeypatch.setenv("HDAM_RESULTS", home)
            yield scored

    disks("first")
    settings = EvaluationSettings(protocols=("reconstruction",), metrics=("l1",))
    monkeypatch.setattr(evaluation, "run_on_actors", score_elsewhere)
    monkeypatch.setattr(evaluation, "ray_session", lambda _: nullcontext())
    monkeypatch.setattr(evaluation.ray, "cluster_resources", dict)
    folder = evaluation.evaluate(small_model(), dataset, settings=settings)
    record = read_evaluation(folder)
    assert record.status == "finished" and record.num_clips == 2
    assert len(list((folder / "videos").rglob("*.mp4"))) == 2
    assert place_of(folder).names() == [], "nothing of it stays in the store"


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
