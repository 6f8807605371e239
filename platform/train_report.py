"""What a finished training made, and how that is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdam.platform.evaluation import ClipScore, Reconstruction


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """What a finished training made."""

    run_dir: Path
    mlflow_run_id: str
    num_steps: int
    losses: dict[str, float]
    """Means over the last steps, by name; `total` among them."""
    reconstruction: Reconstruction | None
    """On the test split; None where the dataset has none."""
    model_name: str
    model_version: str
    seconds: float
    """Of the last attempt."""
    was_known: bool = False
    """The run had been finished before, and nothing was trained."""

    @property
    def model_uri(self) -> str:
        """Names this very model."""
        return f"models:/{self.model_name}/{self.model_version}"


def report_to_json(report: TrainReport) -> dict[str, Any]:
    """Plain values for the run's record."""
    found = report.reconstruction
    scores = None if found is None else found._asdict() | {"clips": [score._asdict() for score in found.clips]}
    return {
        "mlflow_run_id": report.mlflow_run_id,
        "num_steps": report.num_steps,
        "losses": report.losses,
        "reconstruction": scores,
        "model_name": report.model_name,
        "model_version": report.model_version,
        "seconds": report.seconds,
    }


def report_from_json(content: Mapping[str, Any], *, run_dir: Path) -> TrainReport:
    """The report of a run that was finished before."""
    values = dict(content)
    if scores := values.pop("reconstruction"):
        clips = tuple(ClipScore(**score) for score in scores.pop("clips"))
        scores = Reconstruction(**scores, clips=clips)
    return TrainReport(**values, reconstruction=scores, run_dir=run_dir, was_known=True)
