"""Hold a dataset against its manifest and against itself: every byte, every row, every frame.

shard   size, checksum, schema, number of rows                      in processes of their own,
  row   columns that agree with each other                          one shard at a time
    frame   decodes, and has the size that the row states
dataset   chunks of a clip, ranks of an identity, splits, counts    at the end, from small facts of every row
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import NamedTuple

from hdam.pipelines.errors import InputError
from hdam.pipelines.examine import Fault, ShardFindings, examine_shard
from hdam.pipelines.manifest import Manifest, Shard, load_manifest
from hdam.pipelines.whole import examine_whole

OnFrames = Callable[[int, int], None]
"""Takes how many frames are looked at, and of how many."""


class VerifyReport(NamedTuple):
    """What `verify` found."""

    manifest: Manifest
    faults: list[Fault]
    """In the order of shards, rows and frames; empty where all is well."""
    num_frames: int
    """Frames that were decoded, or tried."""
    seconds: float


def verify(dataset: str, *, processes: int | None = None, on_frames: OnFrames | None = None) -> VerifyReport:
    """Check everything in `dataset` (path or URI), with so many processes (None: one per CPU).

    A process holds one shard in memory. Raises InputError when there is no dataset or its manifest cannot be read;
    whatever else is wrong is a fault in the report.
    """
    started = time.monotonic()
    manifest = load_manifest(dataset)
    if processes is not None and processes < 1:
        raise InputError(f"{processes} processes cannot check anything; expected at least 1")
    size = manifest.options.get("size")
    found: dict[str, ShardFindings] = {}
    num_frames = 0
    for findings in _examine_all(dataset, manifest.shards, size=size, processes=processes or num_cpus()):
        found[findings.shard] = findings
        num_frames += findings.num_frames
        if on_frames is not None:
            on_frames(num_frames, max(num_frames, manifest.counts.frames))
    in_order = [found[shard.path] for shard in manifest.shards]
    faults = [fault for findings in in_order for fault in findings.faults]
    faults.extend(examine_whole(manifest, in_order))
    return VerifyReport(manifest, faults, num_frames, time.monotonic() - started)


def num_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _examine_all(dataset: str, shards: Sequence[Shard], *, size: object, processes: int) -> Iterator[ShardFindings]:
    """The findings of every shard, as they come.

    A damaged shard may kill the process that reads it, and with it the pool: what is left then goes on in halves, until
    the shard that kills is alone and known by name.
    """
    left = {shard.path: shard for shard in shards}
    try:
        for findings in _in_pool(dataset, list(left.values()), size=size, processes=processes):
            del left[findings.shard]
            yield findings
    except BrokenProcessPool:
        rest = list(left.values())
        if len(shards) == 1:
            fault = Fault(shard=rest[0].path, what="kills the process that reads it")
            yield ShardFindings(shard=rest[0].path, faults=[fault], rows=[], num_frames=0)
            return
        for half in (rest[: len(rest) // 2], rest[len(rest) // 2 :]):
            yield from _examine_all(dataset, half, size=size, processes=processes)


def _in_pool(dataset: str, shards: Sequence[Shard], *, size: object, processes: int) -> Iterator[ShardFindings]:
    if not shards:
        return
    # Spawned, not forked: Arrow's threads don't survive a fork.
    pool = ProcessPoolExecutor(
        min(processes, len(shards)), mp_context=multiprocessing.get_context("spawn"), initializer=_follow_parent
    )
    try:
        with _without_interrupts():
            waiting = [pool.submit(examine_shard, dataset, shard, size=size) for shard in shards]
        for future in as_completed(waiting):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits, and never comes to the processes that are started meanwhile: it is the parent who ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent() -> None:
    """End when the parent does, however it ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
