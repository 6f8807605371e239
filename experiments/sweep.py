"""One sweep: a question that takes many trainings, the settings that are searched, and how the search goes about it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from hdam.experiments.experiment import Section

OWN = {
    "seed": "every combination is repeated over the sweep's `seeds`; list them there",
    "name": "trials go by the name of the sweep",
    "question": "trials share the sweep's question",
}
"""Settings of an experiment that are the sweep's to say, and why no other part of it may."""
RATIO = "test/ratio"
"""Reconstruction of the held-out clips in units of repeating the source frame."""


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4, without a dot, as a word."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Bound = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Value = Annotated[Any, BeforeValidator(_number)]


class Range(Section):
    """The values that one setting may take: one of the five keys."""

    grid: tuple[Value, ...] | None = None
    """Every one of them is tried."""
    choice: tuple[Value, ...] | None = None
    """Some of them are tried, at random or as the search finds best."""
    uniform: tuple[Bound, Bound] | None = None
    loguniform: tuple[Bound, Bound] | None = None
    integer: Annotated[tuple[int, int] | None, Field(alias="int")] = None
    """Both ends included."""

    @model_validator(mode="after")
    def _is_one(self) -> "Range":
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of grid, choice, uniform, loguniform, int; found {len(given)} of them")
        if self.values is not None and not self.values:
            raise ValueError(f"{given[0]} is empty; give the values to try")
        twice = [value for index, value in enumerate(self.values or ()) if value in self.examples[:index]]
        if twice:
            raise ValueError(f"{given[0]} has {twice[0]} twice")
        if (bounds := self.bounds) is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"{given[0]} goes from {bounds[0]:g} to {bounds[1]:g}; the first has to be the lower one")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform begins at {self.loguniform[0]:g}; it has to be above 0")
        return self

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All that there are; None where there are too many to list."""
        return self.grid if self.grid is not None else self.choice

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest; None where values are listed."""
        return self.uniform or self.loguniform or self.integer

    @property
    def examples(self) -> tuple[Any, ...]:
        """Some values that show whether the setting takes them, and what depends on it."""
        return self.values or self.bounds or ()


class Sweep(Section):
    """One question that takes many trainings."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    question: str
    experiment: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """YAML file of the experiment that is varied, beside this file or a shipped one; several are compared."""
    changes: Annotated[Mapping[str, Value], Field(alias="set")] = {}
    """Settings of all trials by dotted name, other than in the experiment."""
    search: Mapping[str, Range] = {}
    """What is searched, by dotted name."""
    algorithm: Literal["grid", "random", "optuna"] = "grid"
    """`grid` tries all combinations, `random` draws them, `optuna` draws them where results were good (TPE)."""
    scheduler: Literal["none", "asha", "median", "pbt"] = "none"
    """What stops trials early (`asha`, and `median` from the third trial on), or lets them take over each other's
    weights (`pbt`)."""
    grace: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the training before which no trial is stopped; with `pbt`, what lies between two exchanges."""
    metric: Annotated[str, Field(pattern=r"^(test|held_out|loss)/\w+$")] = RATIO
    """What decides between finished trials: a metric under the name that MLflow shows."""
    watched: Annotated[str, Field(pattern=r"^(held_out|loss)/\w+$")] = "held_out/ratio"
    """What the scheduler looks at while a trial trains, at every checkpoint but the last."""
    mode: Literal["min", "max"] = "min"
    """Whether low or high values are good, of both metrics."""
    num_trials: PositiveInt | None = None
    """Combinations that are tried, each once for every seed; absent with `grid`, which tries all."""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    """Every combination is trained with each of these, so that the report can tell a difference from chance."""
    seed: NonNegativeInt = 0
    """Decides what the search draws."""
    concurrency: PositiveInt = 1
    """Trials at a time."""
    resources: Mapping[str, Value] = {}
    """What a trial takes of the cluster, where it differs from the experiment's `resources`; stages that trials share
    are done before them, with all of the experiment's."""

    @property
    def files(self) -> tuple[str, ...]:
        """All experiments."""
        return (self.experiment,) if isinstance(self.experiment, str) else self.experiment

    @model_validator(mode="after")
    def _can_be_searched(self) -> "Sweep":
        if self.algorithm == "grid":
            endless = [name for name, values in self.search.items() if values.values is None]
            if endless:
                raise ValueError(f"search.{endless[0]} has no end for algorithm: grid; use grid, or another algorithm")
        elif self.num_trials is None:
            raise ValueError(f"algorithm: {self.algorithm} goes on for ever; set num_trials")
        if not self.search and len(self.files) < 2:
            raise ValueError("nothing is varied; name settings under search, or several experiments")
        for section, names in (("search", self.search), ("set", self.changes)):
            for name in set(OWN) & set(names):
                raise ValueError(f"{section}.{name}: {OWN[name]}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)} has one twice")
        if both := sorted(set(self.search) & set(self.changes)):
            raise ValueError(f"{both[0]} is both searched and set")
        return self

    @model_validator(mode="after")
    def _can_exchange(self) -> "Sweep":
        if self.scheduler == "pbt" and (self.algorithm == "optuna" or len(self.files) > 1 or not self.search):
            raise ValueError(
                "scheduler: pbt changes the settings under `search` itself, of one experiment; "
                "use algorithm: random or grid for those it begins with"
            )
        return self
