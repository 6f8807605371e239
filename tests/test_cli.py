"""The command line: what it prints, and that a mistake is one line, status 2, and nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from media_files import moving_square, write_video
from PIL import Image
from small_models import SIZE, small_model
from typer.testing import CliRunner

from hdam.experiments.loading import find_shipped, load_experiment
from hdam.pipelines.media import open_media
from hdam.platform.cli import app
from hdam.platform.model_folder import write_model

COMMAND = [sys.executable, "-m", "hdam.platform.cli"]


@pytest.fixture
def hdam(tmp_path, monkeypatch):
    """Runs a command in an empty folder and returns its result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HDAM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def videos(tmp_path):
    """A folder of four good videos and one that is none."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for seed in range(4):
        write_video(folder / f"square{seed}.mp4", moving_square(6, seed=seed))
    (folder / "letter.mp4").write_text("Dear Sir or Madam")
    return folder


def told(result):
    """The one line of a mistake."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("hdam: ")
    return line


def test_help_names_every_command(hdam):
    found = hdam("--help")
    assert found.exit_code == 0
    for command in (
        "doctor",
        "puppets",
        "prepare",
        "train",
        "models",
        "import-weights",
        "export-weights",
        "animate",
        "quickstart",
    ):
        assert f" {command} " in found.stdout
    assert hdam("--version").stdout == f"hdam {metadata.version('hdam')}\n"


def test_puppets_become_a_dataset(hdam):
    made = hdam("puppets", "puppets", "--clips", 4, "--frames", 3, "--size", 32, "--seed", 1)
    assert made.exit_code == 0, made.output
    assert "contact_sheet.png" in made.stdout
    prepared = hdam("prepare", "puppets", "data", "--size", 32, "--lossless", "--name", "My Puppets")
    assert prepared.exit_code == 0, prepared.output
    assert '"name": "my-puppets"' in Path("data/manifest.json").read_text()
    assert Path("data/contact_sheet.png").is_file()


def test_prepare_reports_what_it_made_and_what_it_left_out(hdam, videos):
    found = hdam("prepare", "videos", "data", "--size", 32, "--test-share", 0.25, "--max-frames", 5)
    assert found.exit_code == 0, found.output
    rows = [line.split()[:4] for line in found.stdout.splitlines()]
    assert ["train", "3", "3", "15"] in rows
    assert ["test", "1", "1", "5"] in rows
    assert ["all", "4", "4", "20"] in rows
    assert "letter.mp4: no video" in found.stdout.split("left out: ")[1]
    again = hdam("prepare", "videos", "data", "--size", 32)
    assert "data" in told(again)
    assert hdam("prepare", "videos", "data", "--size", 32, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["prepare", "absent", "data", "--size", "32"], "absent: no such file or folder"),
        (["prepare", "empty", "data", "--size", "32"], "no video found"),
        (["prepare", "videos", "data", "--size", "0"], "size is 0"),
        (["prepare", "videos", "data", "--size", "32", "--table", "absent.csv"], "absent.csv: no such file"),
        (["puppets", "videos"], "not an empty folder"),
        (["puppets", "new", "--clips", "1"], "at least 2"),
        (["train", "absent.yaml"], "absent.yaml: no such experiment file"),
        (["train", "typo.yaml"], "typo.yaml: unknown key 'optim.lrr'; the nearest known key is 'optim.lr'"),
        (["train", "good.yaml", "--set", "optim.rl=1"], "--set optim.rl: unknown key 'optim.rl'"),
        (["train", "good.yaml", "--set", "optim.lr"], "expected a dotted name and a value"),
        (["train", "good.yaml", "--set", "optim.batch_size=3"], "does not divide over 2 workers"),
        (["train", "good.yaml", "--fresh", "--from", "dam"], "--fresh does all stages anew, --from dam only some"),
        (["train", "good.yaml", "--set", "dam.duration=0 steps"], "dam.duration is 0 steps; expected at least 1 step"),
        (["train", "good.yaml", "--set", "screen.epsilon=-1"], "screen.epsilon: Input should be greater than or equal"),
        (["train", "good.yaml", "--set", "procedure=papers"], "procedure: Input should be 'paper' or 'scratch'"),
        (["status", "absent.yaml"], "absent.yaml: no such experiment file"),
        (["status", "good.yaml"], "no dataset given; set data.path"),
        (["status", "good.yaml", "--set", "data.path=absent"], "absent"),
        (["animate", "--model", "absent", "--source", "a", "--driving", "b", "--out", "c.mp4"], "no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_nothing_is_written(hdam, videos, tmp_path, arguments, problem):
    (tmp_path / "empty").mkdir()
    (tmp_path / "good.yaml").write_text("name: good\nquestion: Why?\n")
    (tmp_path / "typo.yaml").write_text("name: typo\nquestion: Why?\noptim: {lrr: 1}\n")
    before = sorted(tmp_path.rglob("*"))
    assert problem in told(hdam(*arguments))
    assert sorted(tmp_path.rglob("*")) == before


def test_animate_takes_a_model_and_writes_a_video(hdam, videos, tmp_path):
    loaded = small_model()
    write_model(tmp_path / "model", model=loaded.model, experiment=loaded.experiment)
    Image.fromarray(moving_square(1)[0]).save("still.png")
    given = ["animate", "--model", "model", "--source", "still.png", "--driving", "videos/square0.mp4"]
    found = hdam(*given, "--out", "out/result.mp4", "--mode", "absolute", "--structure")
    assert found.exit_code == 0, found.output
    assert "6 frames at 25 fps" in found.stdout
    for name in ("result.mp4", "result_structure.mp4", "result_structure.png"):
        assert f"out/{name}\n" in found.stdout
        assert Path("out", name).is_file()
    assert open_media(Path("out/result.mp4")).size == (SIZE, SIZE)
    assert "no image" in told(hdam(*given, "--source", "videos/letter.mp4", "--out", "other.mp4"))
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"no weights")
    assert "not readable as weights" in told(hdam(*given, "--out", "other.mp4"))
    assert not Path("other.mp4").exists()


def test_models_are_listed_shown_and_named(hdam, tmp_path):
    from hdam.platform.registry import register
    from hdam.platform.tracking import connect

    assert "No model is registered yet" in hdam("models", "list").stdout
    loaded, client = small_model(), connect()
    for ratio in ("0.81", "0.62"):
        experiment_id = client.create_experiment(f"small {ratio}", artifact_location=(tmp_path / "kept").as_uri())
        run_id = client.create_run(experiment_id).info.run_id
        tags = {"variant": "hdam", "l1": "0.0412", "ratio": ratio, "steps": "900", "dataset": "squares"}
        register(model=loaded.model, experiment=loaded.experiment, name="hdam-squares", run_id=run_id, tags=tags)
    assert hdam("models", "alias", "hdam-squares", 1, "champion").stdout == (
        "models:/hdam-squares@champion is version 1\n"
    )
    (_, row, below) = hdam("models", "list").stdout.splitlines()
    assert row.split()[:6] == ["hdam-squares", "2", "candidate:", "2", "hdam", "0.0412"]
    assert below.split() == ["champion:", "1"]
    shown = [line.split() for line in hdam("models", "show", "hdam-squares").stdout.splitlines()]
    assert shown[2][:5] == ["2", "candidate", "hdam", "0.0412", "0.62"]
    assert shown[3][:5] == ["1", "champion", "hdam", "0.0412", "0.81"]
    assert shown[2][-3:] == ["900", "squares", run_id[:8]]
    assert "there are hdam-squares" in told(hdam("models", "show", "nobody"))
    assert "no version '7'" in told(hdam("models", "alias", "hdam-squares", 7, "champion"))
    given = ["--source", "a.png", "--driving", "b.mp4", "--out", "c.mp4"]
    assert "no alias 'best'" in told(hdam("animate", "--model", "models:/hdam-squares@best", *given))


def test_a_shipped_experiment_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = find_shipped(Path("quickstart.yaml"))
    assert shipped.is_file()
    assert shipped.parent.name == "experiments"
    assert load_experiment(find_shipped(Path("taichi256_dam.yaml"))).name == "taichi256_dam", "with its bases"
    Path("quickstart.yaml").touch()
    assert find_shipped(Path("quickstart.yaml")) == Path("quickstart.yaml"), "the user's own file comes first"
    assert find_shipped(Path("elsewhere/quickstart.yaml")) == Path("elsewhere/quickstart.yaml")


def test_verbose_adds_the_traceback(tmp_path):
    quiet, verbose = (
        subprocess.run([*COMMAND, *flags, "train", "absent.yaml"], cwd=tmp_path, capture_output=True, text=True)
        for flags in ([], ["-v"])
    )
    assert (quiet.returncode, verbose.returncode) == (2, 2)
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in verbose.stderr
    assert verbose.stderr.endswith(quiet.stderr)


def test_a_fault_of_the_program_keeps_its_traceback(hdam, monkeypatch):
    from hdam.pipelines import puppets

    monkeypatch.delattr(puppets, "write_puppets")  # stands for any fault
    found = hdam("puppets", "new", "--clips", 2, "--frames", 2)
    assert found.exit_code == 1
    assert isinstance(found.exception, ImportError)


def test_ctrl_c_ends_with_a_word_and_leaves_nothing(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [*COMMAND, "puppets", "new", "--clips", "100000", "--size", "32", "--frames", "2"]
    running = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".new*/clips/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, told_last = running.communicate(timeout=60)
    assert running.returncode == 130
    assert told_last.endswith("hdam: interrupted\n")
    assert not list(tmp_path.iterdir())
