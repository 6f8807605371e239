"""`hdam plan`: the formula on figures reckoned by hand, sizes against what is written, and the command."""

import json
import math
from dataclasses import replace

import pytest
import torch
from local_store import keep_results_in
from small_training import small_training
from typer.testing import CliRunner

from hdam.experiments.loading import override
from hdam.models.model import MotionModel
from hdam.models.objective import build_objective
from hdam.pipelines.errors import InputError
from hdam.platform.bench.clips import puppet_clips
from hdam.platform.checkpoints import STATE_NAME, write_checkpoint
from hdam.platform.cli import app
from hdam.platform.planning import measure, planned
from hdam.platform.planning.formula import Load, Means, plan_step, steps_per_epoch
from hdam.platform.planning.measure import fit_line, measure_writing
from hdam.platform.planning.planned import Told, plan_experiment
from hdam.platform.planning.sizes import training_sizes
from hdam.platform.step import TrainStep

GIGABYTE = 10**9
LOAD = Load(
    batch_size=32,
    pairs_per_epoch=3200,
    read_bytes=50_000,
    decoded_bytes=400_000,
    gradient_bytes=GIGABYTE // 4,
    checkpoint_bytes=GIGABYTE,
    checkpoint_every=1000,
)
MEANS = Means(
    fixed_seconds=0.1,
    pair_seconds=0.1,
    decode_cpu_seconds=0.01,
    data_cpus=2,
    link_gbit=8,  # a gigabyte a second
    write_bytes_per_second=GIGABYTE,
)


def test_one_worker_computes_and_writes():
    step = plan_step(LOAD, MEANS, workers=1)
    assert math.isclose(step.compute, 0.1 + 32 * 0.1)
    assert step.all_reduce == step.sending == step.reading == 0.0, "all in one machine"
    assert math.isclose(step.decoding, 32 * 0.01 / 2)
    assert math.isclose(step.seconds, 3.3 + 0.001)
    assert step.limit == "computing"
    assert steps_per_epoch(LOAD, step) == 100


def test_a_ring_carries_twice_the_gradients_but_for_a_workers_own_share():
    step = plan_step(LOAD, MEANS, workers=4)
    assert math.isclose(step.compute, 0.1 + 8 * 0.1)
    assert math.isclose(step.all_reduce, 2 * 3 / 4 * 0.25)
    half_hidden = plan_step(LOAD, replace(MEANS, overlap=0.25), workers=4)
    assert math.isclose(half_hidden.all_reduce, 0.375 - 0.25 * 0.9)
    assert plan_step(LOAD, replace(MEANS, overlap=1), workers=4).all_reduce == 0.0


def test_many_workers_get_a_batch_that_divides():
    step = plan_step(LOAD, MEANS, workers=24)
    assert step.batch_size == 48
    assert math.isclose(step.compute, 0.1 + 2 * 0.1)
    assert steps_per_epoch(LOAD, step) == 3200 // 48


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, "computing"),
        ({"link_gbit": 2}, "all-reduce"),
        ({"decode_cpu_seconds": 0.2}, "decoding"),
        ({"write_bytes_per_second": 1e5}, "writing checkpoints"),
    ],
)
def test_the_limit_is_what_takes_longest(changes, limit):
    assert plan_step(LOAD, replace(MEANS, **changes), workers=4).limit == limit


def test_one_machines_link_carries_shards_in_and_batches_out():
    sending = plan_step(LOAD, replace(MEANS, link_gbit=0.01, overlap=1), workers=4)
    assert math.isclose(sending.sending, 32 * 400_000 / 1.25e6)
    light = replace(LOAD, gradient_bytes=0)
    assert plan_step(light, replace(MEANS, link_gbit=0.01), workers=4).limit == "sending batches"
    rows = replace(light, read_bytes=1e6)
    assert plan_step(rows, replace(MEANS, link_gbit=0.01), workers=4).limit == "reading shards"


def test_shards_in_a_store_come_over_the_link_to_one_worker_too():
    remote, slow = replace(LOAD, is_remote=True), replace(MEANS, link_gbit=0.001)
    for means in (slow, replace(slow, shared_cpus=2)):
        step = plan_step(remote, means, workers=1)
        assert math.isclose(step.reading, 32 * 50_000 / 1.25e5)
        assert step.limit == "reading shards"
        assert step.sending == step.all_reduce == 0.0
    assert plan_step(remote, slow, workers=4).reading == plan_step(LOAD, slow, workers=4).reading


def test_as_many_data_cpus_as_keep_up():
    step = plan_step(LOAD, replace(MEANS, decode_cpu_seconds=0.2), workers=4)
    enough = replace(MEANS, decode_cpu_seconds=0.2, data_cpus=step.data_cpus_needed)
    assert step.limit == "decoding"
    assert plan_step(LOAD, enough, workers=4).limit == "computing"
    too_few = replace(enough, data_cpus=step.data_cpus_needed - 1)
    assert plan_step(LOAD, too_few, workers=4).limit == "decoding"


def test_workers_on_the_same_cpus_gain_nothing_but_their_number_of_cpus():
    one, two, four = (plan_step(LOAD, replace(MEANS, shared_cpus=2), workers=number) for number in (1, 2, 4))
    assert math.isclose(one.compute, 3.3), "two CPUs hold a worker and its data task"
    assert math.isclose(two.compute, (2 * (0.1 + 16 * 0.1) + 32 * 0.01) / 2)
    assert math.isclose(four.compute, (4 * (0.1 + 8 * 0.1) + 32 * 0.01) / 2)
    assert four.all_reduce == 0.0


def test_the_line_through_measured_shares():
    assert fit_line({8: 0.5, 16: 0.9, 32: 1.7}) == pytest.approx((0.1, 0.05))
    assert fit_line({4: 0.2}) == (0.0, 0.05), "of one share nothing is known to be fixed"
    assert fit_line({8: 0.5, 16: 0.4}) == (pytest.approx(0.45), 0.0), "launching is all: no share is faster"
    assert fit_line({1: 0.1, 3: 0.5}) == (0.0, pytest.approx(1.6 / 10)), "nothing takes less than no time"


@pytest.mark.parametrize("changes", [{}, {"losses.gan": 1.0, "model.discriminator.num_blocks": 2}])
def test_a_checkpoint_has_the_bytes_that_were_reckoned(tmp_path, changes):
    experiment = small_training("", changes)
    trainer = TrainStep(experiment, build_objective(experiment.model, experiment.losses), steps_per_epoch=1)
    size = experiment.data.size
    frames = torch.randint(256, (2, size, size, 3), dtype=torch.uint8)
    trainer({"source": frames, "driving": frames.flip(0)})
    sizes = training_sizes(experiment)
    trained = [parameter for parameter in trainer.objective.parameters() if parameter.requires_grad]
    assert sizes.num_parameters == sum(each.numel() for each in trained)
    assert sizes.gradient_bytes == sum(each.numel() * each.element_size() for each in trained)
    assert sizes.checkpoint_bytes == sum(tensor_bytes(trainer.state_dict()))
    written = write_checkpoint(tmp_path, trainer.state_dict(), step=1, keep=1) / STATE_NAME
    names = sum(1 for _ in tensor_bytes(trainer.state_dict()))
    assert 0 < written.stat().st_size - sizes.checkpoint_bytes < 700 * names


def tensor_bytes(state):
    """Of every tensor in nested dictionaries and lists."""
    if isinstance(state, torch.Tensor):
        yield state.numel() * state.element_size()
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from tensor_bytes(value)


def test_writing_is_measured_and_leaves_nothing(tmp_path):
    assert measure_writing(tmp_path) > 0
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return str(puppet_clips(tmp_path_factory.mktemp("plan"), num_clips=2, num_frames=8, size=32))


@pytest.fixture
def experiment(dataset, tmp_path, monkeypatch):
    keep_results_in(tmp_path / "results", monkeypatch)
    return small_training(dataset, {"data.size": 32})


def test_an_experiment_is_planned_from_its_dataset_and_from_steps_here(experiment):
    found = plan_experiment(experiment, (1, 2), Told())
    assert found.load.pairs_per_epoch == experiment.data.repeats * 2
    assert found.load.decoded_bytes == 2 * 32 * 32 * 3
    assert found.origins["training steps"].startswith("measured here on ")
    one, two = found.steps
    assert one.seconds > 0
    assert two.compute <= one.compute
    assert found.epoch_seconds(one) == steps_per_epoch(found.load, one) * one.seconds


def test_what_is_told_is_not_measured(experiment, monkeypatch):
    for name in ("measure_steps", "measure_decoding", "measure_writing"):
        monkeypatch.setattr(planned, name, None)
    told = Told(pairs_per_second=100, fixed_seconds=0.01, decode_pairs_per_cpu=500, write_mib_per_second=100)
    means = plan_experiment(experiment, (1,), told).means
    batch = experiment.optim.batch_size
    assert means.fixed_seconds + batch * means.pair_seconds == pytest.approx(batch / 100)
    assert means.decode_cpu_seconds == 1 / 500


@pytest.mark.parametrize(
    ("changes", "told", "line"),
    [
        (
            {"data.path": ""},
            Told(),
            "no dataset given; set data.path: --set data.path=DATASET, or say how many --clips",
        ),
        ({}, Told(clips=3), "has clips of its own; drop one"),
        ({}, Told(pairs_per_second=1000, fixed_seconds=1.0), "--fixed-ms 1000 is more than a whole step"),
        ({}, Told(fixed_seconds=1.0), "--fixed-ms needs --pairs-per-second"),
    ],
)
def test_what_does_not_fit_together_is_one_line(experiment, changes, told, line):
    with pytest.raises(InputError, match=line):
        plan_experiment(override(experiment, changes), (1,), told)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model.family": "moon"}, "model.family=moon; there are hdam, regionmm"),
        ({"model.detector.scale": 0.3}, "scale=0.3 of a downsampled image"),
        ({"optim.betas": [1, 1]}, "Invalid beta parameter"),
        ({"data.size": 36}, "an hourglass of"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_one_line(experiment, changes, reason):
    with pytest.raises(
        InputError, match=rf"^these settings of model\.\*, losses\.\* and optim\.\* do not work.*{reason}"
    ):
        training_sizes(override(experiment, changes))


def test_a_network_that_needs_numbers_is_sized_too(experiment, monkeypatch):
    forward = MotionModel.forward

    def looking(self, source, driving, *arguments, **options):
        assert source.sum().item() == 0.0
        return forward(self, source, driving, *arguments, **options)

    before = training_sizes(experiment)
    monkeypatch.setattr(MotionModel, "forward", looking)
    assert training_sizes(experiment) == before


def run_out_of_memory(monkeypatch, *, largest):
    """The device's memory holds so many pairs; a GPU that is too small cannot be had here."""
    seconds = measure._step_seconds

    def limited(trainer, share):
        if share > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nSee the documentation")
        return seconds(trainer, share)

    monkeypatch.setattr(measure, "_step_seconds", limited)


def test_what_fits_in_memory_is_measured(experiment, monkeypatch):
    run_out_of_memory(monkeypatch, largest=2)
    assert list(measure.measure_steps(experiment).by_share) == [1, 2]
    run_out_of_memory(monkeypatch, largest=0)
    with pytest.raises(
        InputError, match=r"single pair.*size=32 \(CUDA out of .* 20 MiB\.\); tell the speed: --pairs-per"
    ):
        plan_experiment(experiment, (1,), Told(decode_pairs_per_cpu=500, write_mib_per_second=100))


@pytest.mark.parametrize("name", ["file", "file/results"])
@pytest.mark.parametrize("changes", [{}, {"data.path": ""}])
def test_results_that_cannot_be_written_are_one_line(experiment, tmp_path, monkeypatch, name, changes):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HDAM_RESULTS", str(tmp_path / name))
    told = Told(clips=3 if changes else None, pairs_per_second=100, decode_pairs_per_cpu=500)
    with pytest.raises(InputError, match=rf"no results can be kept in {tmp_path / name} \(.+\); set HDAM_RESULTS"):
        plan_experiment(override(experiment, changes), (1,), told)


def plan(*arguments):
    quick = ("--pairs-per-second", "100", "--decode-pairs-per-cpu", "500", "--write-mib", "100")
    return CliRunner().invoke(app, ["plan", "quickstart.yaml", *quick, *arguments])


def test_the_command_prints_a_table_or_json(experiment, dataset):
    data = ("--set", f"data.path={dataset}", "--set", "data.size=32")
    done = plan(*data, "--gpus", "1", "--gpus", "64")
    assert done.exit_code == 0, done.output
    assert "64 workers with 64, which is another recipe" in done.output
    assert "Limited by" in done.output
    rows = json.loads(plan(*data, "--json").stdout)["plans"]
    assert [row["workers"] for row in rows] == [1, 4, 8, 64]
    assert plan("--gpus", "0").exit_code == 2
    assert "no dataset given" in plan().stderr
