"""The training step without any cluster: it learns, it repeats itself, and it stops at what is no number."""

import copy

import numpy as np
import pytest
import torch
from small_training import moving_square, small_training

from hdam.models.objective import build_objective
from hdam.platform.step import TrainStep, step_seed

SPECTRAL = {"model.discriminator.has_spectral_norm": True}


def make_step(changes=None, *, steps_per_epoch=10, seed=0):
    torch.manual_seed(seed)
    experiment = small_training("", changes)
    return TrainStep(experiment, build_objective(experiment.model, experiment.losses), steps_per_epoch=steps_per_epoch)


def batch_of(index, pairs=4):
    """Pairs of moving squares, other ones for every `index`."""
    rng = np.random.default_rng(index)
    clips = [moving_square(int(rng.integers(6))) for _ in range(pairs)]
    drawn = [np.sort(rng.integers(0, len(clip), 2)) for clip in clips]
    source, driving = zip(*[(clip[i], clip[j]) for clip, (i, j) in zip(clips, drawn, strict=True)], strict=True)
    return {"source": torch.from_numpy(np.stack(source)), "driving": torch.from_numpy(np.stack(driving))}


def weights_of(step):
    return {name: value.clone() for name, value in step.objective.model.state_dict().items()}


def test_the_loss_falls_when_one_batch_is_learnt_by_heart():
    step = make_step({"data.time_flip": 0, "data.horizontal_flip": 0})
    batch = batch_of(0)
    totals = [step(batch).losses["total"].item() for _ in range(40)]
    perceptual = step(batch).losses["perceptual"].item()
    assert all(np.isfinite(totals))
    assert np.mean(totals[-5:]) < 0.6 * np.mean(totals[:5])
    assert perceptual < 2


def test_total_is_the_sum_of_its_terms():
    losses = make_step()(batch_of(0)).losses
    assert losses["total"].item() == pytest.approx(sum(v.item() for n, v in losses.items() if n != "total"), rel=1e-5)
    assert {"perceptual", "equivariance_position", "structure", "orthogonal"} <= set(losses)
    assert not any(value.requires_grad for value in losses.values())


@pytest.mark.parametrize("changes", [{}, {"losses.gan": 1.0, "model.discriminator.num_blocks": 2}])
def test_stop_and_resume_equal_a_straight_run(tmp_path, changes):
    straight, stopped = make_step(changes), make_step(changes)
    for index in range(6):
        straight(batch_of(index))
    for index in range(3):
        stopped(batch_of(index))
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    resumed = make_step(changes, seed=99)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.step == 3
    for index in range(3, 6):
        resumed(batch_of(index))
    expected, found = weights_of(straight), weights_of(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_random_numbers_follow_from_the_place():
    assert step_seed(0, 5, 1) == step_seed(0, 5, 1)
    places = [(0, 5), (0, 5, 1), (1, 5, 1), (0, 6, 1), (0, 5, 0), (0, 51), (0, 51, 1)]
    assert len({step_seed(*place) for place in places}) == len(places)


class Noisy(torch.nn.Module):
    """Somebody's idea of tomorrow: a layer that draws from torch's own generator."""

    def forward(self, features):
        return torch.nn.functional.dropout(features, 0.2, self.training)


def test_layers_with_random_numbers_of_their_own_resume_as_well():
    def noisy_step(seed):
        step = make_step(seed=seed)
        step.objective.model.generator.bottleneck.append(Noisy())
        return step

    straight, resumed = noisy_step(0), noisy_step(9)
    for index in range(2):
        straight(batch_of(index))
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    torch.manual_seed(1234)
    expected, found = straight(batch_of(2)).losses, resumed(batch_of(2)).losses
    assert {name: value.item() for name, value in expected.items()} == {n: v.item() for n, v in found.items()}


def test_learning_rate_falls_at_the_milestones_and_at_no_other_step():
    step = make_step({"optim.milestones": ["3 steps", "1 epoch"], "optim.lr": 1.0, "optim.decay": 0.1})
    rates = []
    for step.step in range(12):
        rates.append(step.lr)
    assert rates[:3] == [1.0] * 3
    assert rates[3:10] == pytest.approx([0.1] * 7)
    assert rates[10:] == pytest.approx([0.01] * 2)


def test_the_rate_of_the_step_is_the_one_that_is_used():
    step = make_step({"optim.milestones": ["1 steps"]})
    for expected in (1e-3, 1e-4):
        step(batch_of(0))
        assert step.optimisers.model.param_groups[0]["lr"] == pytest.approx(expected)


INFINITE = {"losses.root_to_intermediate": float("inf")}


def everything(step):
    """All that a step may change, by name."""
    optimiser = step.optimisers.model.state_dict()["state"]
    moments = {f"{key}.{name}": value.clone() for key, part in optimiser.items() for name, value in part.items()}
    return weights_of(step) | moments


def test_a_loss_that_is_no_number_is_named_and_changes_nothing():
    step, other = make_step(), make_step()
    for each in (step, other):
        each(batch_of(0))
    before, losses = everything(step), step.objective.config
    step.objective.config = small_training("", INFINITE).losses
    result = step(batch_of(1))
    assert result.fault == "structure_intermediate is inf" and result.is_own_fault
    assert (step.step, step.skipped, step.skipped_in_a_row) == (2, 1, 1)
    after = everything(step)
    assert all(torch.equal(before[name], after[name]) for name in before), "running statistics included"
    step.objective.config = losses
    other.step = 2
    assert step(batch_of(2)).losses["total"] == other(batch_of(2)).losses["total"], "as if the batch had not been"
    assert (step.skipped, step.skipped_in_a_row) == (1, 0)


def test_a_gradient_that_is_no_number_changes_nothing_either():
    step = make_step()
    step(batch_of(0))
    before = everything(step)
    weight = step.objective.model.generator.final.weight
    handle = weight.register_hook(lambda gradient: gradient * torch.nan)
    result = step(batch_of(1))
    handle.remove()
    assert result.fault == "gradient of the generator is nan" and result.is_own_fault
    assert all(torch.equal(before[name], value) for name, value in everything(step).items())
    assert not step(batch_of(2)).fault


def test_a_discriminator_that_is_no_number_is_left_as_it_was():
    step = make_step({"losses.gan": 1.0, "model.discriminator.num_blocks": 2, **SPECTRAL})
    step(batch_of(0))
    discriminator = step.objective.discriminator
    before = {name: value.clone() for name, value in discriminator.named_parameters()}
    weights = weights_of(step)
    handle = next(discriminator.parameters()).register_hook(lambda gradient: gradient / 0)
    result = step(batch_of(1))
    handle.remove()
    assert result.fault.startswith("gradient of the discriminator is ")
    assert all(torch.equal(before[name], value) for name, value in discriminator.named_parameters())
    assert step.skipped == 1
    assert not torch.equal(weights["generator.final.weight"], step.objective.model.generator.final.weight)
    assert not step(batch_of(2)).fault


def test_the_gradient_of_the_detector_is_clipped():
    step = make_step({"optim.detector_clip": 1e-3})
    result = step(batch_of(0))
    assert result.detector_norm > 1e-3
    gradients = [p.grad for p in step.objective.model.detector.parameters() if p.grad is not None]
    assert torch.cat([g.flatten() for g in gradients]).norm().item() == pytest.approx(1e-3, rel=1e-3)
    unclipped = make_step({"optim.detector_clip": 0})
    assert unclipped(batch_of(0)).detector_norm == pytest.approx(result.detector_norm.item(), rel=1e-4)


def test_the_discriminator_learns_in_a_step_of_its_own():
    step = make_step({"losses.gan": 1.0, "model.discriminator.num_blocks": 2})
    before = copy.deepcopy(step.objective.discriminator.state_dict())
    losses = [step(batch_of(index)).losses for index in range(12)]
    after = step.objective.discriminator.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert losses[-1]["discriminator"] < losses[0]["discriminator"]
    total = sum(value.item() for name, value in losses[0].items() if name not in ("total", "discriminator"))
    assert losses[0]["total"].item() == pytest.approx(total, rel=1e-5), "its loss is no part of the total"
