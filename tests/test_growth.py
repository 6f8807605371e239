"""From DAM to HDAM: what is copied, grown and fresh, against the published result, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from narrow import narrow_model, random_images
from reference import arrays
from small_models import SIZE, small_experiment
from torch import Tensor

from hdam.models.config import AnchorConfig, DetectorConfig, ModelConfig
from hdam.models.families import build_model
from hdam.models.growth import Growth, grow_weights
from hdam.models.model import MotionModel
from hdam.models.published import rename
from hdam.models.weights import WeightsError

HEATMAPS = {"detector.heatmap_head.weight", "detector.heatmap_head.bias"}
AFFINES = {"detector.affine_head.weight", "detector.affine_head.bias"}


def build(num_intermediate: int, *, seed: int = 0, **changes: Any) -> MotionModel:
    """A small model with heads, affine maps and running statistics of its own."""
    torch.manual_seed(seed)
    names = {f"model.{name}": value for name, value in changes.items()}
    model = build_model(small_experiment({"model.anchors.num_intermediate": num_intermediate, **names}).model)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "affine_head" in name or "running" in name:
                value += 0.05 * torch.rand_like(value)
    return model.eval()


def grow(model: MotionModel, smaller: MotionModel, tensors: dict[str, Tensor] | None = None) -> Growth:
    return grow_weights(model, tensors or smaller.state_dict(), anchors=smaller.config.anchors, origin="smaller")


def copy_state(model: MotionModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_grown(growth: Growth, model: MotionModel, smaller: MotionModel, built: dict[str, Tensor]) -> None:
    """Every tensor is named once and is what its list says; `built` is what `model` was before."""
    state, theirs = model.state_dict(), smaller.state_dict()
    assert sorted([*growth.copied, *growth.grown, *growth.fresh]) == sorted(state)
    assert all(torch.equal(state[name], theirs[name]) for name in growth.copied)
    assert all(torch.equal(state[name], built[name]) for name in growth.fresh)
    numbers = [m.config.anchors.num_intermediate for m in (model, smaller)]
    is_shared = model.config.detector.has_shared_affine
    assert set(growth.grown) == (set() if numbers[0] == numbers[1] else HEATMAPS if is_shared else HEATMAPS | AFFINES)
    for name in growth.grown:
        rows = 4 if name in AFFINES else 1
        kept = rows * (4 + min(numbers))
        assert torch.equal(state[name][:kept], theirs[name][:kept]), name
        assert torch.equal(state[name][-rows:], theirs[name][-rows:]), name
        new = state[name][kept:-rows]
        if name in HEATMAPS:
            assert torch.equal(new, built[name][kept:-rows]), name
        else:
            assert torch.equal(new, torch.eye(2).flatten().repeat(len(new) // 4) if new.dim() == 1 else new * 0), name


def published_model(num_intermediate: int, *, is_shared: bool) -> ModelConfig:
    """The detector that the published result was made with; what else there is does not matter."""
    return narrow_model(
        reading="released",
        anchors=AnchorConfig(num_motion=10, num_intermediate=num_intermediate),
        detector=DetectorConfig(width=2, max_width=8, num_blocks=2, has_shared_affine=is_shared),
    )


@pytest.mark.parametrize("case", ["multi", "single"])
def test_published_result(golden: Path, case: str):
    stored = {name: value.float() for name, value in arrays(golden / "partial_init.npz").items()}
    smaller, model = (build_model(published_model(number, is_shared=case == "single")) for number in (0, 3))
    tensors, expected = copy_state(smaller), {}
    for name in sorted(HEATMAPS | AFFINES):
        part = name.rpartition(".")[2]
        published = f"kp.{part}" if name in HEATMAPS else f"jacobian.{part}"
        built = f"fresh_conv.{part}" if name in HEATMAPS else f"hdam_before.{published}"
        model.state_dict()[name].copy_(stored[f"{case}.{built}"])
        tensors[name] = stored[f"{case}.dam.{published}"]
        expected[name] = stored[f"{case}.hdam_after.{published}"]
    growth = grow(model, smaller, tensors)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.items())
    lists = json.loads((golden / "partial_init.json").read_text())[case]
    for ours, key in zip(growth, ("copied_from_dam", "rebuilt", "kept_from_fresh_hdam"), strict=True):
        names = [f"kp_detector.{name}" for name in lists[key] if name != "down.weight"]  # a blur, no weight of ours
        assert {f"model.{name}" for name in ours if name.startswith("detector.")} == set(map(rename, names)), key


@pytest.mark.parametrize("reading", ["paper", "released"])
@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("num_intermediate", [1, 2, 5])
def test_a_grown_model_does_what_the_smaller_one_did(num_intermediate: int, is_shared: bool, reading: str):
    options = {"detector.has_shared_affine": is_shared, "reading": reading}
    smaller, model = build(0, **options), build(num_intermediate, seed=1, **options)
    built, growth = copy_state(model), grow(model, smaller)
    assert_grown(growth, model, smaller, built)
    assert set(growth.fresh) == {name for name in built if name.startswith("detector.attention.")} != set()
    with torch.no_grad():
        before, after = (m(random_images(SIZE), random_images(SIZE, seed=1)) for m in (smaller, model))
    assert torch.allclose(after.image, before.image, atol=1e-6)
    for ours, theirs in ((after.driving.motion, before.driving.motion), (after.driving.root, before.driving.root)):
        assert torch.allclose(ours.position, theirs.position, atol=1e-6)
        assert torch.allclose(ours.affine, theirs.affine, atol=1e-6)
    assert after.attention.shape == (2, num_intermediate, 4)
    affine = after.driving.intermediate.affine
    assert is_shared or torch.allclose(affine, torch.eye(2).expand_as(affine), atol=1e-6)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 2)])
@pytest.mark.parametrize("is_shared", [False, True])
def test_the_number_of_intermediate_anchors_may_change_again(before: int, after: int, is_shared: bool):
    options = {"detector.has_shared_affine": is_shared}
    smaller, model = build(before, **options), build(after, seed=1, **options)
    built, growth = copy_state(model), grow(model, smaller)
    assert growth.fresh == ()
    assert_grown(growth, model, smaller, built)


def test_other_precisions_are_converted():
    smaller, model = build(0), build(2, seed=1).double()
    grow(model, smaller, {name: v.half() if v.is_floating_point() else v for name, v in smaller.state_dict().items()})
    for name in HEATMAPS:
        assert model.state_dict()[name].dtype == torch.float64
        assert torch.equal(model.state_dict()[name][:4], smaller.state_dict()[name][:4].half().double())


OTHERS = ["detector.hourglass.encoder.blocks.0.norm.running_var", "generator.final.weight", "background.head.bias"]


@pytest.mark.parametrize("name", [*sorted(HEATMAPS | AFFINES), *OTHERS])
@pytest.mark.parametrize("fault", ["missing", "misspelt", "longer", "flat"])
def test_a_tensor_that_does_not_fit_is_named_and_nothing_is_copied(name: str, fault: str):
    smaller, model = build(0), build(2, seed=1)
    before, tensors = copy_state(model), dict(smaller.state_dict())
    value, misspelt = tensors.pop(name), name.replace(".", "_", 1)
    tensors |= {
        "missing": {},
        "misspelt": {misspelt: value},
        "longer": {name: torch.cat([value, value[:1]])},
        "flat": {name: value.sum()},
    }[fault]
    with pytest.raises(WeightsError, match=rf"^smaller does not fit .*{name}") as raised:
        grow(model, smaller, tensors)
    assert "\n" not in str(raised.value)
    assert fault != "misspelt" or f"unknown {misspelt}" in str(raised.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["detector.heatmap_head.scale", "new", "detector.attention.key.weight"])
def test_a_tensor_too_many_is_named(name: str):
    smaller, model = build(0), build(2, seed=1)
    with pytest.raises(WeightsError, match=f"unknown {name}"):
        grow(model, smaller, {**smaller.state_dict(), name: copy_state(model).get(name, torch.zeros(1))})


def test_an_attention_that_should_be_there_is_missed():
    smaller, model = build(2), build(3, seed=1)
    tensors = {name: value for name, value in smaller.state_dict().items() if name != "detector.attention.key.weight"}
    with pytest.raises(WeightsError, match=r"missing detector\.attention\.key\.weight"):
        grow(model, smaller, tensors)


def test_weights_of_other_anchors_than_stated_are_refused():
    model, grown = build(2), build(2, seed=1)
    with pytest.raises(WeightsError, match=r"unknown detector\.attention"):
        grow_weights(grown, model.state_dict(), anchors=replace(model.config.anchors, num_intermediate=0), origin="x")
    dam = build(0)
    with pytest.raises(WeightsError, match=r"model of 6 anchors: .*heatmap_head\.weight is \(5,.*expected \(6,"):
        grow_weights(grown, dam.state_dict(), anchors=replace(dam.config.anchors, num_intermediate=1), origin="x")


def test_affine_maps_of_the_other_kind_are_refused():
    single, separate = ({"detector.has_shared_affine": is_shared} for is_shared in (True, False))
    for ours, theirs in ((single, separate), (separate, single)):
        with pytest.raises(WeightsError, match=r"affine_head\.weight is \("):
            grow(build(2, **ours), build(0, **theirs))


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ((4, 0, True), (4, 0, True), "1 or more"),
        ((4, 2, True), (4, 0, False), "no root anchor"),
        ((4, 2, True), (5, 0, True), "5 motion anchors, this model 4; model.anchors.num_motion"),
    ],
)
def test_models_that_do_not_grow_into_one_another(ours: tuple[int, int, bool], theirs: tuple[int, int, bool], message):
    model, smaller = (
        build_model(narrow_model(anchors=AnchorConfig(num_motion=motion, num_intermediate=between, has_root=has_root)))
        for motion, between, has_root in (ours, theirs)
    )
    with pytest.raises(WeightsError, match=message):
        grow(model, smaller)
