"""Where the values of a setting stand on an axis: by size, by order of magnitude, or side by side."""

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from matplotlib.ticker import LogLocator, MaxNLocator

from hdam.experiments.sweep import Range
from hdam.platform.tune.report import rounded

MANY_MAGNITUDES = 20
"""How many times the lowest value the highest has to be, for a logarithmic axis."""
LEAST_GAP = 0.08
"""Of the axis: ticks that are nearer would be written over each other."""
MOST_LISTED = 12
"""Values with a tick of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """An axis from 0 to 1."""

    kind: Literal["linear", "log", "listed"]
    """`listed` values stand side by side, at the same distances."""
    low: float
    high: float
    values: tuple[Any, ...] = ()
    """Those that are listed, or have a tick of their own."""
    ticks: tuple[tuple[float, str], ...] = ()
    """Place and label."""

    def place(self, value: Any) -> float:
        """Between 0 and 1."""
        if self.kind == "listed":
            return _share(self.values.index(value), 0, len(self.values) - 1)
        if self.kind == "log":
            return _share(math.log(value), math.log(self.low), math.log(self.high))
        return _share(value, self.low, self.high)


def scale_of(values: Iterable[Any], space: Range | None = None) -> Scale:
    """An axis for these values of a setting that takes `space`, or (None) of a metric."""
    listed = _listed(space)
    distinct = _distinct([*(listed or ()), *values])
    if not distinct or not all(map(_is_number, distinct)):
        return _side_by_side(distinct)
    low, high = min(distinct), max(distinct)
    drawn_by_magnitude = space is not None and space.loguniform is not None
    listed_by_magnitude = listed is not None and low > 0 and high / low >= MANY_MAGNITUDES
    kind: Literal["linear", "log"] = "log" if drawn_by_magnitude or listed_by_magnitude else "linear"
    scale = Scale(kind=kind, low=low, high=high)
    if listed is not None and len(distinct) <= MOST_LISTED:
        ordered = tuple(sorted(distinct))
        places = [scale.place(value) for value in ordered]
        if any(after - before < LEAST_GAP for before, after in pairwise(places)):
            return _side_by_side(ordered)
        ticks = tuple(zip(places, map(rounded, ordered), strict=True))
        return Scale(kind=kind, low=low, high=high, values=ordered, ticks=ticks)
    ticks = tuple((scale.place(tick), rounded(tick)) for tick in _round_values(scale, distinct))
    return Scale(kind=kind, low=low, high=high, ticks=ticks)


def wrapped(name: str, width: int) -> str:
    """A name in lines of so many letters, broken where its words end."""
    parts = re.sub(r"([_/]|\.(?=[a-z]))(?=\S)", r"\1 ", name)
    lines = textwrap.wrap(parts, max(width, 4))
    return "\n".join(re.sub(r"([_/]|\.) (?=\S)", r"\1", line) for line in lines)


def _listed(space: Range | None) -> Sequence[Any] | None:
    """All values that there are, where they are few."""
    if space is not None and space.integer is not None:
        low, high = space.integer
        return range(low, high + 1) if high - low < MOST_LISTED else None
    return space.values if space is not None else None


def _side_by_side(values: Sequence[Any]) -> Scale:
    scale = Scale(kind="listed", low=0, high=1, values=tuple(values))
    ticks = tuple((scale.place(value), rounded(value)) for value in values)
    return Scale(kind="listed", low=0, high=1, values=scale.values, ticks=ticks)


def _distinct(values: Iterable[Any]) -> list[Any]:
    """In their order; lists, which have no hash, among them. True is not 1 here."""
    found: list[Any] = []
    for value in values:
        if not any(type(value) is type(each) and value == each for each in found) and not (
            _is_number(value) and any(_is_number(each) and value == each for each in found)
        ):
            found.append(value)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _round_values(scale: Scale, values: Sequence[float]) -> list[float]:
    """Some that are easily read, within the axis."""
    if scale.low == scale.high:
        return [scale.low]
    within: list[float] = []
    if scale.kind == "log":
        for subs in ((1,), (1, 3), (1, 2, 5)):
            ticks = LogLocator(subs=subs, numticks=6).tick_values(scale.low, scale.high)
            within = [float(tick) for tick in ticks if scale.low <= tick <= scale.high]
            if len(within) > 1:
                return within
    whole = all(isinstance(value, int) for value in values)
    ticks = MaxNLocator(nbins=4, integer=whole).tick_values(scale.low, scale.high)
    return [float(tick) for tick in ticks if scale.low <= tick <= scale.high] or within
