"""From a sweep's YAML file to a `Sweep` and the experiments that it varies; every mistake is one clear line."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hdam.experiments.experiment import Experiment
from hdam.experiments.loading import SHIPPED, first_problem, is_sweep, load_experiment, override, read_with_bases
from hdam.experiments.sweep import OWN, Sweep
from hdam.pipelines.errors import InputError

EXPERIMENT = "experiment"
"""Name of the setting that stands for the file, where a sweep compares several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedSweep:
    """A sweep whose settings are known to be taken by its experiments."""

    sweep: Sweep
    experiments: Mapping[str, Experiment]
    """By the stem of their file; each has the sweep's name, under which MLflow shows the trials."""

    def experiment(self, settings: Mapping[str, Any], *, seed: int) -> Experiment:
        """The experiment of a trial. Raises InputError where its settings contradict each other."""
        resources = {f"resources.{key}": value for key, value in self.sweep.resources.items()}
        return override(self.experiment_at_full(settings, seed=seed), resources)

    def experiment_at_full(self, settings: Mapping[str, Any], *, seed: int) -> Experiment:
        """The same with all resources of the experiment, for what no trial is at work beside. Raises InputError."""
        changes = {name: value for name, value in settings.items() if name != EXPERIMENT}
        return override(self.experiments[self.name_of(settings)], {**changes, "seed": seed})

    def name_of(self, settings: Mapping[str, Any]) -> str:
        """Which of the experiments a trial is one of."""
        return str(settings.get(EXPERIMENT, next(iter(self.experiments))))


def load_sweep(path: Path | str, overrides: Mapping[str, Any] | None = None) -> LoadedSweep:
    """Read a sweep; `overrides` by dotted name change all its experiments, and its `resources`.

    Raises InputError with one line for what is no sweep, for an unknown key, and for a setting that is no experiment's
    or does not take the values that are searched.
    """
    path = Path(path)
    settings = read_with_bases(path)
    if not is_sweep(settings):
        raise InputError(
            f"{path} is an experiment, not a sweep: hdam train takes it; a sweep names an experiment under `experiment`"
        )
    try:
        sweep = Sweep.model_validate(settings)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from error
    overrides = overrides or {}
    _check_overrides(overrides, sweep, path)
    resources = {name: value for name, value in sweep.resources.items() if f"resources.{name}" not in overrides}
    sweep = sweep.model_copy(update={"resources": resources})
    experiments = {Path(name).stem: _load(path, name, sweep, overrides) for name in sweep.files}
    if len(experiments) < len(sweep.files):
        raise InputError(f"{path}: experiment: {list(sweep.files)} has two of the same name")
    loaded = LoadedSweep(sweep=sweep, experiments=experiments)
    _check_values(loaded, path)
    return loaded


def _check_overrides(overrides: Mapping[str, Any], sweep: Sweep, path: Path) -> None:
    """Whether they can change anything."""
    for name in overrides:
        if name in OWN:
            raise InputError(f"--set {name}: {OWN[name]}, in {path}")
        if name in sweep.search:
            raise InputError(f"--set {name}: {path} searches it; change the values there, under `search`")


def find_beside(path: Path, name: str) -> Path:
    """The file of an experiment that the sweep at `path` names: beside it, or shipped. Raises InputError."""
    beside = path.parent / name
    file = beside if beside.is_file() else SHIPPED / name
    if not file.is_file():
        raise InputError(f"{path}: experiment: {name}: no such file, neither beside it nor among the shipped ones")
    return file


def _load(path: Path, name: str, sweep: Sweep, overrides: Mapping[str, Any]) -> Experiment:
    experiment = load_experiment(find_beside(path, name))
    try:
        experiment = override(experiment, sweep.changes)
    except InputError as error:
        raise InputError(f"{path}: set: {_plain(error)}") from error
    return override(experiment, {**overrides, "name": sweep.name, "question": sweep.question})


def _check_values(loaded: LoadedSweep, path: Path) -> None:
    """Whether every value that is searched is one of its setting: each by itself, the others as in the experiment."""
    for name, settings in _examples(loaded):
        try:
            loaded.experiment(settings, seed=loaded.sweep.seeds[0])
        except InputError as error:
            raise InputError(f"{path}: {name}: {_plain(error)}") from error


def _examples(loaded: LoadedSweep) -> Iterator[tuple[str, dict[str, Any]]]:
    for experiment in loaded.experiments:
        own = {EXPERIMENT: experiment}
        yield f"resources, with {experiment}", own
        for name, values in loaded.sweep.search.items():
            yield from ((f"search.{name}", {**own, name: value}) for value in values.examples)


def _plain(error: InputError) -> str:
    """Without the command line, where the setting is not from."""
    return str(error).removeprefix("--set ")
