"""Who is in training and who in testing, and which rows go into which shard: seeded, and by identity."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hdam.pipelines.clips import SourceClip, Split
from hdam.pipelines.errors import InputError
from hdam.pipelines.seeds import stable_hash

TARGET_SHARD_BYTES = 32 << 20
MIN_SHARDS = 8
"""Shards per split where there are rows enough: workers read shards side by side."""


class StoredChunk(NamedTuple):
    """A chunk that is encoded and waits for its shard."""

    path: str | Path
    """Address of the file it waits in; its row number there is `chunk`."""
    clip_id: str
    identity: str
    chunk: int
    num_frames: int
    num_bytes: int


def given_splits(clips: Iterable[SourceClip]) -> dict[str, Split | None]:
    """The split that the table gives each identity, None where it gives none.

    Raises InputError when it gives one identity two: nobody may be on both sides.
    """
    given: dict[str, Split | None] = {}
    for clip in clips:
        before = given.get(clip.identity)
        if before and clip.split and before != clip.split:
            raise InputError(
                f"identity '{clip.identity}' is in '{before}' and in '{clip.split}' ({clip.source}); "
                "give all its rows in the table the same split"
            )
        given[clip.identity] = before or clip.split
    return given


def assign_splits(given: Mapping[str, Split | None], *, test_share: float, seed: int) -> dict[str, Split]:
    """A split for every identity: the given one, else one by the seeded hash of the identity.

    Of the identities without a given split, `test_share` are tested: at least one where the table names none and one
    remains for training. `test_share` 0: none.
    """
    undecided = sorted(
        (identity for identity, split in given.items() if split is None),
        key=lambda identity: stable_hash("split", seed, identity),
    )
    num_test = round(test_share * len(undecided))
    if test_share > 0 and "test" not in given.values():
        num_test = max(num_test, 1)
    if "train" not in given.values():
        num_test = min(num_test, len(undecided) - 1)
    tested = set(undecided[: max(num_test, 0)])
    return {identity: split or ("test" if identity in tested else "train") for identity, split in given.items()}


def chunk_ranks(chunks: Iterable[StoredChunk]) -> dict[tuple[str, int], tuple[int, int]]:
    """(clip_id, chunk) to its rank among all chunks of its identity, and their count."""
    of_identity: dict[str, list[tuple[str, int]]] = {}
    for chunk in sorted(chunks, key=lambda chunk: (chunk.clip_id, chunk.chunk)):
        of_identity.setdefault(chunk.identity, []).append((chunk.clip_id, chunk.chunk))
    return {key: (rank, len(keys)) for keys in of_identity.values() for rank, key in enumerate(keys)}


def plan_shards(chunks: Sequence[StoredChunk], *, seed: int) -> list[list[StoredChunk]]:
    """The chunks of one split, dealt out to shards in a seeded order so that each shard mixes identities."""
    total = sum(chunk.num_bytes for chunk in chunks)
    num_shards = min(max(-(-total // TARGET_SHARD_BYTES), MIN_SHARDS), len(chunks))
    shuffled = sorted(chunks, key=lambda chunk: stable_hash("shard", seed, chunk.clip_id, chunk.chunk))
    return [shuffled[first::num_shards] for first in range(num_shards)]
