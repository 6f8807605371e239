"""Folders of finished evaluations with numbers that a test has chosen."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from hdam.platform.evaluation.metrics import METRICS
from hdam.platform.evaluation.results import EvaluationRecord, Mean, Missing, write_evaluation
from hdam.platform.evaluation.tables import PER_CLIP_NAME, PER_FRAME_NAME, write_table

FINGERPRINT = "f1" * 32
SETTINGS = {"split": "test", "protocols": ["reconstruction", "cross"], "cross_mode": "relative", "seed": 0}
INSTRUMENTS = {"lpips_alex": "LPIPS 0.1, alex", "akd_face": "dlib 20.0.1, 68 landmarks"}


def make_evaluation(
    folder: Path,
    numbers,
    *,
    name="hdam-squares",
    version="1",
    sources=None,
    missing=(),
    status="finished",
    **changes,
):
    """A finished evaluation in `folder`; `numbers`: protocol → metric → clip id → a number (or None) per frame.

    `sources`: protocol → clip id → the clip whose frame 0 follows. `changes` are fields of the record.
    """
    folder.mkdir(parents=True)
    names = [metric for metric in METRICS if any(metric in metrics for metrics in numbers.values())]
    items = [
        (protocol, clip_id, (sources or {}).get(protocol, {}).get(clip_id, clip_id), metrics)
        for protocol, metrics in numbers.items()
        for clip_id in next(iter(metrics.values()), {})
    ]
    frames, clips = {}, {}
    for protocol, clip_id, source, metrics in items:
        values = {metric: metrics.get(metric, {}).get(clip_id) for metric in names}
        count = max(len(each) for each in values.values() if each is not None)
        add(clips, protocol=protocol, clip_id=clip_id, identity=clip_id, source_clip=source, num_frames=count)
        for frame in range(count):
            add(frames, protocol=protocol, clip_id=clip_id, identity=clip_id, source_clip=source, frame=frame)
        for metric, each in values.items():
            frames.setdefault(metric, []).extend(each if each is not None else [None] * count)
            measured = [value for value in each or [] if value is not None]
            clips.setdefault(metric, []).append(float(np.mean(measured)) if measured else None)
            clips.setdefault(f"{metric}_count", []).append(int(np.isfinite(measured).sum()) if measured else 0)
    for file, columns in ((PER_FRAME_NAME, frames), (PER_CLIP_NAME, clips)):
        floats = {column: pa.array(values, pa.float64()) for column, values in columns.items() if column in names}
        write_table(folder / file, pa.table({**columns, **floats}))
    first = next(iter(next(iter(numbers.values())).values()))
    fields = {
        "status": status,
        "model": {"name": name, "version": version, "uri": f"models:/{name}/{version}", "variant": "hdam"}
        | {"weights": hashlib.sha256(f"{name} {version}".encode()).hexdigest()},
        "dataset": {"name": "squares", "path": "squares", "fingerprint": FINGERPRINT, "split": "test"},
        "settings": SETTINGS,
        "instruments": {metric: text for metric, text in INSTRUMENTS.items() if metric in names},
        "num_clips": len(first),
        "num_frames": sum(map(len, first.values())),
        "means": {
            protocol: {metric: mean_of(clips_of) for metric, clips_of in metrics.items()}
            for protocol, metrics in numbers.items()
        },
        "missing": [Missing(metric=metric, reason=reason, remedy=remedy) for metric, reason, remedy in missing],
        "mlflow_run_id": "0123456789abcdef",
    }
    write_evaluation(folder, EvaluationRecord(**fields | changes))
    return folder


def mean_of(clips):
    """What the record says of a metric."""
    values = [value for each in clips.values() for value in each]
    measured = [value for value in values if value is not None]
    sound = [value for value in measured if np.isfinite(value)]
    return Mean(
        value=float(np.mean(sound)) if sound and len(sound) == len(measured) else None,
        count=len(sound),
        num_unmeasured=len(values) - len(measured),
        num_broken=len(measured) - len(sound),
    )


def add(columns, **values):
    for name, value in values.items():
        columns.setdefault(name, []).append(value)


def one_metric(values, *, metric="l1", lengths=None):
    """Numbers of one metric: clip i has `values[i]` in each of its frames."""
    lengths = lengths or [4] * len(values)
    clips = {f"clip{i}": [value] * length for i, (value, length) in enumerate(zip(values, lengths, strict=True))}
    return {"reconstruction": {metric: clips}}
