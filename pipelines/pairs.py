"""Pairs for training: which two frames of a row, how many per visit, and which rows an epoch visits.

Every draw follows from (seed, epoch, clip, chunk) by SHA-256, so that it is the same on every worker and every machine,
whatever the order in which rows are read.
"""

import numpy as np
from numpy.typing import NDArray

from hdam.pipelines.seeds import stable_hash


def pair_rng(seed: int, epoch: int, clip_id: str, chunk: int) -> np.random.Generator:
    """The random numbers of one chunk in one epoch, the same in every process."""
    return np.random.default_rng(stable_hash("pairs", seed, epoch, clip_id, chunk))


def draw_pairs(num_frames: int, *, num_pairs: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """[num_pairs, 2] frame indices, drawn with replacement and sorted: the source is the earlier (as published)."""
    if num_frames < 1:
        raise ValueError(f"pairs need at least one frame, got {num_frames}")
    return np.sort(rng.integers(0, num_frames, size=(num_pairs, 2)), axis=1)


def num_pairs_of_chunk(repeats: int, chunk: int, num_chunks: int, *, epoch: int = 0) -> int:
    """How many of a clip's `repeats` pairs per epoch fall to one of its chunks; over the chunks they sum to `repeats`.

    What does not divide goes round with the epoch, so that a clip with more chunks than repeats is still seen whole.
    """
    whole, rest = divmod(repeats, num_chunks)
    return whole + ((chunk - epoch * rest) % num_chunks < rest)


def is_chosen(identity: str, epoch: int, seed: int, chunk_rank: int, num_identity_chunks: int) -> bool:
    """Whether identity sampling visits this chunk in this epoch: exactly one per identity and epoch."""
    return stable_hash("identity", seed, epoch, identity) % num_identity_chunks == chunk_rank
