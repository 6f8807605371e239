"""What is here and what is not: lists, the ways to get a detector, and damage."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from hdam.pipelines.errors import InputError
from hdam.platform import doctor
from hdam.platform.cli import app
from hdam.platform.detection import body_install, flow
from hdam.platform.detection.body import BodyDetector
from hdam.platform.detection.body_environment import body_dir, fault_of_environment
from hdam.platform.detection.catalogue import available_detectors, open_detector, open_embedder, open_flow
from hdam.platform.detection.detector import DetectorError
from hdam.platform.detection.face_files import REMEDY, REQUIREMENTS
from hdam.platform.detectors_report import show_detectors

ROOT = Path(__file__).resolve().parent.parent
MODEL = "lib/python3.*/site-packages/mediapipe/modules/pose_landmark/pose_landmark_full.tflite"


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    """No detector is here; the folder of environments, which is not there yet."""
    monkeypatch.setenv("HDAM_DETECTORS", str(tmp_path / "detectors"))
    for name in ("dlib", "face_recognition_models", "cv2"):
        monkeypatch.setitem(sys.modules, name, None)
    return tmp_path / "detectors"


def hdam(*arguments):
    return CliRunner().invoke(app, ["detectors", *arguments], env={"COLUMNS": "400"})


def test_the_folder_is_among_the_results_or_where_it_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HDAM_DETECTORS", raising=False)
    monkeypatch.setenv("HDAM_RESULTS", "results")
    assert body_dir() == tmp_path / "results" / "detectors" / "mediapipe-0.10.21"
    monkeypatch.setenv("HDAM_DETECTORS", "elsewhere")
    assert body_dir() == tmp_path / "elsewhere" / "mediapipe-0.10.21"


def test_the_extras_ask_for_what_the_commands_install():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert tuple(project["optional-dependencies"]["faces"]) == REQUIREMENTS
    assert all(f"'{requirement}'" in REMEDY for requirement in REQUIREMENTS)
    assert project["optional-dependencies"]["flow"] == [flow.REQUIREMENT]


def test_absent_detectors_are_told_with_the_command_that_gets_them(nothing_here):
    found = available_detectors()
    assert list(found) == ["face", "body", "identity", "flow"]
    assert all(detector.reason and not detector.version for detector in found.values())
    openings = {"face": lambda: open_detector("face").__enter__(), "identity": open_embedder, "flow": open_flow}
    openings["body"] = lambda: open_detector("body").__enter__()
    remedies = {"face": REMEDY, "identity": REMEDY, "body": "hdam detectors get body", "flow": flow.REMEDY}
    for name, command in remedies.items():
        with pytest.raises(InputError) as told:
            openings[name]()
        assert str(told.value).startswith(f"the {name} detector is not here (")
        assert str(told.value).endswith(f"get it: {command}")
    assert not nothing_here.exists(), "looking makes no folder"


def test_the_commands_where_nothing_is_here(nothing_here):
    listed = hdam("list")
    assert listed.exit_code == 0 and f"Get face and identity: {REMEDY}" in listed.stdout
    assert "Get body: hdam detectors get body" in listed.stdout and f"Get flow: {flow.REMEDY}" in listed.stdout
    checked = hdam("check")
    assert checked.exit_code == 0 and "No detector is here" in checked.stdout
    assert (named := hdam("check", "body")).exit_code == 1 and "is not there; get it" in named.stdout
    for name, command in (("face", REMEDY), ("flow", flow.REMEDY)):
        refused = hdam("get", name)
        assert refused.exit_code == 2 and refused.stderr.count("\n") == 1 and command in refused.stderr


def test_the_doctor_has_a_line_for_each(nothing_here):
    findings = doctor.check_detectors()
    assert [finding.subject for finding in findings] == [
        f"{name} detector" for name in ("face", "body", "identity", "flow")
    ]
    assert not any(finding.is_good or finding.is_essential for finding in findings)
    assert "AKD and MKR of bodies" in findings[1].consequence
    assert findings[1].consequence.endswith("hdam detectors get body")


def test_the_list_fits_a_narrow_terminal(nothing_here, capsys):
    show_detectors(list(available_detectors().values()), Console(width=80))
    table = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("Get ")]
    assert len(table) > 3 and max(map(len, table)) <= 80


def test_packages_that_cannot_be_had_are_told_and_nothing_stays(nothing_here, monkeypatch):
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", ""), ("PIP_CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(name, value)
    refused = hdam("get", "body")
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert "installing mediapipe failed: ERROR: " in refused.stderr and "mediapipe==0.10.21" in refused.stderr
    assert [path.name for path in nothing_here.iterdir()] == [".lock"]


def test_a_python_without_wheels_is_told_at_once(nothing_here, monkeypatch):
    monkeypatch.setattr(body_install, "NEWEST_PYTHON", (3, 10))
    refused = hdam("get", "body")
    assert refused.exit_code == 2 and "runs on Python up to 3.10, this is 3." in refused.stderr
    assert not nothing_here.exists()


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HDAM_DETECTORS", str(tmp_path / "file" / "detectors"))
    refused = hdam("get", "body")
    assert refused.exit_code == 2 and "cannot be written" in refused.stderr and "HDAM_DETECTORS" in refused.stderr


def test_what_is_here_is_listed_left_alone_and_sound(faces, optical_flow, body_folder, monkeypatch):
    monkeypatch.setenv("HDAM_DETECTORS", str(body_folder.parent))
    rows = [line.split() for line in hdam("list").stdout.splitlines()]
    assert [row[-1] for row in rows[1:]] == ["yes"] * 4
    assert "already, and whole" in hdam("get", "body").stdout
    for name in ("face", "flow"):
        assert f"{name}: is here already" in hdam("get", name).stdout
    checked = hdam("check")
    assert checked.exit_code == 0, checked.output
    assert [line.split()[:2] for line in checked.stdout.splitlines()[1:]] == [
        ["ok", name] for name in ("face", "body", "identity", "flow")
    ]
    assert all(finding.is_good for finding in doctor.check_detectors())


def test_a_damaged_environment_is_told(body_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HDAM_DETECTORS", str(tmp_path))
    copy = tmp_path / body_folder.name
    shutil.copytree(body_folder, copy, symlinks=True, copy_function=link_or_copy)
    assert fault_of_environment(copy) == ""
    model = next(copy.glob(MODEL))
    content = model.read_bytes()
    model.unlink()  # never written in place: it is the same file as the sound one
    model.write_bytes(content[:100_000])
    found = hdam("check", "body")
    assert found.exit_code == 1 and f"{model} is not as it was installed; get it again: hdam" in found.stdout
    with (
        BodyDetector(copy) as detector,
        pytest.raises(DetectorError, match=r"the pose process (was killed|ended with)"),
    ):
        detector.detect(body_install.BLACK)
    model.unlink()
    assert f"{model} is missing" in hdam("check", "body").stdout
    (copy / "bin" / "python").unlink()
    assert "bin/python is not there; get it: hdam detectors get body" in hdam("check", "body").stdout
    (copy / "bin" / "python").symlink_to(tmp_path / "gone")
    assert "leads to a Python that is gone" in available_detectors()["body"].reason


def link_or_copy(source, target):
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_the_pose_program_needs_nothing_of_hdam(body_folder):
    program = ROOT / "platform" / "detection" / "pose_process.py"
    python = body_folder / "bin" / "python"
    done = subprocess.run([python, "-I", program], input=b"", capture_output=True, timeout=120, check=True)
    assert done.stdout == b'{"version": "0.10.21", "joints": 33}\n'
