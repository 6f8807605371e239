"""What a sweep is going to do, known before anything is written: its trials, and the stages that they share."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from hdam.experiments.experiment import ResourceConfig
from hdam.experiments.sweep_loading import LoadedSweep
from hdam.pipelines.errors import InputError
from hdam.platform.cluster import check_machine, machine_has
from hdam.platform.datasets import open_dataset
from hdam.platform.prepared import Prepared, losses_of, prepare_training
from hdam.platform.publishing import SCORES
from hdam.platform.stages import Stage, digest, plan_stages, related_settings, with_absolute_paths
from hdam.platform.tune.points import Point, is_learning, num_points, point_at, random_point, search_space

SAMPLES = 8
"""Points that show which stages depend on what is searched, where the points of the trials are not known yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTrial:
    """A trial that is known in advance."""

    point: int
    settings: Point
    seed: int
    stages: tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """Stages that several trials need, in the order of their work, and one of those trials."""

    trial: PlannedTrial
    stages: tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlan:
    """A sweep, checked."""

    loaded: LoadedSweep
    name: str
    """Of its folder."""
    prepared: Prepared
    """The experiment of the first trial."""
    num_points: int
    trials: tuple[PlannedTrial, ...]
    """Of a search that learns: some that it might try, for every seed."""
    shared: tuple[Shared, ...]
    is_learning: bool
    """Whether the trials depend on what is found."""

    @property
    def num_trials(self) -> int:
        """One for each combination and seed."""
        return self.num_points * len(self.loaded.sweep.seeds)

    @property
    def steps(self) -> int:
        """How long the model of the first trial is trained."""
        return self.prepared.num_steps(self.prepared.trained)


def plan_sweep(loaded: LoadedSweep, *, num_trials: int | None = None) -> SweepPlan:
    """Every check that needs no cluster; `num_trials` replaces the sweep's. Writes nothing.

    Raises InputError or WeightsError, for the machine too: it says how many trials at a time would fit.
    """
    sweep = loaded.sweep
    first = point_at(loaded, 0)
    prepared = prepare_training(loaded.experiment_at_full(first, seed=sweep.seeds[0]))
    _check_metric(loaded, prepared)
    count = num_points(loaded, num_trials)
    trials = tuple(_planned(loaded, _points(loaded, count)))
    for trial in trials:  # what is searched may be the workers, and experiments that are compared have their own
        check_fits(trial.stages[-1].experiment.resources, sweep.concurrency)
    return SweepPlan(
        loaded=loaded,
        name=f"{sweep.name}-{_key(loaded, prepared)}",
        prepared=prepared,
        num_points=count,
        trials=trials,
        shared=tuple(_shared(loaded, trials)),
        is_learning=is_learning(loaded),
    )


def check_fits(resources: ResourceConfig, concurrency: int) -> None:
    """Whether so many trials fit; Ray would wait for ever. Raises InputError that says how many do."""
    check_machine(resources)
    machine = machine_has()
    if machine is None:
        return
    workers = resources.fewest_workers
    needs = {
        "CPU": workers * resources.cpus_per_worker + resources.data_cpus,
        "GPU": workers * resources.gpus_per_worker,
    }
    for kind, has in (("CPU", machine.cpus), ("GPU", machine.gpus)):
        if concurrency * needs[kind] > has:
            together = f"{needs[kind]:g} {kind}s each, together {concurrency * needs[kind]:g}"
            advice = f"concurrency: {int(has / needs[kind])} fits, or lower resources.workers of the sweep"
            raise InputError(f"concurrency={concurrency} trials need {together}; this machine has {has:g}; {advice}")


def _points(loaded: LoadedSweep, count: int) -> list[Point]:
    if not is_learning(loaded):
        return [point_at(loaded, index) for index in range(count)]
    space = search_space(loaded)
    return [random_point(space, seed=f"sample/{index}") for index in range(SAMPLES)]


def _planned(loaded: LoadedSweep, points: Sequence[Point]) -> Iterator[PlannedTrial]:
    for index, point in enumerate(points):
        for seed in loaded.sweep.seeds:
            yield PlannedTrial(point=index, settings=point, seed=seed, stages=_stages(loaded, point, seed))


def _stages(loaded: LoadedSweep, point: Point, seed: int) -> tuple[Stage, ...]:
    try:
        experiment = loaded.experiment(point, seed=seed)
    except InputError as error:
        raise InputError(f"{', '.join(f'{name}={value}' for name, value in point.items())}: {error}") from error
    return plan_stages(with_absolute_paths(experiment), open_dataset(experiment.data).fingerprint)


def _shared(loaded: LoadedSweep, trials: Sequence[PlannedTrial]) -> Iterator[Shared]:
    """What is done before the trials. Inputs of a stage count in its key, so that they are shared where it is."""
    counts = Counter(stage.name for trial in trials for stage in trial.stages)
    needed = Counter((loaded.name_of(trial.settings), trial.seed) for trial in trials)
    done: set[str] = set()
    for trial in trials:
        # Of a search that learns, not even its own samples will be tried: what depends on the point is left to it.
        least = needed[loaded.name_of(trial.settings), trial.seed] if is_learning(loaded) else 2
        stages = _before_model(trial.stages) if loaded.sweep.scheduler == "pbt" else trial.stages
        prefix = tuple(takewhile(lambda stage, least=least: counts[stage.name] >= least, stages))  # type: ignore[misc]
        if {stage.name for stage in prefix} - done:
            yield Shared(trial=trial, stages=prefix)
            done |= {stage.name for stage in prefix}


def _before_model(stages: Sequence[Stage]) -> Sequence[Stage]:
    """Without the training that makes the model, which every member of a population has for itself."""
    trainings = [index for index, stage in enumerate(stages) if stage.is_training]
    return stages[: trainings[-1]]


def _check_metric(loaded: LoadedSweep, prepared: Prepared) -> None:
    metric = loaded.sweep.metric
    if metric.startswith("test/") and metric not in SCORES:
        raise InputError(f"metric: {metric} is none of the evaluation; it has {', '.join(SCORES)}")
    if metric.startswith("test/") and not prepared.has_test_clips:
        raise InputError(
            f"metric: {metric} needs held-out clips, and {prepared.manifest.name} has none; prepare with "
            "--test-share, or decide by held_out/ratio"
        )
    for name in dict.fromkeys((metric, loaded.sweep.watched)):
        if name.startswith("loss/"):
            _check_loss(loaded, name)
        if name.startswith("held_out/") and name not in ("held_out/l1", "held_out/ratio"):
            raise InputError(f"{name}: no such score of held-out pairs; there are held_out/l1 and held_out/ratio")


def _check_loss(loaded: LoadedSweep, name: str) -> None:
    """Whether the trials log the loss: those of every experiment have to, or they could not be compared."""
    for stem, experiment in loaded.experiments.items():
        trained = plan_stages(with_absolute_paths(experiment), "")[-1].experiment
        logged = [f"loss/{loss}" for loss in losses_of(trained)]
        if name not in logged:
            raise InputError(f"{name}: the training of {stem} logs no such loss; it logs {', '.join(logged)}")


def _key(loaded: LoadedSweep, prepared: Prepared) -> str:
    """Of what is asked: another number of trials, or of trials at a time, is the same sweep."""
    apart = {"name", "question", "experiment", "changes", "num_trials", "concurrency", "resources"}
    asked = loaded.sweep.model_dump(mode="json", exclude=apart)
    experiments = [related_settings(with_absolute_paths(each)) for each in loaded.experiments.values()]
    return digest([asked, experiments, list(loaded.experiments), prepared.manifest.name, prepared.manifest.fingerprint])
