"""`hdam plan`: from an experiment and what was measured or told to steps, epochs and their limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from hdam.experiments.experiment import Experiment
from hdam.experiments.loading import override
from hdam.models.weights import WeightsError
from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.filesystems import is_local, locate
from hdam.pipelines.manifest import load_manifest
from hdam.platform import tracking
from hdam.platform.bench.clips import puppet_clips
from hdam.platform.datasets import open_dataset
from hdam.platform.pair_plan import PairPlan, make_plan
from hdam.platform.planning.formula import Load, Means, Step, plan_step, steps_per_epoch
from hdam.platform.planning.measure import bytes_read, measure_decoding, measure_steps, measure_writing
from hdam.platform.planning.sizes import Sizes, training_sizes
from hdam.platform.stages import plan_stages, with_absolute_paths
from hdam.platform.tune.cost import measured_speed

CHANNELS = 3
FRAMES = 2
"""Of a pair."""
STAND_IN_CLIPS, STAND_IN_FRAMES, STAND_IN_REPEATS = 8, 48, 150
"""Puppets that stand in for a dataset that is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What is taken as told instead of measured; None is measured."""

    clips: int | None = None
    """Training clips, or identities with `data.identity`, where there is no dataset."""
    pairs_per_second: float | None = None
    """Of one worker that trains on the whole batch."""
    fixed_seconds: float = 0.0
    """Of its step, what does not shrink with its share of the batch."""
    decode_pairs_per_cpu: float | None = None
    write_mib_per_second: float | None = None
    link_gbit: float = 10.0
    overlap: float = 0.0
    shared_cpus: float | None = None
    is_measured_anew: bool = False
    """Measure steps here, though an earlier training would tell."""


class Planned(NamedTuple):
    """What `hdam plan` found."""

    experiment: Experiment
    variant: str
    """The model whose own training is planned."""
    sizes: Sizes
    stored_bytes: float
    """Of the two frames of a pair on disk."""
    load: Load
    means: Means
    steps: tuple[Step, ...]
    origins: dict[str, str]
    """Where the figures come from."""

    def epoch_seconds(self, step: Step) -> float:
        """Of a whole pass."""
        return steps_per_epoch(self.load, step) * step.seconds

    def training_seconds(self, step: Step) -> float:
        """Of the whole training."""
        return self.experiment.optim.duration.steps(steps_per_epoch(self.load, step)) * step.seconds


def plan_experiment(experiment: Experiment, workers: Sequence[int], told: Told) -> Planned:
    """Plan the training of the experiment's model on each number of workers.

    Raises InputError where neither a dataset nor a number of clips is given, where settings or what is told do not fit
    together, where a step can't be measured here, and where the results folder can't be written.
    """
    own = with_absolute_paths(override(experiment, {"model.has_avd": False}))
    sizes = training_sizes(own)
    plan, pairs_per_epoch, dataset = _open(own, told)
    origins = {"dataset": dataset}
    fixed, pair, origins["training steps"] = _training_speed(own, told)
    decode, origins["decoding"] = _decoding(plan, own, told)
    write, origins["writing"] = _writing(told)
    counts = load_manifest(plan.dataset).counts
    stored = FRAMES * counts.num_bytes / counts.frames
    load = Load(
        batch_size=own.optim.batch_size,
        pairs_per_epoch=pairs_per_epoch,
        # Of a stand-in, how its few rows are read says nothing.
        read_bytes=bytes_read(plan, own) if own.data.path else stored,
        decoded_bytes=float(FRAMES * own.data.size**2 * CHANNELS),
        gradient_bytes=sizes.gradient_bytes,
        checkpoint_bytes=sizes.checkpoint_bytes,
        checkpoint_every=own.log.checkpoint_every,
        is_remote=not is_local(locate(plan.dataset)[0]),
    )
    means = Means(
        fixed_seconds=fixed,
        pair_seconds=pair,
        decode_cpu_seconds=decode,
        data_cpus=own.resources.data_cpus,
        link_gbit=told.link_gbit,
        write_bytes_per_second=write,
        overlap=told.overlap,
        shared_cpus=told.shared_cpus,
    )
    return Planned(
        experiment=own,
        variant=own.model.variant,
        sizes=sizes,
        stored_bytes=stored,
        load=load,
        means=means,
        steps=tuple(plan_step(load, means, workers=number) for number in workers),
        origins=origins,
    )


def _open(experiment: Experiment, told: Told) -> tuple[PairPlan, int, str]:
    """The order of pairs, how many an epoch has, and of which dataset."""
    if experiment.data.path:
        if told.clips is not None:
            raise InputError(
                f"--clips {told.clips}, but data.path={experiment.data.path} has clips of its own; drop one"
            )
        plan = _pair_plan(experiment)
        return plan, plan.pairs_per_epoch, experiment.data.path
    if told.clips is None:
        raise InputError(
            "no dataset given; set data.path: --set data.path=DATASET, or say how many --clips one will have"
        )
    size = experiment.data.size
    with tracking.keeping_results() as folder:
        puppets = puppet_clips(folder / "bench", num_clips=STAND_IN_CLIPS, num_frames=STAND_IN_FRAMES, size=size)
    changes = {"data.path": str(puppets), "data.repeats": STAND_IN_REPEATS, "data.identity": False}
    pairs_per_epoch = experiment.data.repeats * told.clips
    return _pair_plan(override(experiment, changes)), pairs_per_epoch, f"{told.clips} clips as told; puppets stand in"


def _pair_plan(experiment: Experiment) -> PairPlan:
    manifest = open_dataset(experiment.data)
    return make_plan(experiment.data, manifest, batch_size=experiment.optim.batch_size, seed=experiment.seed)


def _training_speed(experiment: Experiment, told: Told) -> tuple[float, float, str]:
    """Fixed seconds of a step, those for every pair, and where they come from."""
    batch = experiment.optim.batch_size
    if told.pairs_per_second is not None:
        whole = batch / told.pairs_per_second
        if told.fixed_seconds > whole:
            raise InputError(
                f"--fixed-ms {1000 * told.fixed_seconds:g} is more than a whole step of {batch} pairs at "
                f"--pairs-per-second {told.pairs_per_second:g}, {1000 * whole:.3g} ms; make them agree"
            )
        return told.fixed_seconds, (whole - told.fixed_seconds) / batch, "as told"
    if told.fixed_seconds:
        raise InputError("--fixed-ms needs --pairs-per-second: what is measured here brings its own")
    if not told.is_measured_anew and (known := _earlier_training(experiment)):
        return known
    try:
        found = measure_steps(experiment)
    except WeightsError as error:
        raise InputError(f"{error}; or tell the speed: --pairs-per-second X") from error
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"no step of a single pair fits in here at data.size={experiment.data.size} ({first_line(error)}); "
            "tell the speed: --pairs-per-second X"
        ) from error
    shares = ", ".join(f"{share} pairs {1000 * seconds:.0f} ms" for share, seconds in found.by_share.items())
    return found.fixed_seconds, found.pair_seconds, f"measured here on {found.device}: {shares}"


def _earlier_training(experiment: Experiment) -> tuple[float, float, str] | None:
    """From the newest training of this kind at this size; how much of its steps is fixed, one speed does not tell."""
    stage = next(stage for stage in plan_stages(experiment, "") if stage.kind == experiment.model.variant)
    speed = measured_speed(stage)
    if speed is None:
        return None
    workers = "1 worker" if speed.workers == 1 else f"{speed.workers} workers"
    origin = f"{speed.pairs_per_second:.1f} pairs/s by {workers} of {Path(speed.folder).name}"
    return 0.0, speed.workers / speed.pairs_per_second, origin


def _decoding(plan: PairPlan, experiment: Experiment, told: Told) -> tuple[float, str]:
    """CPU seconds for a pair."""
    if told.decode_pairs_per_cpu is not None:
        return 1 / told.decode_pairs_per_cpu, "as told"
    seconds = measure_decoding(plan, experiment)
    return seconds, f"measured here: {1 / seconds:.0f} pairs for a CPU second"


def _writing(told: Told) -> tuple[float, str]:
    """Bytes in a second."""
    if told.write_mib_per_second is not None:
        return told.write_mib_per_second * 2**20, "as told"
    with tracking.keeping_results() as folder:
        speed = measure_writing(folder)
    return speed, f"measured in {folder}: {speed / 2**20:.0f} MiB/s"
