"""Converting published weights: every name is accounted for, and a name or kernel that does not fit is an error."""

from pathlib import Path

import pytest
import torch
from reference import NAMES, model_config, published_settings
from safetensors.torch import load_file
from torch import Tensor

from hdam.models.discriminator import Discriminator
from hdam.models.families import build_model
from hdam.models.model import MotionModel
from hdam.models.published import load_published, rename
from hdam.models.weights import WeightsError

KERNELS = {"kp_detector.down.weight", "generator.dense_motion_network.down.weight"}


def reference(golden: Path, name: str) -> tuple[MotionModel, Discriminator, dict[str, Tensor]]:
    model = build_model(model_config(published_settings(golden, name)))
    return model, Discriminator(model.config.discriminator), load_file(golden / f"{name}_state.safetensors")


@pytest.fixture
def fomm(golden: Path) -> tuple[MotionModel, Discriminator, dict[str, Tensor]]:
    return reference(golden, "fomm")


@pytest.mark.parametrize("name", NAMES)
def test_every_published_tensor_has_one_place_and_arrives_there(golden: Path, name: str):
    model, discriminator, tensors = reference(golden, name)
    names = {published: rename(published, discriminator) for published in tensors if published not in KERNELS}
    ours = {f"model.{key}": value for key, value in model.state_dict().items()}
    ours |= {f"discriminator.{key}": value for key, value in discriminator.state_dict().items()}
    assert sorted(names.values()) == sorted(ours)
    load_published(model, discriminator, tensors, origin=name)
    for published, key in names.items():
        assert torch.equal(ours[key], tensors[published].to(ours[key])), published


def test_a_discriminator_is_optional_but_complete(fomm):
    model, discriminator, tensors = fomm
    load_published(model, None, tensors, origin="fomm")
    without = {key: value for key, value in tensors.items() if not key.startswith("discriminator.")}
    load_published(model, None, without, origin="fomm")
    with pytest.raises(WeightsError, match=r"fomm does not fit.*missing per_scale\.0.*more"):
        load_published(model, discriminator, without, origin="fomm")
    del tensors["discriminator.discs.1.conv.bias"]
    with pytest.raises(WeightsError, match=r"missing per_scale\.0\.head\.bias"):
        load_published(model, discriminator, tensors, origin="fomm")


@pytest.mark.parametrize(
    "published",
    [
        "kp_detector.predictor.encoder.down_blocks.0.conv.weight",
        "kp_detector.kp.bias",
        "generator.dense_motion_network.mask.weight",
        "generator.bottleneck.r0.conv1.weight",
        "generator.final.bias",
        "discriminator.discs.1.down_blocks.0.conv.weight",
    ],
)
def test_a_misspelt_or_missing_name_is_an_error(fomm, published: str):
    model, discriminator, tensors = fomm
    value = tensors.pop(published)
    with pytest.raises(WeightsError, match="missing"):
        load_published(model, discriminator, tensors, origin="fomm")
    stem, _, last = published.rpartition(".")
    with pytest.raises(WeightsError):
        load_published(model, discriminator, tensors | {f"{stem}.{last[::-1]}": value}, origin="fomm")


@pytest.mark.parametrize(
    "stray", ["kp_detector.new.weight", "generator.new.weight", "bg_predictor.fc.weight", "optimizer", "new.weight"]
)
def test_a_tensor_without_a_place_is_an_error(fomm, stray: str):
    model, discriminator, tensors = fomm
    last = stray.rpartition(".")[2]
    with pytest.raises(WeightsError, match=rf"unknown .*{last}|no known part: {stray}"):
        load_published(model, discriminator, tensors | {stray: torch.zeros(1)}, origin="fomm")


def test_tensors_of_another_shape_are_an_error(golden: Path, fomm):
    model, discriminator, tensors = fomm
    with pytest.raises(WeightsError, match=r"heatmap_head\.bias is \(7,\), expected \(10,\)"):
        load_published(model, discriminator, tensors | {"kp_detector.kp.bias": torch.zeros(7)}, origin="fomm")
    hdam = load_file(golden / "hdam_state.safetensors")
    with pytest.raises(WeightsError, match="does not fit this model"):
        load_published(model, discriminator, hdam, origin="hdam")


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_the_blur_kernel_must_be_ours(fomm, name: str):
    model, discriminator, tensors = fomm
    other = torch.ones(3, 1, 5, 5) / 25
    for kernel in (tensors[name] * 1.01, other):
        with pytest.raises(WeightsError, match=rf"{name} is no blur kernel of this model's scale"):
            load_published(model, discriminator, tensors | {name: kernel}, origin="fomm")
    del tensors[name]
    load_published(model, discriminator, tensors, origin="fomm")


def test_nothing_is_copied_when_the_model_does_not_fit(fomm):
    model, discriminator, tensors = fomm
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError):
        load_published(model, discriminator, tensors | {"generator.new": torch.zeros(1)}, origin="fomm")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
