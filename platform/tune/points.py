"""Which settings are tried: all combinations, some drawn at random, or some drawn where results were good.

The point of a number does not depend on how many there are, nor on when it is asked for (but for what was found until
then): a sweep can be extended, and goes on after it was killed.
"""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hdam.experiments.sweep import Range
from hdam.experiments.sweep_loading import EXPERIMENT, LoadedSweep

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Point = dict[str, Any]
"""Settings by dotted name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What is known about a point."""

    point: Point
    value: float | None
    """Of the metric; None while it is not known."""
    history: tuple[tuple[int, float], ...] = ()
    """What was watched until it was stopped early; empty where it was not stopped."""


def search_space(loaded: LoadedSweep) -> dict[str, Range]:
    """Everything that is varied, by name; the experiment among it, where there are several."""
    names = tuple(loaded.experiments)
    several = {EXPERIMENT: Range(grid=names)} if len(names) > 1 else {}
    return several | dict(loaded.sweep.search)


def num_points(loaded: LoadedSweep, num_trials: int | None) -> int:
    """How many combinations are tried, where so many are asked for (None: as the sweep says)."""
    asked = num_trials or loaded.sweep.num_trials
    if loaded.sweep.algorithm == "grid":
        size = math.prod(len(values.values or ()) for values in search_space(loaded).values())
        return min(size, asked or size)
    assert asked is not None, "a sweep without an end is refused when it is read"
    return asked


def point_at(loaded: LoadedSweep, index: int, told: Sequence[Told] = ()) -> Point:
    """The settings of a point; `told` is what was found until now, for algorithms that learn from it."""
    sweep, space = loaded.sweep, search_space(loaded)
    if sweep.algorithm == "grid":
        combinations = itertools.product(*(values.values or () for values in space.values()))
        return dict(zip(space, next(itertools.islice(combinations, index, None)), strict=True))
    if sweep.algorithm == "optuna":
        return _ask(space, told, seed=sweep.seed + index, is_low_good=sweep.mode == "min")
    return random_point(space, seed=f"{sweep.seed}/{index}")


def random_point(space: dict[str, Range], *, seed: str) -> Point:
    """A point drawn from the whole space."""
    rng = random.Random(seed)
    return {name: _draw(values, rng) for name, values in space.items()}


def is_learning(loaded: LoadedSweep) -> bool:
    """Whether points depend on what was found before, so that none is known in advance."""
    return loaded.sweep.algorithm == "optuna"


def _draw(values: Range, rng: random.Random) -> Any:
    if values.values is not None:
        return rng.choice(values.values)
    if values.integer is not None:
        return rng.randint(*values.integer)
    if values.loguniform is not None:
        return math.exp(rng.uniform(*map(math.log, values.loguniform)))
    assert values.uniform is not None, "a range has one of its keys"
    return rng.uniform(*values.uniform)


def _ask(space: dict[str, Range], told: Sequence[Told], *, seed: int, is_low_good: bool) -> Point:
    """Optuna's tree-structured Parzen estimator, told anew of everything, so that it has nothing to remember."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: distribution_of(values) for name, values in space.items()}
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(3, len(space)), constant_liar=True)
    study = optuna.create_study(sampler=sampler, direction="minimize" if is_low_good else "maximize")
    for each in told:
        # Values that are listed are told by their place, since Optuna takes no lists and no durations.
        params = {name: place_of(space[name], value) for name, value in each.point.items()}
        states = optuna.trial.TrialState
        unfinished = states.PRUNED if each.history else states.RUNNING
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=distributions,
                value=each.value,
                state=unfinished if each.value is None else states.COMPLETE,
                intermediate_values=dict(each.history),
            )
        )
    asked = study.ask(distributions).params
    return {name: _value(space[name], value) for name, value in asked.items()}


def distribution_of(values: Range) -> "BaseDistribution":
    """Optuna's; where values are listed, of their places."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if values.values is not None:
        return CategoricalDistribution(range(len(values.values)))
    if values.integer is not None:
        return IntDistribution(*values.integer)
    low, high = values.loguniform or values.uniform  # type: ignore[misc]
    return FloatDistribution(low, high, log=values.loguniform is not None)


def place_of(values: Range, value: Any) -> Any:
    """The value as `distribution_of` has it."""
    return value if values.values is None else values.values.index(value)


def _value(values: Range, place: Any) -> Any:
    return place if values.values is None else values.values[place]
