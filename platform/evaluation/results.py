"""The folder of an evaluation, written clip by clip, so that an interrupted one goes on.

results/evaluations/NAME-KEY/
  evaluation.json       what was evaluated, how, and in the end the means
  frames/PROTOCOL/CLIP.parquet   one row per frame of a finished clip, until all are joined
  per_frame.parquet     protocol, clip_id, identity, source_clip, frame, and a column for each metric
  per_clip.parquet      protocol, clip_id, identity, source_clip, num_frames, and for each metric NAME and NAME_count
  table.md, table.csv   the means
  videos/PROTOCOL/CLIP.mp4       source, driving and result side by side

A metric that a frame does not have, since nothing was found in it, is null; one that is no number is NaN.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hdam.pipelines.errors import InputError
from hdam.platform.runs import write_json

RECORD_NAME = "evaluation.json"
VIDEOS_DIR = "videos"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean:
    """A metric's mean over the frames of all clips."""

    value: float | None
    """None where no frame has a number, or one is no number."""
    count: int
    """Frames that have one."""
    num_unmeasured: int = 0
    num_broken: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """A metric that was left out."""

    metric: str
    reason: str
    remedy: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRecord:
    """What `evaluation.json` holds."""

    status: str
    """`running` or `finished`."""
    model: dict[str, str]
    """name, version, uri, variant, and weights: the SHA-256 over them."""
    dataset: dict[str, str]
    """name, path, fingerprint and split."""
    settings: dict[str, Any]
    instruments: dict[str, str]
    """Name and version of what each metric looked through."""
    num_clips: int
    num_frames: int
    means: dict[str, dict[str, Mean]] = field(default_factory=dict)
    """By protocol and metric."""
    missing: list[Missing] = field(default_factory=list)
    mlflow_run_id: str = ""


def write_evaluation(folder: Path, record: EvaluationRecord) -> None:
    """Write `evaluation.json`. Raises InputError where the disk does not take it."""
    write_json(folder / RECORD_NAME, asdict(record))


def read_evaluation(folder: Path) -> EvaluationRecord | None:
    """The record of a folder; None where there is none. Raises InputError for a broken one."""
    path = folder / RECORD_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["means"] = {
            protocol: {name: Mean(**mean) for name, mean in means.items()}
            for protocol, means in content["means"].items()
        }
        content["missing"] = [Missing(**each) for each in content["missing"]]
        return EvaluationRecord(**content)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is broken; evaluate with --fresh") from error
