"""`hdam bench data --scale`: whether memory, starts and epochs stay what they are when a dataset grows."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hdam.pipelines.manifest import load_manifest
from hdam.platform.bench.clips import BenchClip, stored_clips, write_dataset
from hdam.platform.bench.contenders import Contest, our_stream
from hdam.platform.bench.data import contender_process
from hdam.platform.datasets import open_dataset
from hdam.platform.pair_plan import make_plan

COPIES = 10
MEMORY_TARGET = 0.15
GAP_TARGET_SECONDS = 1.0
START_TARGET_SECONDS = 2.0
FEW_SHARDS, MANY_SHARDS = 10, 1000
SPLIT_ROWS = 2000
SPLIT_FRAMES = 4


def measure_scale(contest: Contest, *, num_pairs: int) -> dict[str, Any]:
    """All three measures, each with its target, as JSON-able values."""
    with tempfile.TemporaryDirectory(prefix="hdam-bench-") as folder:
        return {
            "memory": _measure_memory(contest, Path(folder), steps=num_pairs // contest.batch_size),
            "epochs": _measure_epochs(contest),
            "starts": _measure_starts(contest, Path(folder)),
        }


def _measure_memory(contest: Contest, folder: Path, *, steps: int) -> dict[str, Any]:
    """Peak of the stream on the dataset, and on ten times as much."""
    write_dataset(folder / "large", stored_clips(contest.data.path, copies=COPIES), size=contest.data.size)
    large = replace(contest, data=contest.data.model_copy(update={"path": str(folder / "large")}))
    peaks = {}
    for name, own in (("once", contest), ("ten_times", large)):
        with contender_process("stream", own) as ask:
            peaks[name] = ask(0, steps).peak_mib
    growth = peaks["ten_times"] / peaks["once"] - 1
    return {"peak_mib": peaks, "growth": round(growth, 3), "target": MEMORY_TARGET, "is_met": growth <= MEMORY_TARGET}


def _measure_epochs(contest: Contest) -> dict[str, Any]:
    """The wait for the first batch of later epochs, against that for any other."""
    batches_per_epoch = 8
    data = contest.data.model_copy(update={"repeats": 1})
    clips = len({row.clip_id for row in replace(contest, data=data, batch_size=1).plan().rows})
    repeats = -(-batches_per_epoch * contest.batch_size // clips)
    short = replace(contest, data=contest.data.model_copy(update={"repeats": repeats}))
    steps_per_epoch = short.plan().steps_per_epoch
    waits = []
    with our_stream(short) as run:
        asked = time.perf_counter()
        for _ in run(0, 5 * steps_per_epoch):
            waits.append(time.perf_counter() - asked)
            asked = time.perf_counter()
    first = [waits[step] for step in range(steps_per_epoch, len(waits), steps_per_epoch)]
    others = [wait for step, wait in enumerate(waits) if step % steps_per_epoch]
    return {
        "first_batch_seconds": [round(wait, 3) for wait in first],
        "other_batches_seconds": round(statistics.median(others), 3),
        "target": GAP_TARGET_SECONDS,
        "is_met": max(first) <= GAP_TARGET_SECONDS,
    }


def _measure_starts(contest: Contest, folder: Path) -> dict[str, Any]:
    """Seconds until a dataset is checked and planned, the same rows in few shards and in many."""
    seconds = {}
    for num_shards in (FEW_SHARDS, MANY_SHARDS):
        path = folder / f"in-{num_shards}"
        write_dataset(path, _short_clips(contest), size=contest.data.size, num_shards=num_shards)
        data = contest.data.model_copy(update={"path": str(path)})
        started = time.perf_counter()
        make_plan(data, open_dataset(data), batch_size=contest.batch_size, seed=contest.seed)
        seconds[num_shards] = round(time.perf_counter() - started, 3)
    difference = seconds[MANY_SHARDS] - seconds[FEW_SHARDS]
    return {
        "seconds_by_shards": seconds,
        "difference": round(difference, 3),
        "target": START_TARGET_SECONDS,
        "is_met": difference <= START_TARGET_SECONDS,
    }


def _short_clips(contest: Contest) -> Iterator[BenchClip]:
    """Rows enough for many shards: the first frames of the clips, each many times."""
    num_clips = load_manifest(contest.data.path).splits["train"].clips
    for clip in stored_clips(contest.data.path, copies=-(-SPLIT_ROWS // num_clips)):
        yield BenchClip(clip.name, clip.frames[:SPLIT_FRAMES])
