"""`hdam bench data`: what pairs cost on three roads from the same clips, in interleaved rounds on one machine.

Every contender lives in a process of its own, so that neither its memory nor its helpers are counted for another.
Streams are measured from their opening to their end: every pair that is made is also counted.
"""

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hdam.experiments.experiment import DataConfig
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import load_manifest
from hdam.platform.animate import best_device
from hdam.platform.bench.clips import export_frames, puppet_clips
from hdam.platform.bench.contenders import CONTENDERS, Contest, check_pair
from hdam.platform.bench.cost import measured
from hdam.platform.doctor import usable_cpus
from hdam.platform.memory import keep_freed_memory
from hdam.platform.reports import counting
from hdam.platform.runs import write_json

SHORT = 8
"""A long stream has so many times the pairs of a short one."""
TICK = 0.01
"""Seconds in which a system counts CPU time."""
TARGETS = {"frame_folders": 5.0, "shard_loader": 0.9}
"""How many times as many pairs per CPU second the stream should give."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchSettings:
    """What is measured."""

    data: str = ""
    """A prepared dataset; puppets where empty."""
    size: int = 256
    num_clips: int = 8
    num_frames: int = 48
    """Puppets, and frames of each."""
    batch_size: int = 16
    num_pairs: int = 2048
    """In the long stream of each round."""
    rounds: int = 3
    """Counted ones; a short stream before them warms up."""
    data_cpus: int = 1


class Stream(NamedTuple):
    """A stream from its opening to its end."""

    pairs: int
    first_batch_seconds: float
    wall_seconds: float
    cpu_seconds: float
    cpu_by_process: Mapping[str, float]
    peak_mib: float


class Round(NamedTuple):
    """One contender's round: a short stream and a long one, whose difference is free of what a start costs."""

    short: Stream
    long: Stream

    @property
    def pairs(self) -> int:
        """Those that are counted."""
        return self.long.pairs - self.short.pairs

    @property
    def pairs_per_cpu_second(self) -> float:
        """By the CPU time of all processes."""
        return self.pairs / max(self.long.cpu_seconds - self.short.cpu_seconds, TICK)

    @property
    def pairs_per_second(self) -> float:
        """By the clock."""
        return self.pairs / max(self.long.wall_seconds - self.short.wall_seconds, TICK)

    @property
    def start_cpu_seconds(self) -> float:
        """What is left of the short stream's CPU time without its pairs."""
        return self.short.cpu_seconds - self.short.pairs / self.pairs_per_cpu_second

    @property
    def first_batch_seconds(self) -> float:
        """From the opening of the long stream."""
        return self.long.first_batch_seconds

    @property
    def peak_mib(self) -> float:
        """Of the long stream."""
        return self.long.peak_mib


def prepare_contest(settings: BenchSettings, cache: Path) -> Contest:
    """The clips as shards and as PNG folders, made in `cache` where they are not there yet."""
    dataset = settings.data
    if not dataset:
        shape = {"num_clips": settings.num_clips, "num_frames": settings.num_frames, "size": settings.size}
        dataset = str(puppet_clips(cache, **shape))
    manifest = load_manifest(dataset)
    if settings.num_pairs % settings.batch_size:
        raise InputError(f"--pairs {settings.num_pairs} are no whole batches of {settings.batch_size}")
    size = manifest.options["size"]
    data = DataConfig(path=dataset, size=size, brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1)  # as published
    frames_dir = export_frames(dataset, cache / f"frames-{manifest.fingerprint[:12]}")
    return Contest(data=data, frames_dir=frames_dir, batch_size=settings.batch_size, data_cpus=settings.data_cpus)


def run_bench(settings: BenchSettings, contest: Contest) -> dict[str, Any]:
    """All rounds of all contenders, and what follows from them, as JSON-able values."""
    rounds: dict[str, list[Round]] = {name: [] for name in CONTENDERS}
    steps = settings.num_pairs // settings.batch_size
    load = [os.getloadavg()[0]]
    with ExitStack() as stack, counting("rounds") as count:
        asks = {name: stack.enter_context(contender_process(name, contest)) for name in CONTENDERS}
        for number in range(settings.rounds + 1):
            for turn, (name, ask) in enumerate(asks.items()):
                start = 2 * number * steps
                short = ask(start, start + max(1, steps // SHORT))
                if number > 0:
                    rounds[name].append(Round(short, ask(start + steps, start + 2 * steps)))
                count(number * len(asks) + turn + 1, (settings.rounds + 1) * len(asks))
    load.append(os.getloadavg()[0])
    return {
        "settings": asdict(settings),
        "dataset": contest.data.path,
        "size": contest.data.size,
        "machine": {
            "cpus": usable_cpus(),
            "processor": platform.processor() or platform.machine(),
            "device": str(best_device()),
            "torch": torch.__version__,
            "load_before_and_after": [round(value, 2) for value in load],
        },
        "contenders": {name: summarise(found) for name, found in rounds.items()},
        "comparisons": compare(rounds),
    }


def summarise(rounds: list[Round]) -> dict[str, Any]:
    """Medians over the rounds, and the rounds themselves."""

    def median(name: str) -> float:
        return round(statistics.median(getattr(found, name) for found in rounds), 3)

    names = ("pairs_per_second", "pairs_per_cpu_second", "peak_mib", "first_batch_seconds", "start_cpu_seconds")
    return {
        "pairs": sum(found.pairs for found in rounds),
        **{name: median(name) for name in names},
        "rounds": [{"short": found.short._asdict(), "long": found.long._asdict()} for found in rounds],
    }


def compare(rounds: Mapping[str, list[Round]]) -> list[dict[str, Any]]:
    """The stream against each other contender, by the median of the rounds' ratios."""
    found = []
    for name, target in TARGETS.items():
        pairs = zip(rounds["stream"], rounds[name], strict=True)
        ratio = statistics.median(own.pairs_per_cpu_second / other.pairs_per_cpu_second for own, other in pairs)
        found.append({"against": name, "ratio": round(ratio, 3), "target": target, "is_met": ratio >= target})
    return found


@contextmanager
def contender_process(name: str, contest: Contest) -> Iterator[Any]:
    """A process that runs rounds of one contender: a function from first and last step to a `Stream`."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(name, contest, there), name=name)
    process.start()
    there.close()

    def ask(first_step: int, last_step: int) -> Stream:
        here.send((first_step, last_step))
        answer = here.recv()
        if isinstance(answer, Exception):
            raise answer
        return Stream(**answer)

    try:
        yield ask
    finally:
        here.close()
        process.join()


def _serve(name: str, contest: Contest, asked: Connection) -> None:
    """Until the other side hangs up."""
    torch.set_num_threads(1)
    keep_freed_memory()
    with CONTENDERS[name](contest) as run:
        while True:
            try:
                first_step, last_step = asked.recv()
            except EOFError:
                return
            try:
                asked.send(_run_stream(run(first_step, last_step), contest.data.size))
            except Exception as error:
                asked.send(error)


def _run_stream(batches: Iterator[Any], size: int) -> dict[str, Any]:
    pairs, first_batch = 0, 0.0
    with measured() as cost:
        started = time.perf_counter()
        for source, driving in batches:
            check_pair(source, driving, size=size)
            first_batch = first_batch or time.perf_counter() - started
            pairs += len(source)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return {"pairs": pairs, "first_batch_seconds": round(first_batch, 3), **asdict(cost)}


def save_report(report: Mapping[str, Any], path: Path) -> None:
    """Write `report` as JSON. Raises InputError where the disk does not take it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)
