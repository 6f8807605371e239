"""Which clips are shown: where the models do best, where they do worst, and where they differ most."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hdam.pipelines.errors import InputError
from hdam.platform.compare.entrants import Entrant
from hdam.platform.compare.scores import protocols_of
from hdam.platform.evaluation.metrics import METRICS, Metric, Protocol

NUM_BEST = NUM_WORST = 2
DEFAULT_METRICS = ("l1", "warp_error")
"""The first of them that was measured, where none is named."""

ByClip = Mapping[str, tuple[float, ...]]
"""One number for each model, by clip id; only clips that all of them have."""


class Shown(NamedTuple):
    """A clip that is shown."""

    clip_id: str
    reason: str


class Choice(NamedTuple):
    """What clips are chosen by."""

    protocol: Protocol
    metric: Metric


def check_metric(name: str, *, protocols: Sequence[Protocol], metrics: Sequence[str] = ()) -> None:
    """InputError for the name of no metric, and of one that will not be measured; no `metrics` are all of them."""
    if name not in METRICS:
        raise InputError(f"--by {name}: no such metric; there are {', '.join(METRICS)}")
    if not set(METRICS[name].protocols).intersection(protocols):
        raise InputError(f"--by {name}: --protocol {' '.join(protocols)} does not have it")
    if metrics and name not in metrics:
        raise InputError(f"--by {name}: it is not among --metrics {','.join(metrics)}")


def choose_metric(entrants: Sequence[Entrant], name: str | None) -> Choice:
    """The metric `name`, None: the first of the usual ones that all models have, and the protocol it was measured by.

    Raises InputError where not all models have it.
    """
    measured: dict[str, Protocol] = {}
    for protocol in protocols_of(entrants):
        for each in METRICS:
            if each not in measured and by_clip(entrants, protocol, each):
                measured[each] = protocol
    if not measured:
        raise InputError("the evaluations have no metric in common; evaluate all models by the same ones")
    if name is not None and name not in measured:
        raise InputError(f"--by {name}: it was not measured for all models; there are {', '.join(measured)}")
    chosen = name or next(each for each in (*DEFAULT_METRICS, *measured) if each in measured)
    return Choice(measured[chosen], METRICS[chosen])


def by_clip(entrants: Sequence[Entrant], protocol: Protocol, name: str) -> dict[str, tuple[float, ...]]:
    """The models' means of a metric for every clip of which all have one."""
    sides = [each.clips.get(protocol, {}) for each in entrants]
    found = {}
    for clip_id in sorted(set.intersection(*map(set, sides))):
        values = [side[clip_id].means.get(name) for side in sides]
        numbers = [value for value in values if value is not None and math.isfinite(value)]
        if len(numbers) == len(entrants):
            found[clip_id] = tuple(numbers)
    return found


def choose_clips(values: ByClip, metric: Metric) -> list[Shown]:
    """The clips with the best and the worst mean over the models, and that with the largest difference between two.

    None is there twice; where clips are few, all are.
    """
    sign = 1 if metric.better == "lower" else -1
    ranked = sorted(values, key=lambda clip_id: (sign * sum(values[clip_id]), clip_id))
    best = ranked[:NUM_BEST]
    rest = ranked[NUM_BEST:]
    worst = rest[max(0, len(rest) - NUM_WORST) :][::-1]
    middle = [clip_id for clip_id in rest if clip_id not in worst]
    apart = sorted(middle, key=lambda clip_id: (min(values[clip_id]) - max(values[clip_id]), clip_id))[:1]
    return [
        *(Shown(clip_id, _rank("best", number)) for number, clip_id in enumerate(best)),
        *(Shown(clip_id, _rank("worst", number)) for number, clip_id in enumerate(worst)),
        *(Shown(clip_id, "largest difference between models") for clip_id in apart),
    ]


def _rank(word: str, number: int) -> str:
    return word if number == 0 else f"second {word}"
