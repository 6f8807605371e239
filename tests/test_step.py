"""The training step without any cluster: it learns, it repeats itself, and it stops at what is no number."""

import copy

import numpy as np
import pytest
import torch
from small_training import moving_square, small_training

from hdam.models.objective import build_objective
from hdam.platform.step import NonFiniteError, TrainStep, step_generator


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


def test_random_numbers_follow_from_seed_step_and_rank():
    def draw(*place):
        return torch.rand(4, generator=step_generator(*place)).tolist()

    assert draw(0, 5, 1) == draw(0, 5, 1)
    assert len({tuple(draw(*place)) for place in [(0, 5, 1), (1, 5, 1), (0, 6, 1), (0, 5, 0), (0, 51, 1)]}) == 5


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


def test_a_loss_that_is_no_number_is_named_and_changes_nothing():
    step = make_step()
    step(batch_of(0))
    before = weights_of(step)
    kept = copy.deepcopy(step.optimisers.model.state_dict())
    step.objective.config = small_training("", {"losses.root_to_intermediate": float("inf")}).losses
    with pytest.raises(NonFiniteError, match=r"step 2: structure_intermediate is inf; .*optim\.lr"):
        step(batch_of(1))
    assert step.step == 1
    parameters = dict(step.objective.model.named_parameters())
    assert all(torch.equal(before[name], value) for name, value in parameters.items())
    assert str(kept) == str(step.optimisers.model.state_dict())


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
