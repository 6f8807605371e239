"""What a finished run made, and how that is kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hdam.platform.evaluation.reconstruction import ClipScore, Reconstruction


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """What became of one stage."""

    kind: str
    folder: str
    mlflow_run_id: str
    was_known: bool
    """It was finished before, in this run or another."""
    seconds: float
    """That it took in the last attempt, wherever that was."""
    outcome: str
    """In a few words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """What a finished run made."""

    run_dir: Path
    mlflow_run_id: str
    stages: tuple[StageReport, ...]
    num_steps: int
    """Of the training that made the model."""
    losses: dict[str, float]
    """Its means over the last steps, by name; `total` among them."""
    ignored: tuple[int, ...]
    """Motion anchors that screening found abnormal."""
    reconstruction: Reconstruction | None
    """On the test split; None where the dataset has none."""
    model_name: str
    model_version: str
    seconds: float
    """Of the last attempt."""
    was_known: bool = False
    """The run had been finished before, and nothing was done."""

    @property
    def model_uri(self) -> str:
        """Names this very model."""
        return f"models:/{self.model_name}/{self.model_version}"

    @property
    def training_dir(self) -> Path:
        """Where checkpoints and pictures of the model's training are."""
        return Path(self.stages[-2].folder)


def report_to_json(report: TrainReport) -> dict[str, Any]:
    """Plain values for the run's record."""
    values = {name: getattr(report, name) for name in report.__slots__ if name not in ("run_dir", "was_known")}
    found = report.reconstruction
    return values | {
        "stages": [asdict(stage) for stage in report.stages],
        "ignored": list(report.ignored),
        "reconstruction": None if found is None else reconstruction_to_json(found),
    }


def report_from_json(content: Mapping[str, Any], *, run_dir: Path) -> TrainReport:
    """The report of a run that was finished before."""
    values = dict(content)
    values["stages"] = tuple(StageReport(**stage) for stage in values["stages"])
    values["ignored"] = tuple(values["ignored"])
    values["reconstruction"] = reconstruction_from_json(values["reconstruction"])
    return TrainReport(**values, run_dir=run_dir, was_known=True)


def outcome(kind: str, result: Mapping[str, Any]) -> str:
    """What a finished stage found, in a few words."""
    if kind == "screen":
        ignored, total = result["ignored"], len(result["losses"])
        which = f" ({', '.join(map(str, ignored))})" if ignored else ""
        return f"{len(ignored)} of {total} anchors abnormal{which}, ε {result['epsilon']:g}"
    if kind == "evaluate":
        found = reconstruction_from_json(result["reconstruction"])
        return "nothing is held out" if found is None else f"L1 {found.l1:.4f}, ratio {found.ratio:.2f}"
    skipped = f", {result['skipped']} skipped" if result["skipped"] else ""
    return f"{result['steps']} steps{skipped}"


def reconstruction_to_json(found: Reconstruction) -> dict[str, Any]:
    """Plain values for a record."""
    return found._asdict() | {"clips": [score._asdict() for score in found.clips]}


def reconstruction_from_json(content: Mapping[str, Any] | None) -> Reconstruction | None:
    """What `reconstruction_to_json` was given; None for None."""
    if content is None:
        return None
    return Reconstruction(**{**content, "clips": tuple(ClipScore(**score) for score in content["clips"])})
