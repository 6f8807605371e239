"""Workers of different numbers on the same global batch, with real processes; and that they skip a step together."""

import functools
import multiprocessing
import traceback

import numpy as np
import pytest
import torch
import torch.distributed
from ports import free_port
from small_training import moving_square, small_training
from torch import nn
from torch.nn.functional import batch_norm
from torch.nn.parallel import DistributedDataParallel

from hdam.models.objective import build_objective
from hdam.platform.step import TrainStep

PAIRS = 8
STEPS = 3
GAN = {"losses.gan": 1.0, "model.discriminator.num_blocks": 2}
JITTER = {"data.brightness": 0.2, "data.hue": 0.1, "losses.perceptual.augmented_weight": 1.0}


def global_batch(index):
    """Pairs of moving squares, other ones for every `index`."""
    rng = np.random.default_rng(index)
    clips = [moving_square(int(rng.integers(6))) for _ in range(PAIRS)]
    drawn = [np.sort(rng.integers(0, len(clip), 2)) for clip in clips]
    source, driving = zip(*[(clip[i], clip[j]) for clip, (i, j) in zip(clips, drawn, strict=True)], strict=True)
    return {"source": torch.from_numpy(np.stack(source)), "driving": torch.from_numpy(np.stack(driving))}


def freeze_batch_norm(module):
    """Let batch norm use its running statistics, as if they were those of the batch."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.forward = functools.partial(
                batch_norm,
                running_mean=norm.running_mean,
                running_var=norm.running_var,
                weight=norm.weight,
                bias=norm.bias,
            )


def make_step(rank, workers, changes, *, is_frozen, micro_batches=None):
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    experiment = small_training("", {**JITTER, **changes})
    objective = build_objective(experiment.model, experiment.losses).double()
    if is_frozen:
        freeze_batch_norm(objective)
    wrapped = DistributedDataParallel(objective, broadcast_buffers=False) if workers > 1 else None
    return TrainStep(
        experiment,
        objective,
        wrapped=wrapped,
        steps_per_epoch=100,
        rank=rank,
        workers=workers,
        micro_batches=micro_batches,
    )


def train_some(rank, workers, changes, *, is_frozen=True, break_rank=None, micro_batches=None):
    step = make_step(rank, workers, changes, is_frozen=is_frozen, micro_batches=micro_batches)
    totals, faults = [], []
    for index in range(STEPS):
        parts = {name: value.chunk(step.micro_batches) for name, value in global_batch(index).items()}
        batch = {name: torch.cat(part[rank::workers]) for name, part in parts.items()}
        losses = step.objective.config
        if index == 1 and rank == break_rank:
            step.objective.config = small_training("", {**JITTER, "losses.root_to_intermediate": float("inf")}).losses
        result = step(batch)
        step.objective.config = losses
        totals.append(result.losses["total"].item())
        faults.append((result.fault, result.is_own_fault))
    state = {name: value.numpy() for name, value in step.objective.state_dict().items()}
    return {"totals": totals, "faults": faults, "state": state, "skipped": step.skipped}


def one_worker(rank, port, answers, changes, options):
    try:
        torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
        answers.put((rank, train_some(rank, 2, changes, **options)))
        torch.distributed.destroy_process_group()
    except BaseException:
        answers.put((rank, traceback.format_exc()))


def two_workers(changes=None, **options):
    """What each of two processes found, by rank."""
    spawn = multiprocessing.get_context("spawn")
    port = free_port()
    answers = spawn.Queue()
    workers = [spawn.Process(target=one_worker, args=(rank, port, answers, changes or {}, options)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    found = dict(answers.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert all(isinstance(answer, dict) for answer in found.values()), found
    return found


@pytest.fixture
def in_float64():
    threads = torch.get_num_threads()
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("changes", [{}, GAN], ids=["plain", "gan"])
def test_two_workers_equal_one_on_the_same_global_batch(changes):
    """All but batch norm, which on a CPU sees a worker's own share; here it is frozen."""
    alone = train_some(0, 1, changes)
    both = two_workers(changes)
    for worker in both.values():
        assert all(np.array_equal(value, worker["state"][name]) for name, value in both[0]["state"].items())
        for name, value in alone["state"].items():
            assert np.allclose(value, worker["state"][name], rtol=0, atol=1e-9), name
    means = np.mean([both[0]["totals"], both[1]["totals"]], axis=0)
    assert means == pytest.approx(alone["totals"], rel=1e-9)
    assert len(set(alone["totals"])) == STEPS


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(("micro_batches", "changes"), [(2, {}), (4, GAN)], ids=["2-plain", "4-gan"])
def test_fewer_workers_take_the_same_steps_with_several_micro_batches_each(changes, micro_batches):
    """One or two workers on the micro-batches of four are one worker on all pairs at once, but for batch norm."""
    at_once = train_some(0, 1, changes)
    found = [train_some(0, 1, changes, micro_batches=micro_batches)]
    if micro_batches == 4:
        both = two_workers(changes, micro_batches=micro_batches)
        assert both[0]["totals"] != both[1]["totals"]
        found += [
            {**worker, "totals": np.mean([one["totals"] for one in both.values()], 0)} for worker in both.values()
        ]
    for worker in found:
        assert worker["totals"] == pytest.approx(at_once["totals"], rel=1e-9)
        for name, value in at_once["state"].items():
            assert np.allclose(value, worker["state"][name], rtol=0, atol=1e-9), name


@pytest.mark.usefixtures("in_float64")
def test_a_fault_in_any_micro_batch_skips_the_step_and_puts_running_statistics_back():
    step = make_step(0, 1, {}, is_frozen=False, micro_batches=2)
    before = {name: value.clone() for name, value in step.objective.state_dict().items()}
    batch = global_batch(0)
    forward, calls = step.forward, []

    def break_first(*inputs):
        losses, transfer = forward(*inputs)
        calls.append(losses)
        return ({**losses, "structure": losses["structure"] * float("nan")} if len(calls) == 1 else losses), transfer

    step.forward = break_first
    result = step(batch)
    assert (len(calls), result.fault, result.is_own_fault) == (2, "structure is nan", True)
    assert all(torch.equal(value, before[name]) for name, value in step.objective.state_dict().items())


@pytest.mark.parametrize("break_rank", [0, 1])
def test_a_step_that_one_worker_cannot_take_is_skipped_by_both(break_rank):
    both = two_workers(break_rank=break_rank, is_frozen=False)
    blamed, other = both[break_rank], both[1 - break_rank]
    assert blamed["faults"] == [("", False), ("structure_intermediate is inf", True), ("", False)]
    assert other["faults"] == [("", False), ("a loss of another worker is no number", False), ("", False)]
    assert blamed["skipped"] == other["skipped"] == 1
    parameters = [name for name in blamed["state"] if "running" not in name and "batches" not in name]
    assert all(np.array_equal(blamed["state"][name], other["state"][name]) for name in parameters)
    assert all(np.isfinite(value).all() for worker in both.values() for value in worker["state"].values())
