"""The last act of a run: its model goes into the registry, and its report says what was made."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hdam.platform.job import Done
from hdam.platform.model_folder import read_checkpointed_model
from hdam.platform.prepared import Prepared
from hdam.platform.registry import CANDIDATE, find_version, register, set_alias
from hdam.platform.stages import StageKind, with_screening
from hdam.platform.tracking import wait_for_store
from hdam.platform.train_report import StageReport, TrainReport, outcome, reconstruction_from_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG = logging.getLogger("hdam")


def register_trained(
    prepared: Prepared,
    done: Mapping[StageKind, Done],
    *,
    run_dir: Path,
    client: "MlflowClient",
    run_id: str,
    seconds: float,
) -> TrainReport:
    """Register the model of a run whose stages are all done, unless it is there, and point `candidate` at it.

    Raises InputError where the registry does not answer for minutes.
    """
    trained, name = done[prepared.trained.kind], f"hdam-{prepared.manifest.name}"
    ignored = tuple(done["screen"].result["ignored"]) if "screen" in done else prepared.experiment.model.ignored
    stage = {"stage": trained.folder.name, "stage.run": trained.record.mlflow_run_id}
    wait_for_store(client)
    version = find_version(name, stage)
    if version is None:
        model, _ = read_checkpointed_model(trained.checkpoint)
        experiment = with_screening(prepared.experiment, ignored)
        tags = _tags(prepared, done, run_dir=run_dir, ignored=ignored) | stage
        version = register(model=model, experiment=experiment, name=name, run_id=run_id, tags=tags)
    else:
        LOG.info("the model of %s is registered already, as version %s of %s", trained.folder.name, version, name)
        set_alias(name, version, CANDIDATE)
    return TrainReport(
        run_dir=run_dir,
        mlflow_run_id=run_id,
        stages=tuple(_stage_report(each) for each in done.values()),
        num_steps=trained.result["steps"],
        losses=trained.result["losses"],
        ignored=ignored,
        reconstruction=reconstruction_from_json(done["evaluate"].result["reconstruction"]),
        model_name=name,
        model_version=version,
        seconds=seconds,
    )


def _tags(
    prepared: Prepared, done: Mapping[StageKind, Done], *, run_dir: Path, ignored: tuple[int, ...]
) -> dict[str, str]:
    experiment, manifest = prepared.experiment, prepared.manifest
    tags = {
        "variant": experiment.model.variant,
        "experiment": experiment.name,
        "run": run_dir.name,
        "steps": str(done[prepared.trained.kind].result["steps"]),
        "dataset": manifest.name,
        "dataset.fingerprint": manifest.fingerprint,
        "ignored": str(list(ignored)),
    }
    if "screen" in done:
        tags["epsilon"] = f"{experiment.screen.epsilon:g}"
    found = reconstruction_from_json(done["evaluate"].result["reconstruction"])
    scores = {} if found is None else {"l1": found.l1, "repeat_l1": found.repeat_l1, "ratio": found.ratio}
    return tags | {score: f"{value:.6g}" for score, value in scores.items()}


def _stage_report(done: Done) -> StageReport:
    return StageReport(
        kind=done.stage.kind,
        folder=str(done.folder),
        mlflow_run_id=done.record.mlflow_run_id,
        was_known=done.was_known,
        seconds=done.result["seconds"],
        outcome=outcome(done.stage.kind, done.result),
    )
