"""Lengths that say their unit: `900 steps`, `100 epochs`."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of training; schedules count steps, people think in epochs."""

    count: int
    unit: str
    """`steps` or `epochs`."""

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Read `900 steps` or `100 epochs`. Raises ValueError for anything else, a bare number included."""
        if isinstance(text, Duration):
            return text
        found = re.fullmatch(r"\s*(\d+)\s*(step|epoch)s?\s*", str(text))
        if not found:
            raise ValueError(f"{text!r} is no duration; write it with its unit, as '900 steps' or '100 epochs'")
        return cls(int(found[1]), found[2] + "s")

    def steps(self, steps_per_epoch: int) -> int:
        """The same length in optimiser updates."""
        return self.count * steps_per_epoch if self.unit == "epochs" else self.count

    def __str__(self) -> str:
        return f"{self.count} {self.unit}"
