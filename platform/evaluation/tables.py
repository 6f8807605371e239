"""The numbers of an evaluation as Parquet tables: per frame, per clip, and the means over all.

A metric that a frame does not have, since nothing was found in it, is null; one that is no number is NaN.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hdam.models.joint_metrics import FrameScores
from hdam.models.metric_state import MeanState
from hdam.pipelines.errors import InputError
from hdam.pipelines.shards import UNREADABLE
from hdam.platform.evaluation.metrics import METRICS, Protocol
from hdam.platform.evaluation.plan import Item

FRAMES_DIR = "frames"
PER_FRAME_NAME = "per_frame.parquet"
PER_CLIP_NAME = "per_clip.parquet"

States = Mapping[str, MeanState]
"""By metric."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipMean:
    """What `per_clip.parquet` says of one clip."""

    protocol: Protocol
    clip_id: str
    identity: str
    source_clip: str
    num_frames: int
    means: Mapping[str, float | None]
    counts: Mapping[str, int]


def frame_table(item: Item, scores: Mapping[str, FrameScores], metrics: Sequence[str]) -> pa.Table:
    """One row per result frame; a column for each of `metrics`, null where the item's protocol does not have it."""
    count = item.driving.num_frames
    columns: dict[str, Any] = {
        "protocol": pa.array([item.protocol] * count),
        "clip_id": pa.array([item.driving.clip_id] * count),
        "identity": pa.array([item.driving.identity] * count),
        "source_clip": pa.array([item.source.clip_id] * count),
        "frame": pa.array(range(count), pa.int32()),
    }
    for name in metrics:
        columns[name] = _column(scores[name]) if name in scores else pa.nulls(count, pa.float64())
    return pa.table(columns)


def read_frames(folder: Path, item: Item, metrics: Sequence[str]) -> pa.Table | None:
    """The table of a finished item; None where there is none, or it is not that of this item, or is damaged."""
    path = folder / FRAMES_DIR / f"{item.name}.parquet"
    if not path.is_file():
        return None
    try:
        table = read_table(path)
    except InputError:
        return None
    is_whole = table.num_rows == item.driving.num_frames and table.column_names[5:] == list(metrics)
    return table if is_whole else None


def mean_states(frames: pa.Table, metrics: Sequence[str]) -> dict[str, MeanState]:
    """The means of some frames, which add up with those of others."""
    return {name: MeanState().add(*_scores(frames[name])) for name in metrics}


def merged(states: Sequence[States]) -> dict[str, MeanState]:
    """The means over all frames of several clips."""
    names = dict.fromkeys(name for state in states for name in state)
    return {name: _merge(state[name] for state in states) for name in names}


def clip_table(items: Sequence[Item], states: Sequence[States], metrics: Sequence[str]) -> pa.Table:
    """One row per item: for each metric its mean (null where no frame has a number) and NAME_count."""
    columns: dict[str, Any] = {
        "protocol": pa.array([item.protocol for item in items], pa.string()),
        "clip_id": pa.array([item.driving.clip_id for item in items], pa.string()),
        "identity": pa.array([item.driving.identity for item in items], pa.string()),
        "source_clip": pa.array([item.source.clip_id for item in items], pa.string()),
        "num_frames": pa.array([item.driving.num_frames for item in items], pa.int32()),
    }
    for name in metrics:
        of_clips = [state.get(name, MeanState()) for state in states]
        means = [state.value if state.count or state.num_broken else None for state in of_clips]
        columns[name] = pa.array(means, pa.float64())
        columns[f"{name}_count"] = pa.array([state.count for state in of_clips], pa.int32())
    return pa.table(columns)


def read_clip_means(folder: Path) -> list[ClipMean]:
    """The clips of a finished evaluation. Raises InputError where the file is missing or broken."""
    found = []
    for row in read_table(folder / PER_CLIP_NAME).to_pylist():
        names = [name for name in METRICS if name in row]
        found.append(
            ClipMean(
                protocol=row["protocol"],
                clip_id=row["clip_id"],
                identity=row["identity"],
                source_clip=row["source_clip"],
                num_frames=row["num_frames"],
                means={name: row[name] for name in names},
                counts={name: row[f"{name}_count"] for name in names},
            )
        )
    return found


def read_table(path: Path) -> pa.Table:
    """A Parquet file. Raises InputError where it is missing or broken."""
    try:
        return pq.read_table(path, partitioning=None)
    except UNREADABLE as error:
        raise InputError(f"{path} is missing or broken; evaluate with --fresh") from error


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file under a temporary name, then rename it; InputError where the disk does not take it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        pq.write_table(table, partial)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}); the same command goes on when it can") from error
    finally:
        partial.unlink(missing_ok=True)


def _column(scores: FrameScores) -> pa.Array:
    return pa.array(scores.value.double().numpy(), pa.float64(), mask=(~scores.is_measured).numpy())


def _scores(column: pa.ChunkedArray) -> FrameScores:
    is_measured = torch.tensor([value is not None for value in column.to_pylist()], dtype=torch.bool)
    return FrameScores(torch.tensor(column.to_numpy(), dtype=torch.float64), is_measured)


def _merge(states: Iterator[MeanState]) -> MeanState:
    total = MeanState()
    for state in states:
        total = total.merge(state)
    return total
