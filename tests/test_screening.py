"""Screening: the published numbers, anchors that do and do not move along, and what the threshold does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import loss_config, published_settings, reference_deformations, reference_images, reference_objective
from small_models import SIZE, small_model
from torch import Tensor, nn

from hdam.models.config import DeformationConfig
from hdam.models.deformation import Deformation, draw_affine, draw_thin_plate
from hdam.models.geometry import coordinate_grid
from hdam.models.model import MotionModel
from hdam.models.screening import SCREENING_SCALE, Screening, abnormal_anchors, equivariance_errors, screen_anchors
from hdam.models.structures import Anchors, AnchorTree

NOISE = DeformationConfig()


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batches(*sizes: int, seed: int = 0) -> list[Tensor]:
    """Random pictures in batches of these sizes."""
    return list(torch.rand(sum(sizes), 3, SIZE, SIZE, generator=drawn(seed)).split(sizes))


def screen(model: MotionModel, images: Any, *, seed: int = 0, **changes: Any) -> Screening:
    settings = {"num_batches": 100, "epsilon": 0.3, "deformation": NOISE, **changes}
    return screen_anchors(model, images, generator=drawn(seed), **settings)


@pytest.fixture
def model() -> MotionModel:
    return small_model({"model.anchors.num_intermediate": 0}).model


@pytest.fixture(scope="module")
def dam(golden: Path) -> Iterator[MotionModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield reference_objective(golden, "dam").model.eval()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def published(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "equivariance_detection.json").read_text())


def test_published_errors(dam: MotionModel, published: dict[str, Any], golden: Path):
    source, _ = reference_images(golden)
    with torch.no_grad():
        errors = equivariance_errors(dam, source, reference_deformations(golden, "dam").equivariance)
    assert errors.shape == (2, 10)
    assert errors.mean(0).tolist() == pytest.approx(published["unweighted"], abs=1e-6)


def test_published_screening(dam: MotionModel, published: dict[str, Any], golden: Path):
    source, _ = reference_images(golden)
    generator, noise = drawn(777), loss_config(published_settings(golden, "dam")).deformation
    draw_affine(2, noise, generator=generator)  # the published code draws its augmentation first
    screening = screen_anchors(dam, [source], num_batches=100, epsilon=0.25, deformation=noise, generator=generator)
    assert screening.losses.tolist() == pytest.approx(published["per_anchor_weighted_by_10"], abs=1e-5)
    assert list(screening.ignored) == published["ignored_at_0.25_on_weighted_value"]
    assert screening.num_images == 2
    assert abnormal_anchors(screening.losses, epsilon=1.0) == (1, 2, 3, 4, 7, 9)
    assert abnormal_anchors(screening.losses, epsilon=6.0) == ()


class SpotDetector(nn.Module):
    """Two motion anchors: the centre of what is bright, which moves along, and a place that never moves."""

    def forward(self, image: Tensor) -> AnchorTree:
        weight = image.mean(1).flatten(1)
        grid = coordinate_grid(*image.shape[-2:], like=image).view(-1, 2)
        centre = (weight @ grid) / weight.sum(1, keepdim=True)
        position = torch.stack([centre, torch.full_like(centre, 0.7)], 1)
        return AnchorTree(Anchors(position, torch.eye(2).expand(len(image), 2, 2, 2)), None, None)


def test_an_anchor_that_moves_along_is_normal_and_one_that_stays_is_not():
    grid = coordinate_grid(64, 64, like=torch.zeros(1))
    places = torch.tensor([[0.3, -0.2], [-0.4, 0.1], [0.0, 0.5]])
    spots = torch.exp(-(grid - places[:, None, None]).square().sum(-1) / 0.005)
    model = small_model({"model.anchors.num_intermediate": 0, "model.anchors.num_motion": 2}).model
    model.detector = SpotDetector()
    screening = screen(model, [spots[:, None].expand(-1, 3, -1, -1)] * 10)
    assert screening.losses[0] < 0.1, "a hundredth in coordinates: half a pixel"
    assert screening.losses[1] > 0.4
    assert screening.ignored == (1,)
    assert screening.num_images == 30


def test_nothing_deformed_is_no_error(model: MotionModel):
    unmoved = Deformation(torch.eye(2, 3).expand(2, -1, -1), torch.zeros(2, 25))
    assert equivariance_errors(model, batches(2)[0], unmoved).max() < 1e-5


def test_every_image_counts_the_same(model: MotionModel):
    images = batches(3, 1)
    generator, errors = drawn(5), []
    for batch in images:
        errors.append(equivariance_errors(model, batch, draw_thin_plate(len(batch), NOISE, generator=generator)))
    screening = screen(model, images, seed=5)
    assert screening.losses.tolist() == pytest.approx((SCREENING_SCALE * torch.cat(errors).mean(0)).tolist(), rel=1e-5)
    assert screening.losses.shape == (4,)
    assert screening.num_images == 4


def test_only_so_many_batches_are_taken(model: MotionModel):
    stream = iter(batches(2, 2, 2))
    assert screen(model, stream, num_batches=2).num_images == 4
    assert len(list(stream)) == 1, "the third batch was not touched"
    assert screen(model, batches(2), num_batches=50).num_images == 2


def test_the_generator_alone_decides(model: MotionModel):
    state = torch.get_rng_state()
    first, again, other = (screen(model, batches(2, 2), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.losses, again.losses)
    assert not torch.equal(first.losses, other.losses)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_model_is_left_as_it_was(model: MotionModel):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = screen(model, batches(2)).losses
    model.train()
    screening = screen(model, batches(2))
    assert model.training
    assert torch.equal(screening.losses, expected), "measured with running statistics"
    assert not screening.losses.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="hourglass"):
        screen(model, [torch.rand(2, 3, 30, 30)])
    assert model.training


def test_only_motion_anchors_are_screened():
    screening = screen(small_model().model, batches(2), epsilon=0.0)
    assert screening.losses.shape == (4,)
    assert screening.ignored == (0, 1, 2, 3)


def test_none_and_all_and_the_edge():
    losses = torch.tensor([0.3, 0.300001, 0.0, torch.inf, torch.nan], dtype=torch.float64)
    assert abnormal_anchors(losses, epsilon=0.3) == (1, 3, 4), "what is no number is not normal"
    assert abnormal_anchors(losses[:3], epsilon=float("inf")) == ()
    assert abnormal_anchors(losses[:2], epsilon=0.0) == (0, 1)


def test_a_model_that_is_no_number_is_abnormal_throughout(model: MotionModel):
    with torch.no_grad():
        model.detector.heatmap_head.weight.fill_(torch.nan)
    assert screen(model, batches(2)).ignored == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_batches": 0}, "over 0 batches; expected at least 1"),
        ({"epsilon": -0.1}, "ε=-0.1; expected 0 or more"),
        ({"epsilon": float("nan")}, "ε=nan; expected 0 or more"),
    ],
)
def test_settings_without_meaning_are_refused_before_anything_is_read(model, changes: dict[str, Any], message: str):
    stream = iter(batches(2))
    with pytest.raises(ValueError, match=message):
        screen(model, stream, **changes)
    assert len(list(stream)) == 1


def test_no_images_are_refused(model: MotionModel):
    with pytest.raises(ValueError, match="no images; expected at least one batch"):
        screen(model, [])
