"""Losses and training steps: what vanishes, what is left out, and that gradients stay finite."""

from dataclasses import replace

import pytest
import torch
from narrow import PIXELS, WIDTHS, narrow_model, narrow_objective, random_images
from torch import Tensor

from hdam.models.attention import AnchorAttention, ProjectedAttention, scaled_attention
from hdam.models.config import AnchorConfig, BackgroundConfig, LossConfig, Reading
from hdam.models.deformation import Deformations
from hdam.models.families import build_model
from hdam.models.losses import completeness, orthogonal, structure_distance
from hdam.models.objective import Objective, draw_deformations
from hdam.models.optimisation import build_optimisers, clip_detector, model_parts
from hdam.models.perceptual import PerceptualPyramid, PixelFeatures
from hdam.models.structures import Anchors

READINGS: tuple[Reading, ...] = ("paper", "released")


def train_once(objective: Objective) -> dict[str, Tensor]:
    """One forward and backward; losses are finite, and every parameter gets a finite gradient."""
    deformations = draw_deformations(2, objective.config, generator=torch.Generator().manual_seed(0))
    losses, _ = objective.train()(random_images(64), random_images(64, seed=1), deformations)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values()), losses
    for name, parameter in objective.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    return losses


HDAM_LOSSES = {
    "perceptual",
    "perceptual_augmented",
    "equivariance_position",
    "equivariance_affine",
    "structure_intermediate",
    "structure",
    "orthogonal",
    "completeness",
}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    ("anchors", "ignored"),
    [
        (AnchorConfig(num_motion=4, num_intermediate=2), ()),
        (AnchorConfig(num_motion=4, num_intermediate=2), (1, 3)),
        (AnchorConfig(num_motion=4, num_intermediate=2), (0, 1, 2, 3)),
        (AnchorConfig(num_motion=4, num_intermediate=1), ()),
        (AnchorConfig(num_motion=1, num_intermediate=3), ()),
    ],
    ids=["plain", "two ignored", "all ignored", "one intermediate", "one motion"],
)
def test_hdam_trains(reading: Reading, anchors: AnchorConfig, ignored: tuple[int, ...]):
    objective = narrow_objective(reading=reading, anchors=anchors, ignored=ignored)
    losses = train_once(objective)
    assert losses.keys() == HDAM_LOSSES
    if anchors.num_intermediate == 1 or len(ignored) == anchors.num_motion:
        assert losses["orthogonal"] == 0
    if len(ignored) == anchors.num_motion:
        assert losses["structure"] == losses["completeness"] == 0


def test_losses_follow_from_anchors_and_weights():
    fomm = AnchorConfig(num_motion=4, num_intermediate=0, has_root=False)
    flow = {"perceptual", "perceptual_augmented", "equivariance_position", "equivariance_affine"}
    assert train_once(narrow_objective(anchors=fomm)).keys() == flow
    assert train_once(narrow_objective(anchors=replace(fomm, has_root=True))).keys() == {*flow, "structure"}
    adversarial = LossConfig(perceptual=PIXELS, gan=1.0)
    assert train_once(narrow_objective(adversarial, anchors=fomm)).keys() == {*flow, "gan", "feature_matching"}
    bare = LossConfig(
        perceptual=replace(PIXELS, augmented_weight=0.0), equivariance_affine=0.0, equivariance_image="driving"
    )
    assert draw_deformations(2, bare).augmentation is None
    assert train_once(narrow_objective(bare, anchors=fomm)).keys() == {"perceptual", "equivariance_position"}


def test_weights_scale_their_losses():
    plain = train_once(narrow_objective())
    doubled = train_once(
        narrow_objective(
            LossConfig(
                perceptual=replace(PIXELS, layer_weights=(20.0,)),
                equivariance_position=20.0,
                equivariance_affine=20.0,
                root_to_intermediate=2.0,
                intermediate_to_motion=20.0,
                orthogonal=2.0,
                completeness=2.0,
            )
        )
    )
    for name, value in plain.items():
        assert doubled[name].item() == pytest.approx(2 * value.item(), rel=1e-5), name


def test_an_image_that_drives_itself_has_no_structure_loss():
    objective = narrow_objective().eval()
    image = random_images(64)
    still = Deformations(None, draw_deformations(2, objective.config).equivariance)
    with torch.no_grad():
        losses, transfer = objective(image, image, still)
    assert losses["structure"] < 1e-5
    assert losses["structure_intermediate"] < 1e-5
    assert torch.allclose(transfer.source.all.position, transfer.driving.all.position)
    # With the identity as the motion, the warped source is the source itself.
    assert torch.allclose(transfer.warped, image, atol=1e-4)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(("intermediate", "motion"), [(3, 5), (1, 5), (2, 1)])
def test_orthogonality_of_equal_rows_is_zero_with_a_finite_gradient(reading: Reading, intermediate: int, motion: int):
    logits = torch.zeros(2, 1, motion).expand(2, intermediate, motion).clone().requires_grad_()
    loss = orthogonal(logits.softmax(-1), reading=reading)
    loss.backward()
    assert loss == 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("reading", READINGS)
def test_orthogonality_is_least_where_everything_is_owned_by_one(reading: Reading):
    apart, shared = torch.eye(2)[None], torch.full((1, 2, 2), 0.5)
    assert orthogonal(apart, reading=reading) < orthogonal(shared, reading=reading) == 0
    assert completeness(apart, delta=0.3, reading=reading) == completeness(shared, delta=0.3, reading=reading) == 0
    lopsided = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    expected = 0.3 if reading == "paper" else 0.15
    assert completeness(lopsided, delta=0.3, reading=reading) == pytest.approx(expected)
    assert completeness(lopsided, delta=0.3, reading=reading, ignored=(1,)) == 0


def test_ignored_anchors_get_nothing_and_their_gradient_does_not_leak():
    noise = torch.Generator().manual_seed(0)
    key = torch.randn(2, 3, 8, generator=noise, requires_grad=True)
    query = torch.randn(2, 5, 8, generator=noise, requires_grad=True)
    attention = scaled_attention(key, query, divisor=2, ignored=(1, 4))
    assert (attention[:, :, [1, 4]] == 0).all()
    assert torch.allclose(attention.sum(-1), torch.ones(2, 3))
    (attention * torch.randn(2, 3, 5, generator=noise)).sum().backward()
    assert (query.grad[:, [1, 4]] == 0).all()
    assert (query.grad[:, [0, 2, 3]] != 0).all()
    remaining = scaled_attention(key, query[:, [0, 2, 3]], divisor=2)
    assert torch.allclose(attention[:, :, [0, 2, 3]], remaining)
    none = scaled_attention(key, query, divisor=2, ignored=range(5))
    assert (none == 0).all()


@pytest.mark.parametrize("form", [AnchorAttention, ProjectedAttention])
def test_gradient_of_the_attention_reaches_anchors_and_features(form: type):
    tree = build_model(narrow_model()).detect(random_images(64))
    for tensor in (tree.motion.position, tree.intermediate.position, tree.features):
        tensor.retain_grad()
    form(tree.features.shape[1], 8)(tree).square().sum().backward()
    for tensor in (tree.motion.position, tree.intermediate.position, tree.features):
        assert tensor.grad.abs().sum() > 0


def test_structure_distance_of_zero_has_a_finite_gradient():
    position = torch.rand(1, 3, 2, requires_grad=True)
    anchors = Anchors(position, torch.eye(2).expand(1, 3, 2, 2))
    structure_distance(anchors, anchors, position, position).sum().backward()
    assert position.grad.isfinite().all()


def test_perceptual_loss_is_zero_for_equal_images_and_leaves_the_target_alone():
    pyramid = PerceptualPyramid(PixelFeatures(), PIXELS)
    result, target = (random_images(16, seed=seed).requires_grad_() for seed in (0, 1))
    assert pyramid(result, result) == 0
    loss = pyramid(result, target)
    loss.backward()
    assert loss > 0
    assert target.grad is None
    assert pyramid(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)) == pytest.approx(10 + 10 * blurred_ones())


def blurred_ones() -> float:
    """Mean of a half-sized white image: the published pyramid is blurred over black borders."""
    return PerceptualPyramid(PixelFeatures(), PIXELS).downsamples[1](torch.ones(1, 3, 8, 8)).mean().item()


def test_the_discriminator_is_trained_without_the_generator():
    objective = narrow_objective(LossConfig(perceptual=PIXELS, gan=1.0))
    painted = random_images(64).requires_grad_()
    objective.discriminator_losses(random_images(64, seed=1), painted)["discriminator"].backward()
    assert painted.grad is None
    assert all(p.grad is not None for p in objective.discriminator.parameters())
    with pytest.raises(ValueError, match=r"set losses\.gan above 0"):
        narrow_objective().discriminator_losses(painted, painted)


def test_every_parameter_is_optimised_once_and_the_detector_is_clipped():
    for kind in ("zero", "affine"):
        background = BackgroundConfig(**WIDTHS, kind=kind, num_blocks=3)
        objective = narrow_objective(LossConfig(perceptual=PIXELS, gan=1.0), background=background)
        optimisers = build_optimisers(objective, lr=1e-3, betas=(0.5, 0.999))
        groups = optimisers.model.param_groups
        assert [group["name"] for group in groups] == list(model_parts(objective.model))
        optimised = [id(p) for group in groups for p in group["params"]]
        assert sorted(optimised) == sorted(id(p) for p in objective.model.parameters())
        critic = [id(p) for group in optimisers.discriminator.param_groups for p in group["params"]]
        assert critic == [id(p) for p in objective.discriminator.parameters()]
    train_once(objective)
    others = [p.grad.clone() for p in objective.model.generator.parameters()]
    before = clip_detector(objective.model, 0.01)
    assert before > 0.01
    assert clip_detector(objective.model, 0.01).item() == pytest.approx(0.01, rel=1e-3)
    assert all(torch.equal(a, p.grad) for a, p in zip(others, objective.model.generator.parameters(), strict=True))


def test_a_few_steps_make_the_result_more_like_the_driving_image():
    objective = narrow_objective().train()
    optimisers = build_optimisers(objective, lr=5e-3, betas=(0.5, 0.999))
    assert optimisers.discriminator is None
    source, driving = random_images(64), random_images(64, seed=1)
    noise = torch.Generator().manual_seed(0)
    history = []
    for _ in range(12):
        losses, _ = objective(source, driving, draw_deformations(2, objective.config, generator=noise))
        optimisers.model.zero_grad()
        sum(losses.values()).backward()
        clip_detector(objective.model, 1.0)
        optimisers.model.step()
        history.append(losses["perceptual"].item())
    assert history[-1] < 0.8 * history[0]
