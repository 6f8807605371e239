"""Confidence intervals by the bootstrap over clips (Efron, 1979): what another sample of clips might have said.

Clips are drawn anew with replacement, as many as there are, and the mean over all their frames is taken as in the
table, so that long clips weigh more. All models see the same drawn clips: the difference of two models varies less than
each of them, since a hard clip is hard for both.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 5000
SEED = 2022
CONFIDENCE = 0.95
LEAST_CLIPS = 6
"""Below, no difference counts as one: were two models equally good, five clips would all favour the same one in more
than 5 % of the cases (2 · 2⁻⁵), whatever the interval says."""
_AT_ONCE = 256

Numbers = NDArray[np.float64]


class Interval(NamedTuple):
    """The middle 95 % of what resampled clips say."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether all of it lies on one side of 0."""
        return self.low > 0 or self.high < 0


def weighted_mean(values: ArrayLike, counts: ArrayLike) -> float:
    """The mean over frames of clips with these means and numbers of frames."""
    return float(np.average(np.asarray(values, float), weights=np.asarray(counts, float)))


def mean_interval(values: ArrayLike, counts: ArrayLike) -> Interval | None:
    """The interval of `weighted_mean`; None for less than two clips, which say nothing of how clips differ."""
    if np.size(values) < 2:
        return None
    return _percentiles(resampled_means(values, counts))


def difference_interval(first: tuple[ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike]) -> Interval | None:
    """The interval of the first model's mean minus the second's; values and counts of the same clips in the same order.

    None for less than two clips.
    """
    if np.size(first[0]) < 2:
        return None
    return _percentiles(resampled_means(*first) - resampled_means(*second))


def resampled_means(values: ArrayLike, counts: ArrayLike) -> Numbers:
    """The mean over frames for each resampling of the clips; the same ones for all arrays of the same length."""
    means, weights = np.asarray(values, float), np.asarray(counts, float)
    drawn = _drawn(len(means))
    found = []
    for start in range(0, len(drawn), _AT_ONCE):
        some = drawn[start : start + _AT_ONCE] * weights
        found.append(some @ means / some.sum(1))
    return np.concatenate(found)


@lru_cache(maxsize=2)
def _drawn(num_clips: int) -> NDArray[np.int32]:
    """How often each clip is drawn, [resample, clip]."""
    rng = np.random.default_rng(SEED)
    found = np.empty((RESAMPLES, num_clips), np.int32)
    for row in found:
        row[:] = np.bincount(rng.integers(num_clips, size=num_clips), minlength=num_clips)
    found.flags.writeable = False
    return found


def _percentiles(means: Numbers) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(low), float(high))
