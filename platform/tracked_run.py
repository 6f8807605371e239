"""What is written about one MLflow run: what is trained on what, how it ends, and the files and tables of between.

Where the store is away, these functions raise its errors; `tracking.tolerated` is for callers that can do without.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hdam.experiments.experiment import Experiment
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import Manifest
from hdam.platform.locks import locked_if_free
from hdam.platform.tracking import JOB_VARIABLE, connect, has_server, results_dir, tolerated

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

PROBE_EXPERIMENT = "hdam-doctor"
PROBE_FILE = "probe.txt"
PACKAGES = ("hdam", "torch", "ray", "mlflow", "numpy", "pyarrow", "av")
PARAMS_AT_ONCE = 100
LONGEST_PARAM = 500
PARENT_TAG = "mlflow.parentRunId"
SECONDS_TO_UNLOCK = 10.0
TABLES_TAG = "mlflow.loggedArtifacts"

Status = Literal["FINISHED", "FAILED", "KILLED"]


def start_run(
    client: "MlflowClient",
    experiment: Experiment,
    manifest: Manifest | None,
    *,
    run_name: str,
    parent_id: str = "",
    tags: Mapping[str, str] = {},
    context: Literal["training", "evaluation"] = "training",
    on_created: Callable[[str], None] = lambda _: None,
) -> str:
    """Begin a run that says what is trained (or evaluated) on what, and with what; returns its id.

    A model that was trained elsewhere has no manifest. MLflow shows the run below the run `parent_id`, if there is one.
    `on_created` hears of it before it is described.
    """
    run = client.create_run(
        _experiment_id(client, experiment.name),
        run_name=run_name,
        tags=_tags(experiment) | _dataset_tags(manifest) | dict(tags) | ({PARENT_TAG: parent_id} if parent_id else {}),
    )
    run_id = str(run.info.run_id)
    on_created(run_id)
    _log_params(client, run_id, experiment.settings())
    client.log_dict(run_id, experiment.settings(), "experiment.yaml")
    if manifest is not None:
        client.log_inputs(run_id, datasets=[_dataset_input(experiment, manifest, context)])
    return run_id


def begin_run(
    client: "MlflowClient",
    experiment_name: str,
    *,
    run_name: str,
    tags: Mapping[str, str] = {},
    params: Mapping[str, Any] = {},
) -> str:
    """Begin a run that trains nothing, such as a comparison; returns its id."""
    run = client.create_run(_experiment_id(client, experiment_name), run_name=run_name, tags=_code_tags() | dict(tags))
    run_id = str(run.info.run_id)
    _log_params(client, run_id, params)
    return run_id


def probe_run(client: "MlflowClient", *, name: str) -> None:
    """Begin a run, write a metric and a file, read both again, and remove the run.

    Raises InputError where the store does not give back what was written, MlflowException or OSError where it fails.
    """
    run_id = client.create_run(_experiment_id(client, PROBE_EXPERIMENT), run_name=name).info.run_id
    try:
        client.log_metric(run_id, "probe", 1.0)
        client.log_text(run_id, name, PROBE_FILE)
        with tempfile.TemporaryDirectory() as folder:
            written = Path(client.download_artifacts(run_id, PROBE_FILE, folder)).read_text(encoding="utf-8")
        if written != name or client.get_run(run_id).data.metrics.get("probe") != 1.0:
            raise InputError("the tracking server does not give back what was written")
    finally:
        client.set_terminated(run_id)
        client.delete_run(run_id)


def resume_run(client: "MlflowClient", run_id: str) -> bool:
    """Set a run of an earlier attempt to running again; False where this tracking store does not have it."""
    if run_status(client, run_id) is None:
        return False
    client.update_run(run_id, status="RUNNING")
    return True


def end_run(client: "MlflowClient", run_id: str, status: Status) -> bool:
    """Set the final status; False, with a word in the log, where the store does not take it."""
    with tolerated("the run's status was not written"):
        client.set_terminated(run_id, status=status)
        return True
    return False


def settle_run(run_id: str, folder: Path, status: str, *, instead_of: Collection[str] = ("RUNNING",)) -> bool:
    """Set the status of a run that is shown as RUNNING (`instead_of`), though no process holds its folder any more.

    True where nothing is left to do, False where the store does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        client = connect()  # before the lock, so that it is held for no longer than it takes to set the status
        # The kernel closes a killed process's files one after another; its lock may go a little later than its pipe.
        with locked_if_free(folder, seconds=SECONDS_TO_UNLOCK) as is_free:
            if is_free and run_status(client, run_id) in instead_of:
                client.set_terminated(run_id, status=status)
    except (MlflowException, InputError, OSError):
        return False
    return True


def run_status(client: "MlflowClient", run_id: str) -> str | None:
    """MLflow's word for how the run is doing; None where the store does not have it, or has it in the bin."""
    from mlflow.exceptions import MlflowException

    try:
        info = client.get_run(run_id).info
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return str(info.status) if info.lifecycle_stage == "active" else None


def last_metrics(client: "MlflowClient", run_id: str) -> dict[str, float]:
    """The newest value of every metric of the run, by name."""
    return dict(client.get_run(run_id).data.metrics)


def set_tags(client: "MlflowClient", run_id: str, tags: Mapping[str, str]) -> None:
    """Add tags to the run, or change them."""
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def log_metrics(client: "MlflowClient", run_id: str, metrics: Mapping[str, float], *, step: int) -> None:
    """Metrics of one step, sent at once; an `Outbox` is for those of every few steps."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(name, float(value), now, step) for name, value in metrics.items()])


def log_file(client: "MlflowClient", run_id: str, path: Path) -> None:
    """Keep a copy of a file with the run."""
    client.log_artifact(run_id, str(path))


def log_folder(client: "MlflowClient", run_id: str, folder: Path) -> None:
    """Keep a copy of all that is in a folder with the run."""
    client.log_artifacts(run_id, str(folder))


def log_table(client: "MlflowClient", run_id: str, name: str, columns: Mapping[str, list[Any]]) -> None:
    """Keep a table, its columns by name, as a file that MLflow shows as such; `name` ends in `.json`.

    A table of an earlier attempt is replaced; MLflow's own `log_table` would append to it.
    """
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    client.log_dict(run_id, {"columns": list(columns), "data": rows}, name)
    tables = json.loads(client.get_run(run_id).data.tags.get(TABLES_TAG, "[]"))
    if name not in [table["path"] for table in tables]:
        client.set_tag(run_id, TABLES_TAG, json.dumps([*tables, {"path": name, "type": "table"}]))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _experiment_id(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        # Without a server, artifacts would land in the current folder.
        location = None if has_server() else (results_dir() / "artifacts").as_uri()
        return str(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _dataset_tags(manifest: Manifest | None) -> dict[str, str]:
    return {} if manifest is None else {"dataset": manifest.name, "dataset.fingerprint": manifest.fingerprint}


def _tags(experiment: Experiment) -> dict[str, str]:
    return {"question": experiment.question, "variant": experiment.model.variant, **_code_tags()}


def _code_tags() -> dict[str, str]:
    """With what the run was made."""
    versions = {f"version.{package}": metadata.version(package) for package in PACKAGES}
    made_by = {"mlflow.source.git.commit": git_commit(), "job": os.environ.get(JOB_VARIABLE, "")}
    return versions | {name: value for name, value in made_by.items() if value}


def git_commit() -> str:
    """The commit of the checkout that this code is run from, or was sent from as a job; empty where there is none."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return os.environ.get("HDAM_COMMIT", "")
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def _log_params(client: "MlflowClient", run_id: str, settings: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in flatten(settings).items()]
    for start in range(0, len(params), PARAMS_AT_ONCE):
        client.log_batch(run_id, params=params[start : start + PARAMS_AT_ONCE])


def _dataset_input(experiment: Experiment, manifest: Manifest, context: str) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=manifest.name,
        digest=manifest.fingerprint[:32],
        source_type="hdam",
        source=experiment.data.path,
        profile=str({split: counts.clips for split, counts in manifest.splits.items()}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
