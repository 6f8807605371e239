"""What is compared: for every metric each model's mean with its interval, and the differences between models."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from hdam.platform.compare.bootstrap import (
    LEAST_CLIPS,
    Interval,
    difference_interval,
    mean_interval,
    weighted_mean,
)
from hdam.platform.compare.entrants import Entrant
from hdam.platform.evaluation.metrics import METRICS, Metric, Protocol


class ModelScore(NamedTuple):
    """One model by one metric."""

    mean: float | None
    """Over the frames of all clips."""
    interval: Interval | None
    num_clips: int
    """Clips with a frame that has a number."""
    num_frames: int
    num_unmeasured: int = 0
    """Frames that have none, as nothing was found in them."""
    reason: str = ""
    """Why there is no mean, or no interval."""


class Difference(NamedTuple):
    """The mean of the entrant `first` minus that of `second`, over the clips that both have."""

    first: int
    second: int
    value: float
    interval: Interval | None
    num_clips: int

    @property
    def is_clear(self) -> bool:
        """Whether it is larger than chance: its interval excludes 0, and there are clips enough to say so."""
        return self.interval is not None and self.interval.excludes_zero and self.num_clips >= LEAST_CLIPS


class MetricScore(NamedTuple):
    """All models by one metric."""

    protocol: Protocol
    metric: Metric
    models: tuple[ModelScore, ...]
    differences: tuple[Difference, ...]
    best: int | None
    """The entrant that is clearly better than every other one; None where there is none."""


def score_all(entrants: Sequence[Entrant]) -> tuple[MetricScore, ...]:
    """By every metric that one of the models has, reconstruction first."""
    found = []
    for protocol in protocols_of(entrants):
        for name, metric in METRICS.items():
            if any(name in each.measured(protocol) for each in entrants):
                found.append(score_metric(entrants, protocol, metric))
    return tuple(found)


def protocols_of(entrants: Sequence[Entrant]) -> list[Protocol]:
    """The protocols that any of the models was evaluated by."""
    order: tuple[Protocol, ...] = ("reconstruction", "cross")
    return [protocol for protocol in order if any(each.record.means.get(protocol) for each in entrants)]


def score_metric(entrants: Sequence[Entrant], protocol: Protocol, metric: Metric) -> MetricScore:
    """All models by one metric."""
    values = [_values(each, protocol, metric) for each in entrants]
    models = tuple(_score(each, found, protocol, metric) for each, found in zip(entrants, values, strict=True))
    has_mean = [place for place, score in enumerate(models) if score.mean is not None]
    pairs = [_compare(first, second, values) for first, second in combinations(has_mean, 2)]
    differences = tuple(pair for pair in pairs if pair is not None)
    return MetricScore(protocol, metric, models, differences, _find_best(len(models), differences, metric))


def _find_best(num_models: int, differences: Sequence[Difference], metric: Metric) -> int | None:
    sign = 1 if metric.better == "higher" else -1
    wins = [0] * num_models
    for pair in differences:
        if pair.is_clear:
            wins[pair.first if sign * pair.value > 0 else pair.second] += 1
    return next((place for place, count in enumerate(wins) if count == num_models - 1), None)


ClipValues = dict[str, tuple[float, int]]
"""Mean and number of frames by clip id; only clips with a measured frame."""


def _values(entrant: Entrant, protocol: Protocol, metric: Metric) -> ClipValues:
    found = {}
    for clip_id, clip in sorted(entrant.clips.get(protocol, {}).items()):
        mean, count = clip.means.get(metric.name), clip.counts.get(metric.name, 0)
        if mean is not None and (count or math.isnan(mean)):
            found[clip_id] = (mean, count)
    return found


def _score(entrant: Entrant, values: ClipValues, protocol: Protocol, metric: Metric) -> ModelScore:
    told = entrant.record.means.get(protocol, {}).get(metric.name)
    if told is None:
        reasons = [each.reason for each in entrant.record.missing if each.metric == metric.name]
        return ModelScore(None, None, 0, 0, reason=reasons[0] if reasons else "not measured")
    if broken := sum(not math.isfinite(mean) for mean, _ in values.values()):
        reason = f"{told.num_broken or broken} {'frames' if told.num_broken else 'clips'} hold what is no number"
        return ModelScore(None, None, len(values), told.count, told.num_unmeasured, reason)
    if not values:
        return ModelScore(None, None, 0, 0, told.num_unmeasured, "no frame has one")
    means, counts = _columns(list(values.values()))
    interval = mean_interval(means, counts)
    reason = "" if interval else "a single clip has no interval"
    return ModelScore(weighted_mean(means, counts), interval, len(values), sum(counts), told.num_unmeasured, reason)


def _compare(first: int, second: int, values: Sequence[ClipValues]) -> Difference | None:
    """None where the two have no clip in common."""
    ours, theirs = values[first], values[second]
    shared = [clip_id for clip_id in ours if clip_id in theirs]
    if not shared:
        return None
    one, other = (_columns([side[clip_id] for clip_id in shared]) for side in (ours, theirs))
    value = weighted_mean(*one) - weighted_mean(*other)
    return Difference(first, second, value, difference_interval(one, other), len(shared))


def _columns(pairs: Sequence[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [mean for mean, _ in pairs], [count for _, count in pairs]
