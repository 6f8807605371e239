"""Animating on tensors: absolute and relative motion, and the scale between two objects."""

import pytest
import torch
from narrow import narrow_model, random_images
from torch import nn

from hdam.models.animation import Animator, relative_motion, size_ratio
from hdam.models.families import build_model
from hdam.models.model import MotionModel
from hdam.models.structures import Anchors


@pytest.fixture(scope="module")
def model() -> MotionModel:
    """Random affines too, so that relative motion has something to invert."""
    torch.manual_seed(0)
    model = build_model(narrow_model()).eval()
    nn.init.normal_(model.detector.affine_head.weight, std=0.01)
    return model


SOURCE = random_images(64, batch=1)
FRAMES = random_images(64, batch=3, seed=1)[:, None]


def test_absolute_takes_the_driving_anchors(model: MotionModel):
    animator = Animator(model, SOURCE, mode="absolute")
    with torch.no_grad():
        for frame in FRAMES:
            transfer = animator.frame(frame)
            driving = model.detect(frame)
            assert torch.equal(transfer.driving.all.position, driving.all.position)
            expected = model.paint(model.generator.encode(SOURCE), model.detect(SOURCE), driving)
            assert torch.equal(transfer.image, expected.image)
            assert not transfer.image.requires_grad


def test_relative_starts_at_the_source(model: MotionModel):
    animator = Animator(model, SOURCE)
    first = animator.frame(FRAMES[0])
    source = animator.source.motion
    assert torch.allclose(first.driving.motion.position, source.position, atol=1e-6)
    assert torch.allclose(first.driving.motion.affine, source.affine, atol=1e-5)
    assert torch.allclose(first.motion.flow, Animator(model, SOURCE).frame(FRAMES[1]).motion.flow, atol=1e-4)
    later = animator.frame(FRAMES[1])
    assert not torch.allclose(later.driving.motion.position, source.position, atol=1e-4)
    # Only motion anchors are moved, and the attention is that of the driving frame itself.
    detected = model.detect(FRAMES[1])
    assert torch.allclose(later.driving.intermediate.position, detected.intermediate.position)
    assert torch.allclose(later.attention, model.attend(detected))


def test_relative_motion_of_the_source_itself_reproduces_it(model: MotionModel):
    """Driven by its own clip, relative motion is absolute motion."""
    relative, absolute = Animator(model, FRAMES[0]), Animator(model, FRAMES[0], mode="absolute")
    for frame in FRAMES:
        ours, theirs = relative.frame(frame), absolute.frame(frame)
        assert torch.allclose(ours.driving.motion.position, theirs.driving.motion.position, atol=1e-6)
        assert torch.allclose(ours.image, theirs.image, atol=1e-3)


def square(side: float, *, centre: float = 0.0) -> torch.Tensor:
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [0.2, 0.1], [0.0, -0.3]])
    return (corners * side / 2 + centre)[None]


def test_size_ratio_is_that_of_lengths():
    assert size_ratio(square(1.0), square(0.5)) == pytest.approx(2)
    assert size_ratio(square(0.2, centre=0.4), square(0.6)) == pytest.approx(1 / 3)
    assert size_ratio(square(1.0), torch.zeros(1, 6, 2)) == 1
    assert size_ratio(torch.zeros(1, 6, 2), square(1.0)) == 1
    assert size_ratio(square(1.0), torch.linspace(0, 1, 6)[None, :, None].expand(1, 6, 2)) == 1


def test_relative_motion_is_scaled():
    unit = torch.eye(2).expand(1, 6, 2, 2)
    source, first = Anchors(square(1.0), unit), Anchors(square(0.5), 2 * unit)
    driving = Anchors(first.position + 0.1, 3 * unit)
    moved = relative_motion(source, driving, first, scale=2.0)
    assert torch.allclose(moved.position, source.position + 0.2)
    assert torch.allclose(moved.affine, 1.5 * unit)
