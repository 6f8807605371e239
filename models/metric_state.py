"""Means over frames that add up over clips, workers and interruptions."""

import math
from dataclasses import dataclass
from fractions import Fraction

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanState:
    """The mean of a metric over frames so far.

    The total is a rational number, in which sums of floating-point numbers are exact: whatever the order in which
    frames were added and states merged, the same numbers have the same mean, to the last digit. Equal scores need equal
    numbers per frame, too: the same batches of frames on the same kind of device.
    """

    total: Fraction = Fraction(0)
    count: int = 0
    """Frames that have a number."""
    num_unmeasured: int = 0
    """Frames that have none, as nothing was found in them; they do not count."""
    num_broken: int = 0
    """Frames whose number is NaN or infinite, as those of a model that paints NaN: they make the mean NaN."""

    def add(self, values: Float[Tensor, " frame"], is_measured: Bool[Tensor, " frame"] | None = None) -> "MeanState":
        """The state after these frames; those where `is_measured` is false have no number, whatever `values` says."""
        measured = values if is_measured is None else values[is_measured]
        numbers: list[float] = measured.tolist()
        sound = [Fraction(number) for number in numbers if math.isfinite(number)]
        return MeanState(
            total=sum(sound, self.total),
            count=self.count + len(sound),
            num_unmeasured=self.num_unmeasured + len(values) - len(numbers),
            num_broken=self.num_broken + len(numbers) - len(sound),
        )

    def merge(self, other: "MeanState") -> "MeanState":
        """The state after the frames of both, which must have none in common."""
        return MeanState(
            total=self.total + other.total,
            count=self.count + other.count,
            num_unmeasured=self.num_unmeasured + other.num_unmeasured,
            num_broken=self.num_broken + other.num_broken,
        )

    @property
    def value(self) -> float:
        """The mean over the frames that have a number; NaN where there is none, or where one is broken."""
        return float(self.total / self.count) if self.count and not self.num_broken else math.nan
