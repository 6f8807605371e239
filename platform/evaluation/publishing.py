"""What MLflow gets to see of a finished evaluation: a run with means, tables and pictures, and tags of the model."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdam.experiments.experiment import Experiment
from hdam.experiments.loading import override
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import load_manifest
from hdam.platform.evaluation.report import TABLE_NAMES, ratio_of, title_of
from hdam.platform.evaluation.results import RECORD_NAME, EvaluationRecord, read_evaluation, write_evaluation
from hdam.platform.evaluation.sheet import sheets_of
from hdam.platform.evaluation.tables import PER_CLIP_NAME, PER_FRAME_NAME
from hdam.platform.registry import tag_version
from hdam.platform.tracked_run import end_run, log_file, log_metrics, log_table, run_status, start_run
from hdam.platform.tracking import connect, tolerated

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG = logging.getLogger("hdam")

TABLE_NAME = "evaluation_table.json"


def publish_evaluation(folder: Path, experiment: Experiment) -> EvaluationRecord:
    """Log a finished evaluation to MLflow, unless it is there, and tag the model if it is registered.

    `experiment` is that of the model. Returns the record, with the run's id. Where MLflow is away that is a warning,
    and the same command logs it later. Raises InputError where the folder is broken.
    """
    record = read_evaluation(folder)
    if record is None:
        raise InputError(f"{folder}: no evaluation there")
    try:
        client = connect()
    except InputError as error:
        LOG.warning("%s; the same command logs the evaluation when it does", error)
        return record
    with tolerated("the evaluation was not logged; the same command does when it can"):
        if record.mlflow_run_id and run_status(client, record.mlflow_run_id) is not None:
            return record
        record = dataclasses.replace(record, mlflow_run_id=_log(client, folder, record, experiment))
        write_evaluation(folder, record)
    return record


def _log(client: "MlflowClient", folder: Path, record: EvaluationRecord, experiment: Experiment) -> str:
    settings = override(experiment, {"data.path": record.dataset["path"]})
    tags = {f"model.{name}": value for name, value in record.model.items()}
    tags |= {f"instrument.{name}": version for name, version in record.instruments.items()}
    run_id = start_run(
        client,
        settings,
        load_manifest(record.dataset["path"]),
        run_name=f"evaluate {title_of(record)}",
        tags={"kind": "evaluation", "evaluation": json.dumps(record.settings), **tags},
        context="evaluation",
    )
    log_metrics(client, run_id, _metrics(record), step=0)
    log_table(client, run_id, TABLE_NAME, _columns(record))
    names = (RECORD_NAME, *TABLE_NAMES, PER_CLIP_NAME, PER_FRAME_NAME, *sheets_of(folder))
    for name in names:
        log_file(client, run_id, folder / name)
    if record.model["version"]:
        tag_version(record.model["name"], record.model["version"], _version_tags(record, run_id))
    end_run(client, run_id, "FINISHED")
    return run_id


def _metrics(record: EvaluationRecord) -> dict[str, float]:
    """Means by `protocol/metric`; what has none is left out."""
    found = {
        f"{protocol}/{name}": mean.value
        for protocol, means in record.means.items()
        for name, mean in means.items()
        if mean.value is not None
    }
    ratio = ratio_of(record)
    return found if ratio is None else found | {"reconstruction/ratio": ratio}


def _version_tags(record: EvaluationRecord, run_id: str) -> Mapping[str, str]:
    place = f"evaluation/{record.dataset['name']}"
    return {f"{place}/run": run_id} | {f"{place}/{name}": f"{value:.6g}" for name, value in _metrics(record).items()}


def _columns(record: EvaluationRecord) -> dict[str, list[Any]]:
    rows = [(protocol, name, mean) for protocol, means in record.means.items() for name, mean in means.items()]
    return {
        "protocol": [protocol for protocol, _, _ in rows],
        "metric": [name for _, name, _ in rows],
        "mean": [mean.value for _, _, mean in rows],
        "count": [mean.count for _, _, mean in rows],
        "unmeasured": [mean.num_unmeasured for _, _, mean in rows],
        "instrument": [record.instruments.get(name, "") for _, name, _ in rows],
    }
