"""What can be wrong with a dataset although each of its rows is sound: chunks, ranks, splits, counts, fingerprint."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from hdam.pipelines.examine import Fault, RowFacts, ShardFindings
from hdam.pipelines.manifest import MANIFEST_NAME, Counts, Manifest, fingerprint_of


class _Placed(NamedTuple):
    shard: str
    row: RowFacts


def examine_whole(manifest: Manifest, found: Sequence[ShardFindings]) -> Iterator[Fault]:
    """Hold the rows of all shards against each other and against the manifest.

    Where rows are missing or unsound, which is told already, nothing is asked that only the whole can answer.
    """
    clips: dict[str, list[_Placed]] = {}
    identities: dict[str, list[_Placed]] = {}
    for findings in found:
        for row in findings.rows:
            clips.setdefault(row.clip_id, []).append(_Placed(findings.shard, row))
            identities.setdefault(row.identity, []).append(_Placed(findings.shard, row))
    yield from _manifest_faults(manifest)
    differing = [fault for chunks in clips.values() for fault in _differences(chunks)]
    differing.extend(fault for name, chunks in identities.items() for fault in _split_faults(name, chunks))
    yield from differing
    is_whole = all(len(findings.rows) == shard.rows for findings, shard in zip(found, manifest.shards, strict=True))
    if differing or not is_whole:
        return
    for chunks in clips.values():
        yield from _chunk_faults(chunks)
    for identity, chunks in identities.items():
        yield from _rank_faults(identity, chunks)
    yield from _count_faults(manifest, found)


def _differences(chunks: Sequence[_Placed]) -> Iterator[Fault]:
    """What the chunks of one clip should have in common."""
    for name in ("identity", "split", "fps", "source", "num_chunks"):
        values = {getattr(chunk.row, name) for chunk in chunks}
        if len(values) > 1:
            yield _fault(chunks[0], f"{name} differs among its chunks: {_listed(values)}")


def _chunk_faults(chunks: Sequence[_Placed]) -> Iterator[Fault]:
    """Chunks of one clip that are missing, there twice, or of the wrong length."""
    num_chunks = chunks[0].row.num_chunks
    times = Counter(chunk.row.chunk for chunk in chunks)
    if twice := [chunk for chunk, count in times.items() if count > 1]:
        yield _fault(chunks[0], f"chunk {_listed(twice)} is there more than once")
    elif len(times) < num_chunks:
        yield _fault(chunks[0], f"only chunk {_listed(times)} of its {num_chunks} chunks is there")
    else:
        total = sum(chunk.row.num_frames for chunk in chunks)
        for chunk in chunks:
            expected = len(range(chunk.row.chunk, total, num_chunks))
            if chunk.row.num_frames != expected:
                number, found = chunk.row.chunk, chunk.row.num_frames
                yield _fault(chunk, f"chunk {number} has {found} of the clip's {total} frames, expected {expected}")


def _split_faults(identity: str, chunks: Sequence[_Placed]) -> Iterator[Fault]:
    splits = {chunk.row.split for chunk in chunks}
    if len(splits) > 1:
        yield _fault(chunks[0], f"its identity '{identity}' is in more than one split: {_listed(splits)}")


def _rank_faults(identity: str, chunks: Sequence[_Placed]) -> Iterator[Fault]:
    """`chunks` are all of one identity."""
    counts = {chunk.row.num_identity_chunks for chunk in chunks}
    ranks = sorted(chunk.row.chunk_rank for chunk in chunks)
    if counts != {len(chunks)} or ranks != list(range(len(chunks))):
        last = len(chunks) - 1
        yield _fault(
            chunks[0], f"its identity '{identity}' has {len(chunks)} chunks, but their ranks are not 0 to {last}"
        )


def _manifest_faults(manifest: Manifest) -> Iterator[Fault]:
    if manifest.fingerprint != (found := fingerprint_of(manifest.options, manifest.shards)):
        what = f"fingerprint is {manifest.fingerprint[:12]}…, its options and checksums give {found[:12]}…"
        yield Fault(shard=MANIFEST_NAME, what=what)
    if twice := [path for path, count in Counter(shard.path for shard in manifest.shards).items() if count > 1]:
        yield Fault(shard=MANIFEST_NAME, what=f"lists {_listed(twice)} more than once")


def _count_faults(manifest: Manifest, found: Sequence[ShardFindings]) -> Iterator[Fault]:
    rows = [row for findings in found for row in findings.rows]
    splits = sorted({shard.split for shard in manifest.shards} | manifest.splits.keys())
    wholes = [("all", manifest.counts, rows, manifest.shards)] + [
        (
            split,
            manifest.splits.get(split, Counts(clips=0, identities=0, rows=0, frames=0, num_bytes=0)),
            [row for row in rows if row.split == split],
            tuple(shard for shard in manifest.shards if shard.split == split),
        )
        for split in splits
    ]
    for name, stated, own, shards in wholes:
        counted = Counts(
            clips=len({row.clip_id for row in own}),
            identities=len({row.identity for row in own}),
            rows=len(own),
            frames=sum(row.num_frames for row in own),
            num_bytes=sum(shard.num_bytes for shard in shards),
        )
        for word in Counts.__slots__:
            if getattr(stated, word) != getattr(counted, word):
                what = f"states {getattr(stated, word)} {word} ({name}), the shards have {getattr(counted, word)}"
                yield Fault(shard=MANIFEST_NAME, what=what)


def _fault(place: _Placed, what: str) -> Fault:
    return Fault(shard=place.shard, what=what, row=place.row.number, clip=place.row.clip_id)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values)))
