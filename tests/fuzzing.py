"""Running a test on many seeds, and counting what came of them."""

import time
from collections import Counter
from contextlib import contextmanager

from damage import is_refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SOURCES = {"film": 300, "image": 80, "folder": 120, "table": 150, "metadata": 150, "list": 60}
DATASETS = {"shard": 120, "row": 100, "manifest": 200}
CASES = SOURCES | DATASETS
MOST_SECONDS = 10.0
"""For one case, on a busy machine; most take a hundredth of it."""

TRIED: Counter[str] = Counter()
REFUSED: dict[str, Counter[bool]] = {kind: Counter() for kind in CASES}
"""How many calls were refused, and how many were not."""


def fuzz(kind):
    """Run a test with `seed`s, always the same ones, as often as `CASES` says."""
    chosen = settings(
        max_examples=CASES[kind],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: chosen(given(seed=st.integers(0, 2**32))(test))


@contextmanager
def trying(kind):
    """Counts a case and holds it against the clock; the function inside runs a call that may be refused."""
    started = time.monotonic()
    told = []

    def refused(call):
        told.append(is_refused(call))
        return told[-1]

    yield refused
    assert time.monotonic() - started < MOST_SECONDS
    TRIED[kind] += 1
    REFUSED[kind].update(told)


@contextmanager
def holding(path, data):
    """`path` holds `data` for a while, then what it held before, if anything."""
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(data)
    try:
        yield path
    finally:
        path.unlink() if before is None else path.write_bytes(before)


def assert_tried(*kinds):
    """Of the tests of these kinds that were asked for, each ran as often as it should, on damage of either sort."""
    for kind in TRIED.keys() & set(kinds):
        assert TRIED[kind] >= CASES[kind]
        assert REFUSED[kind][True] and REFUSED[kind][False], f"{kind}: all calls were refused, or none"
