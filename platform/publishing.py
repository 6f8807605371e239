"""What MLflow gets to see of a finished stage: its unsent metrics, tables, pictures, tags and status.

All of it is made again from the stage's folder, so that a store that is away can have it later.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdam.platform.evaluation.reconstruction import Reconstruction
from hdam.platform.outbox import Outbox
from hdam.platform.runs import StageRecord
from hdam.platform.stage_screening import SHEET_NAME
from hdam.platform.stage_training import GROWTH_NAME
from hdam.platform.stages import StageKind
from hdam.platform.tracked_run import end_run, log_file, log_metrics, log_table, set_tags
from hdam.platform.tracking import tolerated
from hdam.platform.train_report import reconstruction_from_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

SCREENING_TABLE = "screening.json"
EVALUATION_TABLE = "evaluation.json"
SCORES = ("test/l1", "test/repeat_l1", "test/ratio")
"""Of the stage `evaluate`."""


def publish(client: "MlflowClient", kind: StageKind, folder: Path, record: StageRecord) -> bool:
    """Send MLflow all that a finished stage has to show; False, with a word in the log, where it does not take it."""
    assert record.result is not None, "a finished stage has a result"
    kept = f"the results of stage {kind} are kept in {folder}, and sent at the end of the run or by the same command"
    with tolerated(kept):
        _PUBLISHERS.get(kind, _publish_training)(client, record.mlflow_run_id, folder, record.result)
        return end_run(client, record.mlflow_run_id, "FINISHED")
    return False


def scores_of(found: Reconstruction) -> dict[str, float]:
    """By the names under which they are logged."""
    return dict(zip(SCORES, (found.l1, found.repeat_l1, found.ratio), strict=True))


def _publish_training(client: "MlflowClient", run_id: str, folder: Path, result: Mapping[str, Any]) -> None:
    Outbox(client, run_id, folder=folder).send()
    if (folder / GROWTH_NAME).exists():
        log_file(client, run_id, folder / GROWTH_NAME)
    set_tags(client, run_id, {"skipped_steps": str(result["skipped"])})


def _publish_screening(client: "MlflowClient", run_id: str, folder: Path, result: Mapping[str, Any]) -> None:
    losses, ignored = result["losses"], result["ignored"]
    columns = {
        "anchor": list(range(len(losses))),
        "equivariance_loss": losses,
        "is_abnormal": [anchor in ignored for anchor in range(len(losses))],
    }
    log_table(client, run_id, SCREENING_TABLE, columns)
    log_file(client, run_id, folder / SHEET_NAME)
    log_metrics(client, run_id, {"num_abnormal": len(ignored)}, step=0)
    set_tags(client, run_id, {"ignored": str(ignored)})


def _publish_evaluation(client: "MlflowClient", run_id: str, folder: Path, result: Mapping[str, Any]) -> None:  # noqa: ARG001
    found = reconstruction_from_json(result["reconstruction"])
    if found is None:
        return
    log_metrics(client, run_id, scores_of(found), step=result["steps"])
    columns = {name: [getattr(clip, name) for clip in found.clips] for name in found.clips[0]._fields}
    log_table(client, run_id, EVALUATION_TABLE, columns)


_PUBLISHERS: Mapping[StageKind, Callable[["MlflowClient", str, Path, Mapping[str, Any]], None]] = {
    "screen": _publish_screening,
    "evaluate": _publish_evaluation,
}
