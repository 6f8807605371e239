"""Pieces of work that do not depend on each other: one after another here, side by side where somebody offers it."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lost(NamedTuple):
    """A piece of work whose process died, more than once."""

    number: int
    """Its place in the sequence."""
    reason: str


class RunTasks(Protocol):
    """Does a piece of work for every item and hands over the results as they come, in any order.

    `work`, items and results can be pickled. An error of `work` ends everything.
    """

    def __call__(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result | Lost]:
        """Begin with the first request for a result."""
        ...


def in_turn(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result | Lost]:
    """One after another, in this process."""
    return map(work, items)
