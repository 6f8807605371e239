"""A comparison from folders of evaluations with known numbers, real clips and tiny models, to the page and MLflow."""

import base64
import csv
import io
import json
import re

import av
import numpy as np
import pytest
from made_evaluations import make_evaluation
from page_reader import PageReader
from PIL import Image
from rich.console import Console
from small_models import small_model
from small_training import SIZE, make_dataset

from hdam.models.animation import Animator
from hdam.pipelines.errors import InputError
from hdam.pipelines.shards import iter_clips
from hdam.platform.compare import content, video
from hdam.platform.compare.clips import check_metric, choose_metric
from hdam.platform.compare.comparison import compare
from hdam.platform.compare.entrants import check_models, read_entrants
from hdam.platform.compare.logged import log_comparison
from hdam.platform.compare.table import show_table
from hdam.platform.evaluation.metrics import METRICS
from hdam.platform.images import frames_to_images, images_to_frames
from hdam.platform.tracking import connect

NUM_FRAMES = 6
FAMILIES = (
    {},
    {"model.anchors.num_intermediate": 0},
    {"model.anchors.num_intermediate": 0, "model.background.kind": "zero"},
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), num_clips=9, num_test=8, num_frames=NUM_FRAMES)


@pytest.fixture(scope="module")
def clip_ids(dataset):
    return [clip.clip_id for clip in iter_clips(dataset, "test")]


def paint(loaded, protocol, source, driving):
    animator = Animator(loaded.model, frames_to_images(source[None], "cpu"), mode="absolute")
    return np.concatenate([images_to_frames(animator.frame(frames_to_images(f[None], "cpu")).image) for f in driving])


def numbers_of(clip_ids, factor):
    """Both protocols; clip i is i times as hard as the first one, and the last frame twice as hard as the others."""
    course = np.array([1.0] * (NUM_FRAMES - 1) + [2.0])
    l1 = {clip_id: list(factor * (1 + i) * 0.01 * course) for i, clip_id in enumerate(clip_ids)}
    return {
        "reconstruction": {
            "l1": l1,
            "repeat_l1": {clip_id: [0.2] * NUM_FRAMES for clip_id in clip_ids},
            "psnr": {clip_id: [30 / factor] * NUM_FRAMES for clip_id in clip_ids},
            "akd_face": {clip_id: [None] + [factor * 2.0] * (NUM_FRAMES - 1) for clip_id in clip_ids},
        },
        "cross": {"warp_error": {clip_id: [factor * 1e-3] * NUM_FRAMES for clip_id in clip_ids}},
    }


@pytest.fixture(scope="module")
def folders(clip_ids, tmp_path_factory):
    parent = tmp_path_factory.mktemp("evaluations")
    sources = {"cross": dict(zip(clip_ids, [*clip_ids[1:], clip_ids[0]], strict=True))}
    missing = [("akd_body", "mediapipe is not here", "hdam detectors get body")]
    return [
        make_evaluation(parent / name, numbers_of(clip_ids, factor), name=name, sources=sources, missing=missing)
        for name, factor in (("hdam-squares", 1.0), ("dam <b>&co", 1.2), ("fomm-squares", 1.5))
    ]


@pytest.fixture(scope="module")
def models():
    return [small_model(changes, seed=seed) for seed, changes in enumerate(FAMILIES)]


@pytest.fixture(scope="module")
def report(folders, models, dataset, tmp_path_factory):
    return compare(folders, models, dataset, paint=paint, by=None, parent=tmp_path_factory.mktemp("comparisons"))


@pytest.fixture(scope="module")
def page(report):
    return PageReader(report.page.read_text(encoding="utf-8"))


def test_the_folder_is_whole_and_nothing_half_written_stays(report):
    names = {path.name for path in report.folder.iterdir()}
    assert names == {"index.html", "table.md", "table.csv", "comparison.json", "videos"}
    assert [path.name for path in report.folder.parent.iterdir()] == [report.folder.name]
    assert report.folder.name.startswith("squares-")


def test_the_best_is_bold_and_so_it_is_said(report):
    lines = (report.folder / "table.md").read_text(encoding="utf-8").splitlines()
    (l1,) = [line for line in lines if line.startswith("| L1 ↓")]
    assert re.fullmatch(
        r"\| L1 ↓ \| \*\*0\.0525\*\* \[0\.0\d+, 0\.0\d+\] \| 0\.0630 \[.*\] \| 0\.0787 \[.*\] \| 8 \| 48 \|", l1
    )
    (still,) = [line for line in lines if "repeating" in line]
    assert "**" not in still
    (psnr,) = [line for line in lines if line.startswith("| PSNR")]
    assert psnr.startswith("| PSNR, dB ↑ | **30.00** [30.00, 30.00] | 25.00")
    text = "\n".join(lines)
    assert "AKD, face: measured by dlib 20.0.1, 68 landmarks." in text
    assert "AKD, face: without the frames that have none (8 of hdam-squares 1, 8 of dam <b>&co 1" in text
    assert "Missing: AKD, body (mediapipe is not here; hdam detectors get body)." in text
    assert report.verdict == "Clearly better than all others: hdam-squares 1 by 4 of 4 metrics."


def test_numbers_for_programs_are_not_rounded(report, folders):
    rows = list(csv.DictReader(io.StringIO((report.folder / "table.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 5 * 3
    first = rows[0]
    assert (first["protocol"], first["metric"], first["is_best"]) == ("reconstruction", "l1", "True")
    assert float(first["mean"]) == pytest.approx(0.01 * 4.5 * 7 / 6, rel=1e-12)
    assert float(first["low"]) < float(first["mean"]) < float(first["high"])
    content = json.loads((report.folder / "comparison.json").read_text(encoding="utf-8"))
    assert len(content["differences"]) == 5 * 3
    assert content["differences"][0]["value"] == pytest.approx(-0.2 * 0.0525)
    assert [model["label"] for model in content["models"]] == ["hdam-squares 1", "dam <b>&co 1", "fomm-squares 1"]
    assert content["settings"]["by"] == "l1"


def test_every_film_is_a_video_for_browsers_with_all_models(report, clip_ids):
    content = json.loads((report.folder / "comparison.json").read_text(encoding="utf-8"))
    best, worst = clip_ids[:2], clip_ids[:-3:-1]
    shown = [clip["clip_id"] for clip in content["clips"] if clip["protocol"] == "reconstruction"]
    assert shown == [*best, *worst, clip_ids[-3]]
    assert [clip["source_clip"] for clip in content["clips"][:2]] == clip_ids[:2]
    assert len(content["clips"]) == 10, "the same clips across identities"
    for clip in content["clips"]:
        with av.open(str(report.folder / clip["video"])) as opened:
            stream = opened.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert (stream.width % 2, stream.height % 2) == (0, 0)
            assert stream.width >= 5 * video.LEAST_CELL
            frames = [frame.to_ndarray(format="rgb24") for frame in opened.decode(stream)]
        assert len(frames) == NUM_FRAMES
        strip = Image.open(report.folder / clip["video"].replace(".mp4", ".jpg"))
        assert strip.height > 3 * video.LEAST_CELL


def test_source_driving_and_results_stand_where_their_labels_are():
    board = video.Board(("source", "driving", "a", "b", "c", "d"), size=(SIZE, SIZE))
    frames = [np.full((SIZE, SIZE, 3), 40 * number, np.uint8) for number in range(6)]
    picture = board.show(frames)
    assert picture.shape[:2] == board.size
    assert picture.shape[1] < 3.2 * video.LEAST_CELL, "six cells stand in two rows"
    cells = [picture[200, 90], picture[200, 290], picture[200, 480]]
    assert [int(cell[0]) for cell in cells] == [0, 40, 80]


def test_the_page_opens_from_disk_and_fetches_nothing(report, page):
    page.check_is_whole()
    text = report.page.read_text(encoding="utf-8")
    videos = re.findall(r'src="data:video/mp4;base64,([^"]+)"', text)
    files = sorted((report.folder / "videos").rglob("*.mp4"))
    assert sorted(map(base64.b64decode, videos)) == sorted(path.read_bytes() for path in files)
    assert len(files) == 10


def test_names_on_the_page_are_text_and_no_markup(page):
    assert any("dam <b>&co 1" in word for word in page.words)
    assert "b" not in page.open


def test_the_page_tells_all_there_is_to_know(page):
    words = " ".join(page.words)
    for told in (
        "How to read this",
        "Reconstruction: frame 0 of each clip follows its own clip",
        "Across identities",
        "models:/hdam-squares/1",
        "0123456789abcdef",
        "percentile bootstrap",
        "dlib 20.0.1, 68 landmarks",
        "mediapipe is not here",
        "L1 over time",
        "Warp error ↓, across identities",
        "hdam-squares 1 by 4 of 4",
        "f1" * 32,
    ):
        assert told in words, told


def test_videos_that_are_too_large_stay_beside_the_page(report, folders, models, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(content, "MOST_EMBEDDED", 1000)
    found = compare(folders[:2], models[:2], dataset, paint=paint, by="psnr", parent=tmp_path)
    text = found.page.read_text(encoding="utf-8")
    assert "data:video" not in text and "data:image/jpeg" in text
    assert f"they lie beside it, in {found.folder.name}/videos." in text
    assert "Video: videos/reconstruction/" in text
    assert found.folder.name != report.folder.name, "other models, other name"


def test_the_same_comparison_again_replaces_the_first(report, folders, models, dataset, tmp_path):
    earlier = tmp_path / report.folder.name
    earlier.mkdir()
    (earlier / "left_over").touch()
    again = compare(folders, models, dataset, paint=paint, by="l1", parent=tmp_path)
    assert again.folder == earlier
    assert not (earlier / "left_over").exists()
    assert [path.name for path in tmp_path.iterdir()] == [earlier.name]


def test_a_model_that_cannot_paint_leaves_nothing(folders, models, dataset, tmp_path):
    def break_down(*_):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        compare(folders, models, dataset, paint=break_down, by=None, parent=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_comparison_is_a_run_of_mlflow(report, results):
    run_id = log_comparison(report)
    client = connect()
    run = client.get_run(run_id)
    assert client.get_experiment(run.info.experiment_id).name == "comparisons"
    assert (run.info.status, run.data.tags["verdict"]) == ("FINISHED", report.verdict)
    assert run.data.params["model.1"] == "models:/hdam-squares/1"
    assert run.data.metrics["reconstruction/l1/1-hdam-squares 1"] == pytest.approx(0.0525)
    assert "reconstruction/l1/2-dam -b--co 1/low" in run.data.metrics
    names = {each.path for each in client.list_artifacts(run_id)}
    assert names == {"index.html", "table.md", "table.csv", "comparison.json", "videos"}


def test_mlflow_being_away_is_a_warning(report, results, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert log_comparison(report) == ""
    assert "the comparison is not in MLflow" in caplog.text


def test_the_screen_shows_the_same_table(report):
    console = Console(file=io.StringIO(), width=140, force_terminal=True)
    show_table(report.entrants, report.scores, console)
    shown = console.file.getvalue()
    assert "0.0525" in shown and "Clips" in shown
    assert re.search(r"\x1b\[1m *0\.0525", shown), "the best is bold"


def test_models_are_checked_before_anything_is_measured(dataset, models):
    check_models(models, dataset)
    with pytest.raises(InputError, match="two models or more"):
        check_models(models[:1], dataset)
    again = small_model(FAMILIES[0], seed=0)._replace(uri="elsewhere")
    with pytest.raises(InputError, match="small and elsewhere are the same model"):
        check_models([*models, again], dataset)
    large = small_model({"data.size": 2 * SIZE}, seed=3)
    with pytest.raises(InputError, match=f"{SIZE} pixels wide, the model works on {2 * SIZE}"):
        check_models([models[0], large], dataset)


def test_an_unknown_metric_is_told_with_those_there_are(folders):
    with pytest.raises(InputError, match=r"--by lpips: no such metric; there are l1, .*lpips_alex"):
        check_metric("lpips", protocols=["cross"])
    with pytest.raises(InputError, match="--by l1: --protocol cross does not have it"):
        check_metric("l1", protocols=["cross"])
    with pytest.raises(InputError, match="--by l1: it is not among --metrics ssim,psnr"):
        check_metric("l1", protocols=["reconstruction"], metrics=["ssim", "psnr"])
    check_metric("warp_error", protocols=["cross", "reconstruction"])
    entrants = read_entrants(folders)
    with pytest.raises(InputError, match=r"--by aed: it was not measured.*; there are l1, repeat_l1, psnr, akd_face"):
        choose_metric(entrants, "aed")
    assert choose_metric(entrants, None) == ("reconstruction", METRICS["l1"])
    assert choose_metric(entrants, "warp_error") == ("cross", METRICS["warp_error"])
