"""Weights files: written whole, read back exactly, and refused by name where they do not fit."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import narrow_model
from safetensors.torch import load_file, save_file

from hdam.models.config import PerceptualConfig
from hdam.models.families import build_model
from hdam.models.model import MotionModel
from hdam.models.perceptual import PerceptualPyramid
from hdam.models.weights import WeightsError, load_perceptual_features, load_weights, read_tensors, save_weights


@pytest.fixture
def model() -> MotionModel:
    torch.manual_seed(0)
    return build_model(narrow_model())


def test_round_trip(model: MotionModel, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    with torch.no_grad():
        model.generator.first.norm.running_mean.fill_(0.25)
        model.generator.first.norm.num_batches_tracked.fill_(7)
    save_weights(model, path)
    save_weights(model, path)
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode, "others of a cluster read it too"
    plain.unlink()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"], "nothing temporary is left"
    torch.manual_seed(1)
    other = build_model(narrow_model())
    assert any(not torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))
    load_weights(other, path)
    assert other.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())


def test_tensors_that_do_not_fit_are_named(model: MotionModel, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_weights(model, path)
    tensors = load_file(path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bias = "generator.final.bias"
    changed = [
        ({name: value for name, value in tensors.items() if name != bias}, f"missing {bias}"),
        (tensors | {"generator.final.bais": torch.zeros(3)}, r"unknown generator\.final\.bais"),
        (tensors | {bias: torch.zeros(5)}, rf"{bias} is \(5,\), expected \(3,\)"),
        ({}, r"missing .*; missing .*; missing .* and \d+ more"),
    ]
    for wrong, message in changed:
        save_file(wrong, path)
        with pytest.raises(WeightsError, match=message) as raised:
            load_weights(model, path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "nothing was copied"


def test_files_that_are_absent_or_broken(model: MotionModel, tmp_path: Path):
    with pytest.raises(WeightsError, match="no such weights file"):
        load_weights(model, tmp_path / "absent.safetensors")
    with pytest.raises(WeightsError, match="no such weights file"):
        load_weights(model, tmp_path)
    save_weights(model, tmp_path / "cut.safetensors")
    content = (tmp_path / "cut.safetensors").read_bytes()
    for name, broken in (("cut.safetensors", content[:-100]), ("text.safetensors", b"weights"), ("no.pth", b"")):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(WeightsError, match=f"{name}: not readable as weights") as raised:
            read_tensors(tmp_path / name)
        assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(noise=st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused(tmp_path_factory, noise: bytes):
    for suffix in (".pth", ".safetensors"):
        path = tmp_path_factory.getbasetemp() / f"noise{suffix}"
        path.write_bytes(noise)
        with pytest.raises(WeightsError):
            load_weights(torch.nn.Linear(1, 1), path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), is_new_format=st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_damaged_byte_is_refused_or_harmless(tmp_path_factory, place: float, byte: int, is_new_format: bool):
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    torch.save({"weight": torch.zeros(3)}, path, _use_new_zipfile_serialization=is_new_format)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = byte
    path.write_bytes(content)
    try:
        tensors = read_tensors(path)
    except WeightsError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


def test_stated_digests_are_checked(tmp_path: Path):
    plain = tmp_path / "plain.pth"
    torch.save({"weight": torch.arange(3.0)}, plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
    right, wrong = tmp_path / f"vgg19-{digest}.pth", tmp_path / "vgg19-00000000.pth"
    for path in (right, wrong):
        path.write_bytes(plain.read_bytes())
    assert torch.equal(read_tensors(right)["weight"], torch.arange(3.0))
    with pytest.raises(WeightsError, match=f"states sha256 00000000….*found {digest}…"):
        read_tensors(wrong)


class Malicious:
    """Runs a command where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_plain_pickle", [False, True])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, is_plain_pickle: bool):
    payload, path = tmp_path / "was_run", tmp_path / "model.pth"
    content = {"weight": torch.zeros(3), "more": Malicious(payload)}
    if is_plain_pickle:
        path.write_bytes(pickle.dumps(Malicious(payload), protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError, match="not readable as weights"):
        read_tensors(path)
    assert not payload.exists()


@pytest.mark.parametrize("content", [[torch.zeros(3)], {"epoch": 3}, {"model": {"weight": torch.zeros(3)}}])
def test_a_pth_file_must_be_flat(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match="expected a dictionary of tensors by name"):
        read_tensors(tmp_path / "model.pth")


def test_perceptual_features(golden: Path, tmp_path: Path):
    config = PerceptualConfig(weights=str(golden / "vgg_tiny.safetensors"))
    pyramid = PerceptualPyramid(load_perceptual_features(config), config)
    assert pyramid(torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128)) > 0
    tensors = load_file(golden / "vgg_tiny.safetensors")
    del tensors["features.28.bias"]
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match=r"holds no vgg19: features\.28\.bias is missing"):
        load_perceptual_features(PerceptualConfig(weights=str(tmp_path / "cut.safetensors")))
    with pytest.raises(WeightsError, match=r"network: pixels, which needs none"):
        load_perceptual_features(PerceptualConfig())
    pixels = load_perceptual_features(PerceptualConfig(network="pixels"))
    assert not list(pixels.parameters())
