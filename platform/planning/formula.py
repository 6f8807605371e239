"""How long a step, an epoch and a training take on so many workers, and what limits them. Arithmetic alone.

    compute     fixed + share · pair             share: pairs of a step that one worker sees
    all-reduce  2(N−1)/N · gradients / link      ring, for N workers; less what is hidden behind the computing
    decoding    batch · decode / data CPUs
    reading     batch · bytes read / link        all shards come, and all batches go, over the link of one machine
    sending     batch · decoded bytes / link
    checkpoint  its seconds / steps between two

    step = max(compute + all-reduce, decoding, reading, sending) + checkpoint

Workers that share CPUs, as on one machine without GPUs, do not compute faster than the CPUs together:

    compute = max(fixed + share · pair, (N · (fixed + share · pair) + batch · decode) / CPUs)

and need no link. A single worker needs none either, but for shards that lie in a store. Not in it: latency,
synchronised batch norm, pictures and scores, starts, and what Ray itself needs.
"""

import math
from dataclasses import dataclass

BITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What has to be done, whatever does it."""

    batch_size: int
    """Pairs in a step, over all workers."""
    pairs_per_epoch: int
    read_bytes: float
    """Read from shards for a pair."""
    decoded_bytes: float
    """Of the two frames of a pair, as a worker gets them."""
    gradient_bytes: int
    """What workers average in a step."""
    checkpoint_bytes: int
    checkpoint_every: int
    """Steps."""
    is_remote: bool = False
    """Shards lie in a store, so that they come over a link even to a single machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """What does it, and how fast."""

    fixed_seconds: float
    """Of a step, however few pairs a worker sees: starting kernels, updating weights."""
    pair_seconds: float
    """Of a step, for every pair that a worker sees."""
    decode_cpu_seconds: float
    """CPU time of a data task for a pair."""
    data_cpus: float
    link_gbit: float
    """Gbit/s into and out of every machine, both at once."""
    write_bytes_per_second: float
    """At which a checkpoint is written."""
    overlap: float = 0.0
    """Share of the computing during which gradients travel already."""
    shared_cpus: float | None = None
    """CPUs that all workers and data tasks share; None where every worker has a GPU and CPUs of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step on so many workers; every part in seconds."""

    workers: int
    batch_size: int
    """The smallest multiple of `workers` that is not below the batch that was asked for."""
    compute: float
    all_reduce: float
    """What the computing does not hide."""
    decoding: float
    reading: float
    sending: float
    checkpoint: float
    """A step's share of writing one."""
    data_cpus_needed: int
    """As many as decode no slower than workers compute."""

    @property
    def seconds(self) -> float:
        """The whole step."""
        return max(self.compute + self.all_reduce, self.decoding, self.reading, self.sending) + self.checkpoint

    @property
    def pairs_per_second(self) -> float:
        """Of all workers together."""
        return self.batch_size / self.seconds

    @property
    def limit(self) -> str:
        """What has to become faster before the step does."""
        data = {"decoding": self.decoding, "reading shards": self.reading, "sending batches": self.sending}
        slowest = max(data, key=lambda name: data[name])
        training = self.compute + self.all_reduce
        if self.checkpoint > max(training, data[slowest]):
            return "writing checkpoints"
        if data[slowest] > training:
            return slowest
        return "all-reduce" if self.all_reduce > self.compute else "computing"


def plan_step(load: Load, means: Means, *, workers: int) -> Step:
    """A step of `load` on `workers` workers."""
    batch = load.batch_size + -load.batch_size % workers
    compute = means.fixed_seconds + batch / workers * means.pair_seconds
    decode = batch * means.decode_cpu_seconds
    is_one_machine = workers == 1 or means.shared_cpus is not None
    if means.shared_cpus is not None:
        compute = max(compute, (workers * compute + decode) / means.shared_cpus)
    outer_link = means.link_gbit * 1e9 / BITS
    link = math.inf if is_one_machine else outer_link
    all_reduce = 2 * (workers - 1) / workers * load.gradient_bytes / link
    exposed = max(0.0, all_reduce - means.overlap * compute)
    return Step(
        workers=workers,
        batch_size=batch,
        compute=compute,
        all_reduce=exposed,
        decoding=decode / means.data_cpus,
        reading=batch * load.read_bytes / (outer_link if load.is_remote else link),
        sending=batch * load.decoded_bytes / link,
        checkpoint=load.checkpoint_bytes / means.write_bytes_per_second / load.checkpoint_every,
        data_cpus_needed=math.ceil(decode / (compute + exposed)),
    )


def steps_per_epoch(load: Load, step: Step) -> int:
    """Whole batches in an epoch; at least one."""
    return max(1, load.pairs_per_epoch // step.batch_size)
