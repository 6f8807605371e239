"""The store of finished clips: one Parquet file each, named by everything that shapes it, waiting for the shards.

A name that is there is a clip that is done: with the same file, the same options and the same version of this store,
the same bytes would come out.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hdam.pipelines.clips import SourceClip, Split
from hdam.pipelines.contact_sheet import MAX_CLIPS, NUM_FRAMES, SheetClip, spread
from hdam.pipelines.encode import EncodeOptions, encode_clip
from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import arriving, is_local, locate
from hdam.pipelines.frame_codec import decode_frame
from hdam.pipelines.shards import SCHEMA, Row, read_rows, write_rows
from hdam.pipelines.splits import StoredChunk

STORE_VERSION = 1
"""Raise it whenever other bytes come out of the same file and options: reading, cutting, encoding, this store."""

_LATE_COLUMNS = frozenset({"split", "chunk_rank", "num_identity_chunks"})
_PLACE_FIELDS = frozenset({"root", "path", "files", "num_bytes", "split"})
"""What does not shape a stored clip: its file (`stamp` stands for that), and its split, which may yet change."""
_CHUNKS_NOTE = "hdam.chunks"
STORE_SCHEMA = pa.schema([field for field in SCHEMA if field.name not in _LATE_COLUMNS])
"""A row before the whole dataset is known."""


class ClipTask(NamedTuple):
    """One clip to encode into the store."""

    number: int
    key: str
    clip: SourceClip
    folder: str
    """Address of the store."""
    options: EncodeOptions

    @property
    def num_bytes(self) -> int | None:
        """How much there is to read."""
        return self.clip.num_bytes


class ClipResult(NamedTuple):
    """What became of a clip."""

    number: int
    chunks: list[StoredChunk]
    """Empty where the clip is unusable."""
    reason: str
    """Why it is; else empty."""
    was_there: bool
    """Whether it was in the store already."""


def clip_key(clip: SourceClip, options: EncodeOptions) -> str:
    """The name of a clip in the store, a hex digest."""
    shaping = {name: value for name, value in asdict(clip).items() if name not in _PLACE_FIELDS}
    content = json.dumps([STORE_VERSION, shaping, options._asdict()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def store_clip(task: ClipTask) -> ClipResult:
    """Encode one clip into the store unless it is there; a clip that cannot be used is no error."""
    address = f"{task.folder}/{task.key}.parquet"
    there = stored_chunks(task.clip, address)
    if there is not None:
        return ClipResult(task.number, there, "", True)
    try:
        return ClipResult(task.number, _encode(task, address), "", False)
    except InputError as error:
        return ClipResult(task.number, [], str(error), False)


def stored_chunks(clip: SourceClip, address: str) -> list[StoredChunk] | None:
    """The chunks of a clip by the footer of its file; None where there is none, or none that is whole."""
    filesystem, path = locate(address)
    try:
        with pq.ParquetFile(path, filesystem=filesystem) as stored:
            notes = json.loads((stored.metadata.metadata or {})[_CHUNKS_NOTE.encode()])
    except (pa.ArrowException, FileNotFoundError, KeyError, ValueError):
        return None
    return [
        StoredChunk(address, clip.clip_id, clip.identity, chunk, num_frames, num_bytes)
        for chunk, (num_frames, num_bytes) in enumerate(notes)
    ]


def sheet_clips(clips: Sequence[Sequence[StoredChunk]], splits: Mapping[str, Split]) -> Iterator[SheetClip]:
    """Clips spread over the dataset, with frames spread over each; one chunk at a time is in memory."""
    in_order = sorted(clips, key=lambda chunks: chunks[0].clip_id)
    for chunks in (in_order[index] for index in spread(len(in_order), MAX_CLIPS)):
        num_frames = sum(chunk.num_frames for chunk in chunks)
        frames, points, fps = [], [], 0.0
        for index in spread(num_frames, NUM_FRAMES):
            row = _row(chunks[index % len(chunks)])
            place = row["frame_index"].index(index)
            frames.append(decode_frame(row["frames"][place]))
            if row["keypoints"] is not None:
                points.append(np.array(row["keypoints"][place], np.float32).reshape(-1, 2))
            fps = row["fps"]
        identity = chunks[0].identity
        facts = f"{splits[identity]}  {num_frames} frames  {fps:.2f} fps"
        yield SheetClip(label=f"{chunks[0].clip_id}  [{identity}]  {facts}", frames=frames, points=points)


def _encode(task: ClipTask, address: str) -> list[StoredChunk]:
    filesystem, path = locate(address)
    notes: list[tuple[int, int]] = []

    def noted(rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            notes.append((len(row["frames"]), sum(map(len, row["frames"]))))
            yield row

    rows = encode_clip(task.clip, task.options, waiting_dir=Path(path).parent if is_local(filesystem) else None)
    with arriving(filesystem, path) as partial:
        write_rows(partial, noted(rows), schema=STORE_SCHEMA, notes=lambda: {_CHUNKS_NOTE: json.dumps(notes)})
    return [
        StoredChunk(address, task.clip.clip_id, task.clip.identity, chunk, num_frames, num_bytes)
        for chunk, (num_frames, num_bytes) in enumerate(notes)
    ]


def _row(chunk: StoredChunk) -> Row:
    columns = ["frame_index", "frames", "keypoints", "fps"]
    return next(read_rows(chunk.path, columns=columns, rows=[chunk.chunk]))
