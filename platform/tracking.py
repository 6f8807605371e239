"""MLflow tracking: where runs are kept, and what is written about each of them."""

import contextlib
import json
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hdam.experiments.experiment import Experiment
from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.manifest import Manifest

if TYPE_CHECKING:  # MLflow takes seconds to import; who only asks where the results are should not wait
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

LOG = logging.getLogger("hdam")

ENVIRONMENT = {
    # A server that is away should cost a training seconds, not minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
PACKAGES = ("hdam", "torch", "ray", "mlflow", "numpy", "pyarrow", "av")
PARAMS_AT_ONCE = 100
LONGEST_PARAM = 500
SECONDS_BETWEEN_FLUSHES = 5.0
SECONDS_AFTER_OUTAGE = 60.0
MOST_KEPT_METRICS = 200_000
EVALUATION_NAME = "evaluation.json"

Status = Literal["FINISHED", "FAILED", "KILLED"]


def results_dir() -> Path:
    """Where runs and the tracking database are: HDAM_RESULTS, or `results` in the current folder."""
    return Path(os.environ.get("HDAM_RESULTS") or "results").expanduser().absolute()


def tracking_uri() -> str:
    """The tracking server of MLFLOW_TRACKING_URI, or a SQLite file among the results."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results_dir() / 'mlflow.db'}"


def has_server() -> bool:
    """Whether tracking goes to a server, which keeps artifacts itself; else they go into the results folder."""
    return tracking_uri().startswith(("http:", "https:", "databricks"))


def connect() -> "MlflowClient":
    """A client of the tracking store. Raises InputError when it cannot be reached, or the results not be written."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name in ("alembic", "mlflow.store"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = tracking_uri()
    if not has_server():
        _make_results_dir()
    with _unchanged("MLFLOW_TRACKING_URI"):  # MLflow would write it there, and the next call take it for the user's
        mlflow.set_tracking_uri(uri)
    try:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except (MlflowException, OSError, ImportError) as error:  # a database's driver may be missing
        problem = f"MLflow at {uri} does not answer ({first_line(error)}); look at MLFLOW_TRACKING_URI"
        raise InputError(_masked(problem)) from error
    return client


def start_run(client: "MlflowClient", experiment: Experiment, manifest: Manifest, *, run_name: str) -> str:
    """Begin a run that says what is trained on what, and with what; returns its id."""
    run = client.create_run(
        _experiment_id(client, experiment.name), run_name=run_name, tags=_tags(experiment, manifest)
    )
    run_id = str(run.info.run_id)
    _log_params(client, run_id, experiment.settings())
    client.log_dict(run_id, experiment.settings(), "experiment.yaml")
    client.log_inputs(run_id, datasets=[_dataset_input(experiment, manifest)])
    return run_id


def resume_run(client: "MlflowClient", run_id: str) -> bool:
    """Set a run of an earlier attempt to running again; False where this tracking store does not know it."""
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException:
        return False
    return True


def end_run(client: "MlflowClient", run_id: str, status: Status) -> None:
    """Set the final status; a store that is away is no reason to fail at the end."""
    with _tolerated("the run's status was not written"):
        client.set_terminated(run_id, status=status)


def log_picture(client: "MlflowClient", run_id: str, path: Path, *, step: int) -> None:
    """Add a picture to the run's series."""
    from PIL import Image

    with _tolerated(f"picture {path.name} was not logged"), Image.open(path) as image:
        client.log_image(run_id, image, key="transfer", step=step)


def log_scores(
    client: "MlflowClient", run_id: str, scores: Mapping[str, float], table: Mapping[str, list[Any]], *, step: int
) -> None:
    """The evaluation after `step`: `scores` as metrics, `table` (columns by name) as an artifact that MLflow shows.

    A table of an earlier attempt is replaced; MLflow's own `log_table` would append to it.
    """
    rows = [list(row) for row in zip(*table.values(), strict=True)]
    with _tolerated("the evaluation was not logged"):
        for name, value in scores.items():
            client.log_metric(run_id, name, value, step=step)
        client.log_dict(run_id, {"columns": list(table), "data": rows}, EVALUATION_NAME)
        client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": EVALUATION_NAME, "type": "table"}]))


def ui_command() -> str:
    """What shows the runs in a browser; `***` stands for a user name and password in the address."""
    uri = _masked(tracking_uri())
    return f"open {uri}" if has_server() else f"mlflow ui --backend-store-uri {uri}"


class MetricBuffer:
    """Metrics that go out in batches; while the store is away they are kept, and training is not disturbed."""

    def __init__(self, client: "MlflowClient", run_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._run_id = run_id
        self._clock = clock
        self._kept: list[tuple[str, float, int, int]] = []
        self._next_flush = 0.0
        self._has_warned = False

    def add(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Keep metrics of a step, and send what is kept every few seconds."""
        now = int(time.time() * 1000)
        self._kept += [(name, value, now, step) for name, value in metrics.items()]
        del self._kept[:-MOST_KEPT_METRICS]
        if self._clock() >= self._next_flush:
            self.flush()

    def flush(self) -> None:
        """Send what is kept; on failure it stays kept, and the first failure is told."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        self._next_flush = self._clock() + SECONDS_BETWEEN_FLUSHES
        try:
            while self._kept:
                part = self._kept[:1000]
                self._client.log_batch(self._run_id, metrics=[Metric(*metric) for metric in part])
                del self._kept[: len(part)]
        except (MlflowException, OSError) as error:
            self._next_flush = self._clock() + SECONDS_AFTER_OUTAGE
            if not self._has_warned:
                LOG.warning(
                    "MLflow does not take metrics (%s); training goes on, they are kept", _masked(first_line(error))
                )
            self._has_warned = True

    @property
    def num_kept(self) -> int:
        """Metrics that wait to be sent."""
        return len(self._kept)


def _make_results_dir() -> None:
    try:
        results_dir().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"no results can be kept in {results_dir()} ({reason}); set HDAM_RESULTS") from error


def _experiment_id(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        # Without a server, artifacts would land in the current folder.
        location = None if has_server() else (results_dir() / "artifacts").as_uri()
        return str(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _tags(experiment: Experiment, manifest: Manifest) -> dict[str, str]:
    versions = {f"version.{package}": metadata.version(package) for package in PACKAGES}
    commit = _git_commit()
    return {
        "question": experiment.question,
        "variant": experiment.model.anchors.variant,
        "dataset": manifest.name,
        "dataset.fingerprint": manifest.fingerprint,
        **versions,
        **({"mlflow.source.git.commit": commit} if commit else {}),
    }


def _git_commit() -> str:
    """The commit of the checkout that this code is run from; empty for an installed package."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return ""
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


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _dataset_input(experiment: Experiment, manifest: Manifest) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=manifest.name,
        digest=manifest.fingerprint[:32],
        source_type="hdam",
        source=experiment.data.path,
        profile=str({split: counts.clips for split, counts in manifest.splits.items()}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


@contextlib.contextmanager
def _unchanged(variable: str) -> Iterator[None]:
    before = os.environ.get(variable)
    yield
    if before is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = before


@contextlib.contextmanager
def _tolerated(consequence: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        LOG.warning("MLflow: %s (%s)", consequence, _masked(first_line(error)))


def _masked(text: str) -> str:
    """`text` without the user names and passwords of addresses in it."""
    return re.sub(r"://[^/\s]*@", "://***@", text)
