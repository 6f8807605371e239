"""`hdam cluster check`: our own files but for what is left to change, and files with one thing wrong in them."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hdam.experiments.experiment import ResourceConfig
from hdam.pipelines.errors import InputError
from hdam.platform.cli import app
from hdam.platform.clusters import check

FOLDER = Path(check.__file__).parent
FILES = ("cluster.yaml", "raycluster.yaml", "rayjob.yaml")
HEAD = "available_node_types.head.resources.CPU"
POD = "spec.headGroupSpec.template.spec.containers[0]"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where a wheel and a token are, and our files with everything marked <- changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("dist/hdam-0.1.0-py3-none-any.whl", ".ray/auth_token"):
        Path(path).parent.mkdir()
        Path(path).touch()
    for name in FILES:
        Path(name).write_text((FOLDER / name).read_text(encoding="utf-8").replace(check.PLACEHOLDER, "my-"))
    return tmp_path


def problems(settings):
    path = Path("changed.yaml")
    path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings), encoding="utf-8")
    return [str(problem) for problem in check.check_file(path).problems]


def run(path):
    return CliRunner().invoke(app, ["cluster", "check", str(path)])


@pytest.mark.parametrize("name", FILES)
def test_our_files_want_what_is_marked_and_nothing_else(place, name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    marked = [line for line in text.splitlines() if "<-" in line and not line.startswith("#")]
    waiting = problems(text)
    assert len(waiting) == len({line.strip() for line in marked if check.PLACEHOLDER in line}), waiting
    assert all(line.endswith("expected yours, at the line marked <-") for line in waiting)
    done = run(name)
    assert done.exit_code == 0, done.output
    assert "nothing wrong" in done.output
    assert run(FOLDER / name).exit_code == 2


def test_ray_files_five_lines_are_marked():
    lines = (FOLDER / "cluster.yaml").read_text(encoding="utf-8").splitlines()
    assert sum("<-" in line and not line.startswith("#") for line in lines) == 5


def test_the_head_has_the_weights_that_full_size_experiments_need(place):
    """The file's own commands, in a shell whose hdam says what it was asked for."""
    settings = yaml.safe_load(Path("cluster.yaml").read_text(encoding="utf-8"))
    hdam = place / "hdam-env/bin/hdam"
    hdam.parent.mkdir(parents=True)
    hdam.write_text('#!/bin/sh\necho "$@ in $HDAM_WEIGHTS"\n')
    hdam.chmod(0o755)
    environment = [line for line in settings["setup_commands"] if line.startswith("echo ")]
    [fetch] = [line for line in settings["head_setup_commands"] if "weights" in line]
    done = subprocess.run(["bash", "-c", "; ".join([*environment, fetch])], capture_output=True, text=True, check=True)
    assert done.stdout == f"weights get vgg19 in {place}/hdam-weights\n"


def test_pods_have_the_weights_in_their_image():
    lines = (FOLDER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    [place] = [line.removeprefix("ENV HDAM_WEIGHTS=") for line in lines if line.startswith("ENV HDAM_WEIGHTS=")]
    [home] = [line.removeprefix("WORKDIR ") for line in lines if line.startswith("WORKDIR ")]
    assert place.startswith(f"{home}/"), "where the user may write"
    assert lines.index(f"ENV HDAM_WEIGHTS={place}") < lines.index("RUN hdam weights get vgg19")


def test_spot_pods_are_given_up_before_a_training_is():
    settings = yaml.safe_load((FOLDER / "raycluster.yaml").read_text(encoding="utf-8"))
    [patience] = settings["spec"]["autoscalerOptions"]["env"]
    assert patience["name"] == "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"
    assert int(patience["value"]) <= ResourceConfig().wait_seconds / 2, "as long again for the pods on demand"


def changed(name, key, value):
    """Our file with another value at `key`, whose parts are divided by |; None takes it away."""
    settings = place = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    *parts, last = (int(part) if part.isdigit() else part for part in key.split("|"))
    for part in parts:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return settings


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("available_node_types|head|resources|CPU", 4, f"{HEAD}: found 4, expected 0: the head only coordinates"),
        (
            "available_node_types|gpu|max_workers",
            "many",
            "available_node_types.gpu.max_workers: found many, expected 'many' is not of type 'integer'",
        ),
        ("max_worker", 3, "Additional properties are not allowed ('max_worker' was unexpected)"),
        ("head_node_type", "boss", "`head_node_type` must be one of `available_node_types`."),
        ("provider|type", "moon", "provider.type: found moon, expected a provider that Ray knows"),
        ("provider", None, "provider.type: found None, expected aws, gcp, azure, …, or external with a module"),
        ("provider|module", "hdam.nowhere.It", "provider.module: found hdam.nowhere.It, expected a class that can be"),
        (
            "file_mounts|/home/ubuntu/hdam-wheel",
            ".",
            "file_mounts./home/ubuntu/hdam-wheel: found no hdam-*.whl in ., expected one: python -m build",
        ),
        (
            "file_mounts",
            {"/home/ubuntu/.ray/auth_token": "~/.ray/auth_token"},
            "setup_commands: found /home/ubuntu/.ray/auth_token, expected a pip install of hdam-*.whl from a folder of",
        ),
    ],
)
def test_a_fault_in_a_file_for_ray_up_is_one_line(place, key, value, line):
    [found] = problems(changed("cluster.yaml", key, value))
    assert line in found


def test_without_a_type_that_works_there_is_nobody_to_train(place):
    settings = changed("cluster.yaml", "available_node_types|cpu|max_workers", 0)
    settings["available_node_types"]["gpu"]["max_workers"] = 0
    [found] = problems(settings)
    assert found.startswith("available_node_types: found cpu, gpu, head, expected besides the head a type with")


def test_a_missing_token_and_environment(place):
    settings = yaml.safe_load(Path("cluster.yaml").read_text(encoding="utf-8"))
    settings["setup_commands"] = [line for line in settings["setup_commands"] if ".hdam_env" not in line]
    assert [line.split(", expected")[0] for line in problems(settings)] == [
        "setup_commands: found neither HDAM_STORE nor HDAM_RESULTS",
        "setup_commands: found no MLFLOW_TRACKING_URI",
        "setup_commands: found no RAY_AUTH_MODE=token",
    ]
    shutil.rmtree(".ray")
    assert run("cluster.yaml").output.startswith("file_mounts./home/ubuntu/.ray/auth_token: found no ~/.ray/auth_token")


@pytest.mark.parametrize(
    ("name", "key", "value", "line"),
    [
        ("raycluster.yaml", "apiVersion", "ray.io/v1alpha1", "apiVersion: found ray.io/v1alpha1, expected ray.io/v1"),
        (
            "raycluster.yaml",
            "spec|headgroupSpec",
            {},
            "spec.headgroupSpec: found {}, expected a key that KubeRay knows",
        ),
        (
            "raycluster.yaml",
            "spec|workerGroupSpecs|0|maxReplicas",
            "8",
            "spec.workerGroupSpecs[0].maxReplicas: found 8,",
        ),
        (
            "raycluster.yaml",
            "spec|workerGroupSpecs|0|replicas",
            9,
            "spec.workerGroupSpecs[0].replicas: found 9, expected 0 to 8",
        ),
        (
            "raycluster.yaml",
            "spec|headGroupSpec|rayStartParams",
            {},
            "rayStartParams.num-cpus: found as many as it has, expec",
        ),
        (
            "raycluster.yaml",
            "spec|authOptions|mode",
            "disabled",
            "spec.authOptions.mode: found disabled, expected token",
        ),
        ("raycluster.yaml", "spec|headGroupSpec|template|spec|containers|0|image", None, f"{POD}.image: found {{"),
        ("rayjob.yaml", "spec|entrypoint", None, "spec.entrypoint: found {"),
        ("rayjob.yaml", "metadata", 3, "metadata: found 3, expected a mapping with a name"),
        (
            "rayjob.yaml",
            "spec|rayClusterSpec",
            None,
            "spec: found neither, expected one of rayClusterSpec and clusterSelector",
        ),
        (
            "rayjob.yaml",
            "spec|shutdownAfterJobFinishes",
            False,
            "spec.shutdownAfterJobFinishes: found false, expected true",
        ),
    ],
)
def test_a_fault_in_a_manifest_is_one_line(place, name, key, value, line):
    [found] = problems(changed(name, key, value))
    assert line in found


def test_pods_that_know_no_store_are_named(place):
    found = problems(
        changed("rayjob.yaml", "spec|rayClusterSpec|workerGroupSpecs|0|template|spec|containers|0|env", [])
    )
    where = "spec.rayClusterSpec.workerGroupSpecs[0].template.spec.containers[0].env"
    assert [line.split(", expected")[0] for line in found] == [
        f"{where}: found neither HDAM_STORE nor HDAM_RESULTS",
        f"{where}: found no MLFLOW_TRACKING_URI",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind: Pod\napiVersion: v1", "found kind Pod, expected RayCluster or RayJob"),
        ("a: [1", "is no YAML"),
        ("a: 2024-13-45", "is no YAML: month must be in 1..12"),
        ("just words", "found no settings, expected a YAML mapping"),
        ("", "found no settings, expected a YAML mapping"),
        ("size: 3", "found size; expected a file for ray up"),
    ],
)
def test_what_is_no_clusters_file_is_refused(place, text, line):
    with pytest.raises(InputError, match=line):
        problems(text)


def test_an_absent_file_is_one_line_and_status_2(place):
    done = run("nowhere.yaml")
    assert done.exit_code == 2
    assert "nowhere.yaml: cannot be read (No such file or directory); expected a YAML file" in done.stderr
