"""What a piece of work costs: seconds, CPU seconds and memory of this process and everything that it started."""

import contextlib
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil

SAMPLE_SECONDS = 0.25
MEMORY_SAMPLES = 8
"""Memory is looked at every so many samples: that stops the process that is looked at for a moment."""
MIB = 1 << 20
RAY_WORKER, RAYLET = "ray", "raylet"

Times = dict[tuple[int, str], float]
"""CPU seconds by process id and name."""


@dataclass(kw_only=True, slots=True)
class Cost:
    """Filled in when the work is done."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    """User and system time of all processes, also of those that have ended; of Ray's, up to a quarter second before."""
    cpu_by_process: dict[str, float] = field(default_factory=dict)
    """The same by the name of the process; those that ended count for the one that started them."""
    peak_mib: float = 0.0
    """Largest sum of the proportional set sizes: memory that processes share counts once."""


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """The cost of the `with` block, without that of measuring it."""
    cost, done = Cost(), threading.Event()
    before, started = _cpu_times(), time.perf_counter()
    # The workers of Ray that end leave no trace with the raylet, so that what they were last seen with is kept.
    workers = _ray_workers(before)
    watcher = threading.Thread(target=_watch, args=(cost, workers, done), daemon=True)
    watcher.start()
    try:
        yield cost
    finally:
        cost.wall_seconds = time.perf_counter() - started
        done.set()
        watcher.join()
        total: dict[str, float] = defaultdict(float)
        for sign, found in ((1, workers | _cpu_times()), (-1, before)):
            for (_, name), seconds in found.items():
                total[name] += sign * seconds
        cost.cpu_by_process = {name: round(seconds, 3) for name, seconds in sorted(total.items())}
        cost.cpu_seconds += sum(total.values())


def _watch(cost: Cost, workers: Times, done: threading.Event) -> None:
    """Notes the peak of memory and what `workers` of Ray have used, and takes off the CPU time that noting it took."""
    for sample in itertools.count():
        workers |= _ray_workers(_cpu_times())
        if sample % MEMORY_SAMPLES == 0:
            cost.peak_mib = max(cost.peak_mib, memory_mib())
        cost.cpu_seconds = -time.thread_time()
        if done.wait(SAMPLE_SECONDS):
            return


def memory_mib() -> float:
    """Proportional set sizes of this process and its descendants; where a system has none, what is not shared."""
    total = 0
    for process in _family():
        with contextlib.suppress(psutil.Error):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.uss)
    return total / MIB


def _cpu_times() -> Times:
    """Of every process and its ended children, which are in the times of whoever waited for them (not the raylet's)."""
    found: Times = {}
    for process in _family():
        with contextlib.suppress(psutil.Error):
            times, name = process.cpu_times(), process.name().split("::")[0]
            children = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            found[process.pid, name] = times.user + times.system + (0.0 if name == RAYLET else children)
    return found


def _ray_workers(times: Times) -> Times:
    return {(pid, name): seconds for (pid, name), seconds in times.items() if name == RAY_WORKER}


def _family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]
