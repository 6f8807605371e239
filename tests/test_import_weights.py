"""Published checkpoints: read without running them, understood from their shapes alone, and written again."""

import os
import re
from pathlib import Path

import pytest
import torch
from local_store import keep_results_in
from media_files import moving_square, write_video
from PIL import Image
from published_files import (
    ALL_NAMES,
    FAMILIES,
    OTHERS,
    SMALL,
    TOLD,
    flat,
    reference_files,
    reference_parts,
    save,
    small_parts,
)
from reference import arrays, reference_images
from small_models import SIZE, small_model
from typer.testing import CliRunner

from hdam.models.published_file import read_published
from hdam.models.weights import WeightsError
from hdam.pipelines.errors import InputError
from hdam.pipelines.media import open_media
from hdam.platform import registry
from hdam.platform.cli import app
from hdam.platform.model_folder import DISCRIMINATOR_NAME, write_model
from hdam.platform.weights.published import export_model, import_published


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """An empty tracking database."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        keep_results_in(folder / "results", patch)
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def files(golden, tmp_path_factory):
    """The reference models as published checkpoints, by name."""
    return reference_files(golden, tmp_path_factory.mktemp("published"))


@pytest.fixture
def small(tmp_path):
    """A small HDAM with a discriminator, as a published checkpoint."""
    return save(small_parts(), tmp_path / "small.pth.tar")


@pytest.fixture
def hdam(store):
    """Runs a command."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def same(tensors, others):
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype, name
        assert torch.equal(tensor, others[name]), name


@pytest.mark.parametrize("name", ALL_NAMES)
def test_an_imported_model_paints_what_the_published_one_does(golden, files, store, name):
    report = import_published(files[name], family=FAMILIES[name], name=f"golden-{name}", changes=TOLD[name])
    assert report.uri == f"models:/golden-{name}/1"
    assert list(report.left_out) == OTHERS
    loaded = registry.load_model(report.uri)
    assert loaded.experiment.model.reading == "released"
    with torch.no_grad():
        transfer = loaded.model.double()(*reference_images(golden))
    expected = arrays(golden / f"{name}_eval.npz")
    assert (transfer.image[..., ::2, ::2] - expected["prediction_s2"]).abs().max() < 1e-6
    step = 1 if "mask" in expected else 2
    masks = expected["mask" if step == 1 else "mask_s2"]
    assert (transfer.motion.masks[..., ::step, ::step] - masks).abs().max() < 1e-6
    if "attention" in expected:
        assert (transfer.attention - expected["attention"]).abs().max() < 1e-6


@pytest.mark.parametrize("name", ALL_NAMES)
def test_what_is_exported_is_what_was_imported(golden, files, store, tmp_path, name):
    report = import_published(files[name], family=FAMILIES[name], name=f"again-{name}", changes=TOLD[name])
    written = export_model(registry.load_model(report.uri), tmp_path / "new" / "again.pth.tar")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["again.pth.tar"]
    assert sorted(written.parts) == sorted(report.parts)
    exported, original = torch.load(written.path, weights_only=True), reference_parts(golden, name)
    assert exported.keys() == original.keys()
    same(flat(exported), flat(original))
    assert original["generator"]["final.weight"].dtype == torch.float32


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


class Command:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("malice", [Malice, Command])
@pytest.mark.parametrize("is_new_format", [True, False])
def test_a_pickle_that_would_run_something_is_refused_and_not_run(hdam, tmp_path, malice, is_new_format):
    trap, path = tmp_path / "trap", tmp_path / "bad.pth.tar"
    save({**small_parts(), "extra": malice(trap)}, path, _use_new_zipfile_serialization=is_new_format)
    found = hdam("import-weights", path, "--family", "hdam", "--name", "malice")
    assert told(found) == f"hdam: {path}: not readable as weights (it holds more than tensors, or none at all)"
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists(), "the trap works where it is not refused"


def test_files_of_old_versions_of_torch_are_read(tmp_path):
    parts = small_parts()
    old = save(parts, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    assert not old.read_bytes().startswith(b"PK")
    file = read_published(old, "hdam")
    same(file.tensors, flat(parts))
    assert list(file.left_out) == OTHERS


def drop(part, name=None):
    def change(parts):
        if name is None:
            del parts[part]
        else:
            del parts[part][name]

    return change


def put(part, name, value):
    return lambda parts: parts[part].update({name: value})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (drop("kp_detector"), "has no part kp_detector, as a published hdam has; it holds generator"),
        (drop("generator", "final.bias"), r"does not fit this model: missing generator\.final\.bias"),
        (drop("generator", "bottleneck.r0.conv1.weight"), r"generator\.bottleneck\.r0\.conv1\.weight is missing"),
        (drop("kp_detector", "jacobian.weight"), r"kp_detector\.jacobian\.weight is missing"),
        (drop("bg_predictor", "fc.weight"), r"bg_predictor\.fc\.weight is missing"),
        (drop("discriminator", "discs.1.conv.bias"), r"missing per_scale\.0\.head\.bias"),
        (put("generator", "new.weight", torch.ones(2)), r"unknown generator\.new\.weight"),
        (put("discriminator", "new", torch.ones(2)), "does not fit this model: unknown new"),
        (put("discriminator", "discs.3.conv.bias", torch.ones(2)), r"discs\.3 has a scale that is none of 1, 1/2"),
        (put("generator", "dense_motion_network.mask.weight", torch.ones(1, 2)), "do not go together"),
        (put("generator", "dense_motion_network.mask.weight", torch.tensor(1)), r"mask\.weight is empty"),
        (put("kp_detector", "down.weight", torch.ones(3, 1, 7, 7)), "blur kernels have 5, 13 or 29"),
        (put("kp_detector", "down.weight", torch.ones(3, 1, 5, 5)), "no blur kernel of this model's scale"),
        (put("generator", "final.bias", torch.full((3,), torch.nan)), "its weights are damaged"),
        (put("generator", "final.bias", "words"), "part generator is no dictionary of tensors by name"),
        (lambda parts: parts.update(bg_predictor={}), "part bg_predictor is no dictionary of tensors"),
    ],
)
def test_what_is_not_wholly_understood_is_refused(store, tmp_path, change, problem):
    parts = small_parts()
    change(parts)
    path = save(parts, tmp_path / "wrong.pth.tar")
    with pytest.raises(WeightsError, match=problem) as caught:
        import_published(path, family="hdam", name="wrong", changes={"data.size": SIZE})
    assert str(path) in str(caught.value)
    assert "wrong" not in [model.name for model in registry.list_models()]


def told(result):
    """The one line of a mistake."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--name", "a/b"], "--name 'a/b': expected letters, digits"),
        (["--name", "a@b"], "--name 'a@b'"),
        (["--name", ""], "--name ''"),
        (["--name", "x"], "does not work at data.size=256"),
        (["--name", "x", "--set", "data.size=33"], "does not work at data.size=33"),
        (["--name", "x", "--set", "data.sise=32"], "unknown key 'data.sise'; the nearest known key is 'data.size'"),
        (["--name", "x", "--set", "model.ignored=[9]"], "model.ignored names motion anchors [9]; there are 0…3"),
        (["--name", "x", "--set", "model.anchors.num_motion=3"], "does not fit this model"),
        (["--name", "x", "--set", "data.size"], "expected a dotted name and a value"),
    ],
)
def test_settings_that_do_not_fit_are_told_in_one_line(hdam, tmp_path, arguments, problem):
    path = save(small_parts({"model.flow.num_blocks": 8, "model.flow.max_width": 8}), tmp_path / "small.pth")
    assert problem in told(hdam("import-weights", path, "--family", "hdam", *arguments))
    assert "x" not in [model.name for model in registry.list_models()]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "no such weights file"), (b"words", "not readable as weights"), ([1, 2], "expected a dictionary of parts")],
)
def test_what_is_no_checkpoint_is_told(tmp_path, content, problem):
    path = tmp_path / "x.pth.tar"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=problem):
        read_published(path, "hdam")


def test_a_discriminator_that_sees_heat_maps_is_left_out(tmp_path):
    parts = small_parts()
    first = "discs.1.down_blocks.0.conv.weight"
    parts["discriminator"][first] = torch.ones(4, 13, 4, 4)
    file = read_published(save(parts, tmp_path / "adv.pth.tar"), "hdam")
    assert "discriminator (it takes 13 channels" in file.left_out[-1]
    assert not [name for name in file.tensors if name.startswith("discriminator.")]


def test_the_commands_import_animate_and_export(hdam, small, tmp_path):
    still, driving = tmp_path / "still.png", tmp_path / "driving.mp4"
    found = hdam("import-weights", small, "--family", "hdam", "--name", "Small.1", "--set", f"data.size={SIZE}")
    assert found.exit_code == 0, found.output
    rows = [line.split() for line in found.stdout.splitlines()]
    state = small_parts()["discriminator"]
    assert ["discriminator", str(len(state)), f"{sum(tensor.numel() for tensor in state.values()):,}"] in rows
    model = small_model(SMALL).model
    num_parameters = sum(parameter.numel() for parameter in model.detector.parameters())
    assert ["kp_detector", str(len(small_parts()["kp_detector"])), f"{num_parameters:,}"] in rows
    assert "Left out: optimizer_generator, epoch\n" in found.stdout
    (assumed,) = re.findall(r"Assumed, .*: (.*)\n", found.stdout)
    assert "model.generator.has_skips=true" in assumed
    assert "model.ignored=[]" in assumed
    assert "data.size" not in assumed
    (version,) = registry.show_model("Small.1").versions
    assert (version.version, version.aliases) == ("1", ())
    assert version.tags["variant"] == "hdam"
    assert version.tags["imported"] == "small.pth.tar"
    assert len(version.tags["imported.sha256"]) == 64
    loaded = registry.load_model("models:/Small.1/1")
    assert version.tags["imported.sha256"] in loaded.experiment.question
    Image.fromarray(moving_square(1)[0]).save(still)
    write_video(driving, moving_square(4))
    given = ["animate", "--model", "models:/Small.1/1", "--source", still, "--driving", driving]
    assert hdam(*given, "--out", tmp_path / "out.mp4").exit_code == 0
    assert open_media(tmp_path / "out.mp4").num_frames == 4
    exported = hdam("export-weights", "models:/Small.1/1", tmp_path / "out.pth.tar")
    assert exported.exit_code == 0, exported.output
    assert f"Written to {tmp_path / 'out.pth.tar'}\n" in exported.stdout
    assert "Note:" not in exported.stdout
    same(read_published(tmp_path / "out.pth.tar", "hdam").tensors, read_published(small, "hdam").tensors)
    assert "there already" in told(hdam("export-weights", "models:/Small.1/1", tmp_path / "out.pth.tar"))


def test_the_registry_keeps_the_run_and_the_discriminator(store, small):
    first, second = (
        import_published(small, family="hdam", name="kept", changes={"data.size": SIZE}).uri for _ in range(2)
    )
    assert (first, second) == ("models:/kept/1", "models:/kept/2")
    client = registry.connect()
    (newest, _) = registry.show_model("kept").versions
    assert client.get_run(newest.run_id).info.status == "FINISHED"
    folder = registry.mlflow.artifacts.download_artifacts(first)
    names = [name for _, _, found in os.walk(folder) for name in found]
    assert DISCRIMINATOR_NAME in names
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".tar"))]
    assert registry.load_model(second).discriminator is not None
    broken = Path(folder) / "artifacts" / "hdam" / DISCRIMINATOR_NAME
    broken.write_bytes(b"broken")
    with pytest.raises(WeightsError, match=f"{DISCRIMINATOR_NAME}: not readable"):
        registry.load_model(str(broken.parent))


def test_a_paper_model_is_exported_with_a_word_of_warning_or_not_at_all(hdam, tmp_path):
    for name, changes in (("hdam", {}), ("dam", {"model.anchors.num_intermediate": 0})):
        loaded = small_model(changes)
        write_model(tmp_path / name, model=loaded.model, experiment=loaded.experiment)
    assert "no attention of the reading paper" in told(hdam("export-weights", tmp_path / "hdam", tmp_path / "a.pth"))
    assert not list(tmp_path.glob("*a.pth*"))
    found = hdam("export-weights", tmp_path / "dam", tmp_path / "b.pth")
    assert found.exit_code == 0
    assert "trained in the reading paper" in found.stdout
    assert torch.load(tmp_path / "b.pth", weights_only=True).keys() == {"kp_detector", "generator", "bg_predictor"}


def test_a_file_that_cannot_be_written_leaves_nothing(small_disk):
    loaded = small_model(
        {**SMALL, "model.anchors.num_intermediate": 0, "model.generator.width": 512, "model.generator.max_width": 512}
    )
    with pytest.raises(InputError, match=r"big\.pth cannot be written"):
        export_model(loaded, small_disk / "big.pth")
    assert [path.name for path in small_disk.iterdir()] == []
