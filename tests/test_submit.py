"""What `hdam submit` sends, what it refuses, and what it keeps to itself: all that needs no cluster."""

import io
import os
from pathlib import Path

import pytest
import typer
import yaml
from ray.job_submission import JobDetails
from rich.console import Console
from small_sweep import write_sweep
from small_training import small_training

from hdam.experiments.loading import load_experiment, parse_overrides
from hdam.experiments.sweep_loading import load_sweep
from hdam.pipelines.errors import InputError
from hdam.platform.cli import app
from hdam.platform.jobs.order import SENT_DIR, read_order, slug
from hdam.platform.jobs.settings import job_settings
from hdam.platform.jobs.show import entrypoint_of, show_jobs
from hdam.platform.jobs.view import View
from hdam.platform.tracking import results_dir

HERE = View(is_here=True, shares_paths=False)
AWAY = View(is_here=False, shares_paths=False)
SHARED = View(is_here=False, shares_paths=True)
SECRET = "not-for-other-eyes"


def read(*words):
    """The order of a command line."""
    root = typer.main.get_command(app)
    context = root.make_context("hdam", ["submit"], resilient_parsing=True)
    return read_order([str(word) for word in words], root=root, context=context)


def write_sent(order, folder):
    """The job's folder, without hdam."""
    for name, text in order.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / SENT_DIR


@pytest.fixture
def experiment(tmp_path):
    """An experiment outside of the package, with a base beside it, on a dataset in a store."""
    settings = small_training("s3://bucket/squares").settings()
    (tmp_path / "basis.yaml").write_text(yaml.safe_dump(settings))
    path = tmp_path / "mine" / "étude.yaml"
    path.parent.mkdir()
    path.write_text("base: ../basis.yaml\nname: trial\noptim: {lr: 1e-4}\n", encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """Nothing is set that a job would be told of."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "HDAM_", "MLFLOW_", "RAY_")):
            monkeypatch.delenv(name)


def test_an_experiment_is_sent_with_its_base_as_one_file(experiment, tmp_path):
    order = read("train", experiment, "--set", "optim.batch_size=4")
    words = order.words_for(AWAY)
    assert words == ["train", "submitted/étude.yaml", "--set", "optim.batch_size=4"]
    sent = load_experiment(write_sent(order, tmp_path / "job") / "étude.yaml", parse_overrides(words[3:]))
    assert sent == load_experiment(experiment, {"optim.batch_size": 4})
    assert slug(order.label) == "trial"


def test_a_sweep_is_sent_with_its_experiments(tmp_path):
    search = {"optim.lr": {"grid": [0.001, 0.002]}}
    path = write_sweep(tmp_path, "s3://bucket/squares", search=search, algorithm="grid")
    order = read("tune", path, "--trials", "2")
    assert order.words_for(AWAY) == ["tune", "submitted/sweep.yaml", "--trials", "2"]
    sent, before = load_sweep(write_sent(order, tmp_path / "job") / "sweep.yaml"), load_sweep(path)
    assert sent.experiments == before.experiments
    assert sent.sweep.search == before.sweep.search


def test_a_shipped_experiment_is_found_by_its_name():
    words = read("train", "quickstart.yaml", "--set", "data.path=s3://bucket/puppets", "--fresh").words_for(AWAY)
    assert words == ["train", "submitted/quickstart.yaml", "--set", "data.path=s3://bucket/puppets", "--fresh"]


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "models:/a@b", "--data", "s3://b/d", "--metrics", "l1,ssim", "--max-clips", "3", "--fresh"],
        ["compare", "models:/a/1", "models:/b/2", "--data", "s3://b/d", "--by", "l1"],
        ["doctor", "--cluster"],
        ["doctor", "--cluster", "--data", "s3://b/d"],
        ["status", "quickstart.yaml", "--set", "data.path=s3://b/d"],
        [
            "prepare",
            "s3://b/videos",
            "s3://b/d",
            "--size",
            "64",
            "--fit",
            "pad",
            "--lossless",
            "--table",
            "s3://b/t.csv",
        ],
    ],
)
def test_options_arrive_as_they_were_given(words, tmp_path, monkeypatch):
    given = read(*words)
    write_sent(given, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert read(*given.words_for(AWAY)).params == given.params


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "EXPERIMENT", "--set", "data.path=faces"], "data.path faces is a path of this machine, .* s3://"),
        (["train", "EXPERIMENT", "--set", "data.path=file:///faces"], "data.path file:///faces is a path of this"),
        (["train", "EXPERIMENT", "--set", "losses.perceptual.weights=vgg.pth"], "weights vgg.pth is a path of this"),
        (["evaluate", "results/model", "--data", "s3://b/d"], "the model results/model is a path of this machine"),
        (["evaluate", "models:/a@b", "--data", "faces"], "the dataset faces is a path of this machine"),
        (["compare", "models:/a/1", "mine", "--data", "s3://b/d"], "the model mine is a path of this machine"),
        (["prepare", "videos", "s3://b/d", "--size", "64"], "the source videos is a path of this machine"),
        (["train", "quickstart.yaml"], "no dataset given; set data.path"),
        (["train", "EXPERIMENT", "--set", "optim.l=1"], "unknown key 'optim.l'; the nearest known key is 'optim.lr'"),
        (["train", "absent.yaml"], "absent.yaml: no such experiment file"),
        (
            ["animate", "--model", "x"],
            "hdam animate is not done on a cluster; hdam submit takes compare, .*train, tune",
        ),
        (["submit", "train", "x"], "hdam submit is not done on a cluster"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(experiment, words, message):
    with pytest.raises(InputError, match=message):
        read(*(str(experiment) if word == "EXPERIMENT" else word for word in words)).words_for(AWAY)


def test_on_this_machine_paths_are_made_whole(experiment, dataset, monkeypatch):
    folder = Path(dataset)
    monkeypatch.chdir(folder.parent)
    words = read("train", experiment, "--set", f"data.path={folder.name}").words_for(HERE)
    assert words[-2:] == ["--set", f"data.path={folder}"]
    assert read("evaluate", "mine", "--data", folder.name).words_for(HERE)[1:] == [
        str(folder.parent / "mine"),
        "--data",
        str(folder),
    ]
    with pytest.raises(InputError, match="absent: no such dataset"):
        read("train", experiment, "--set", "data.path=absent").words_for(HERE)


def test_shared_paths_are_taken_as_they_are_if_they_are_whole(experiment):
    words = read("train", experiment, "--set", "data.path=/mnt/faces").words_for(SHARED)
    assert words[-1] == "data.path=/mnt/faces"
    with pytest.raises(InputError, match=r"data\.path faces: with --shared-paths, expected a whole path"):
        read("train", experiment, "--set", "data.path=faces").words_for(SHARED)


def test_settings_are_sent_and_secrets_are_not(monkeypatch):
    told = {
        "HDAM_RESULTS": "/mnt/results",
        "HDAM_STORE": "s3://bucket/runs",
        "MLFLOW_TRACKING_URI": "http://tracking:5000",
        "AWS_ENDPOINT_URL": "http://store:9000",
        "AWS_REGION": "eu-central-1",
    }
    secrets = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD")
    for name, value in {**told, **dict.fromkeys(secrets, SECRET), "RAY_AUTH_TOKEN": SECRET}.items():
        monkeypatch.setenv(name, value)
    settings = job_settings(AWAY)
    assert told.items() <= settings.env_vars.items()
    assert SECRET not in settings.env_vars.values()
    assert settings.kept == secrets


def test_a_variable_is_passed_on_request_with_a_warning(monkeypatch, caplog):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    settings = job_settings(AWAY, passed=["AWS_SECRET_ACCESS_KEY"])
    assert settings.env_vars["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert settings.kept == ()
    assert "AWS_SECRET_ACCESS_KEY is shown to everyone" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@tracking:5000", "holds a user's name or password"),
        ("MLFLOW_TRACKING_URI", "sqlite:///runs.db", "runs.db is a path of this machine"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000", "is a server of this machine"),
        ("AWS_ENDPOINT_URL", "http://localhost:9000", "is a server of this machine"),
        ("HDAM_STORE", "runs", "HDAM_STORE runs is a path of this machine"),
        ("HDAM_RESULTS", "results", "HDAM_RESULTS results: .*expected a whole path"),
    ],
)
def test_settings_that_lead_nowhere_are_refused(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message) as caught:
        job_settings(AWAY)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("RAY_AUTH_TOKEN", "variables of Ray are not sent"), ("ABSENT", "ABSENT: not set here")]
)
def test_variables_that_cannot_be_passed_are_refused(monkeypatch, name, message):
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    with pytest.raises(InputError, match=message) as caught:
        job_settings(AWAY, passed=[name])
    assert SECRET not in str(caught.value)


def test_on_this_machine_results_stay_where_they_are(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    env_vars = job_settings(HERE).env_vars
    assert env_vars["HDAM_RESULTS"] == str(tmp_path / "results")
    assert env_vars["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path / 'runs.db'}"


def test_a_job_without_a_place_for_results_says_so(monkeypatch):
    monkeypatch.setenv("HDAM_JOB", "train-faces-abc")
    with pytest.raises(InputError, match="HDAM_RESULTS is not set, and a job's own folder goes when it ends"):
        results_dir()


def test_names_of_jobs_are_listed_whole_on_narrow_screens():
    name, out = "compare-hdam-puppets-1-hdam-puppets-2-63efb1", io.StringIO()
    entrypoint = entrypoint_of(["compare", "models:/hdam-puppets/1", "models:/hdam-puppets/2"])
    job = JobDetails(
        submission_id=name, type="SUBMISSION", status="SUCCEEDED", entrypoint=entrypoint, start_time=10**12
    )
    show_jobs([job], Console(file=out, width=60))
    (line,) = out.getvalue().splitlines()[1:]
    assert line.startswith(f"{name}  SUCCEEDED  ") and " hdam compare models:/" in line and line.rstrip()[-1] == "…"
