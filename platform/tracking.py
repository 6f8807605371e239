"""MLflow tracking: where runs are kept, and how the store is reached."""

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hdam.pipelines.errors import InputError, first_line

if TYPE_CHECKING:  # MLflow takes seconds to import; who only asks where the results are should not wait
    from mlflow import MlflowClient

LOG = logging.getLogger("hdam")

ENVIRONMENT = {
    # A server that is away should cost a training seconds, not minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # it would draw one for two files where tqdm is installed
}
Result = TypeVar("Result")
SECONDS_OF_PATIENCE = 300.0
SECONDS_BETWEEN_TRIES = 3.0
LOG_LEVELS = {
    "alembic": logging.WARNING,
    "mlflow.store": logging.WARNING,
    "urllib3.connectionpool": logging.ERROR,  # it would tell every retry; that a server is away is told once
}


JOB_VARIABLE = "HDAM_JOB"
"""Set in jobs of a cluster: the job's name."""


def results_dir() -> Path:
    """Where runs and the tracking database are: HDAM_RESULTS, or `results` in the current folder.

    Raises InputError in a job that knows of no place: its folder goes when it ends.
    """
    named = os.environ.get("HDAM_RESULTS")
    if not named and os.environ.get(JOB_VARIABLE) and not os.environ.get("HDAM_STORE"):
        raise InputError(
            "HDAM_RESULTS is not set, and a job's own folder goes when it ends; set it to a folder that all nodes "
            "share, where the job is submitted or on the nodes"
        )
    return Path(named or "results").expanduser().absolute()


@contextlib.contextmanager
def keeping_results() -> Iterator[Path]:
    """The results folder, made where it is absent; an OSError of that or of the block becomes an InputError."""
    folder = results_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"no results can be kept in {folder} ({reason}); set HDAM_RESULTS") from error


def tracking_uri() -> str:
    """The tracking server of MLFLOW_TRACKING_URI, or a SQLite file among the results."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results_dir() / 'mlflow.db'}"


def has_server() -> bool:
    """Whether tracking goes to a server, which keeps artifacts itself; else they go into the results folder."""
    return is_server(tracking_uri())


def is_server(uri: str) -> bool:
    """Whether `uri` is that of a server and not of a database."""
    return uri.startswith(("http:", "https:", "databricks"))


def connect(uri: str = "") -> "MlflowClient":
    """A client of the tracking store, or of that at `uri`.

    Raises InputError when it cannot be reached, or the results not be written.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    uri = uri or tracking_uri()
    if not is_server(uri):
        with keeping_results():
            pass
    with _unchanged("MLFLOW_TRACKING_URI"):  # MLflow would write it there, and the next call take it for the user's
        mlflow.set_tracking_uri(uri)
    try:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except (MlflowException, OSError, ImportError) as error:  # a database's driver may be missing
        problem = f"MLflow at {masked(uri)} does not answer ({cause_of(error)}); look at MLFLOW_TRACKING_URI"
        raise InputError(problem) from error
    return client


def wait_for_store(client: "MlflowClient") -> None:
    """Wait until a store that may be away for a moment answers: what cannot be sent later comes next.

    Raises InputError where it does not answer for minutes.
    """
    from mlflow.exceptions import MlflowException

    give_up, has_told = time.monotonic() + SECONDS_OF_PATIENCE, False
    while True:
        try:
            client.search_experiments(max_results=1)
            return
        except (MlflowException, OSError) as error:
            problem = f"MLflow at {masked(tracking_uri())} does not answer ({cause_of(error)})"
            if time.monotonic() > give_up:
                raise InputError(f"{problem}; when it does, the same command goes on") from error
            if not has_told:
                LOG.warning("%s; waiting for it, %.0f minutes at most", problem, SECONDS_OF_PATIENCE / 60)
                has_told = True
            time.sleep(SECONDS_BETWEEN_TRIES)


def patiently(client: "MlflowClient", work: Callable[[], Result]) -> Result:
    """The result of `work`, which needs the store, and is done again where the store went away in the middle.

    Raises InputError where it does not answer for minutes, or refuses the work.
    """
    from mlflow.exceptions import MlflowException

    wait_for_store(client)
    with contextlib.suppress(MlflowException, OSError):
        return work()
    wait_for_store(client)
    try:
        return work()
    except (MlflowException, OSError) as error:
        problem = f"MLflow at {masked(tracking_uri())}: {cause_of(error)}"
        raise InputError(f"{problem}; the same command goes on") from error


def ui_command() -> str:
    """What shows the runs in a browser; `***` stands for a user name and password in the address."""
    uri = masked(tracking_uri())
    return f"open {uri}" if has_server() else f"mlflow ui --backend-store-uri {uri}"


@contextlib.contextmanager
def tolerated(consequence: str) -> Iterator[None]:
    """What MLflow refuses inside is a warning that names the `consequence`, no reason to fail."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        LOG.warning("MLflow at %s: %s (%s)", masked(tracking_uri()), consequence, cause_of(error))


def cause_of(error: BaseException) -> str:
    """Why MLflow did not take something, short and without passwords: what the connection died of, or the first line.

    MLflow quotes requests, which quotes urllib3, which quotes the socket: three lines about a refused connection. Only
    the socket's error is an OSError that is not of requests.
    """
    links = [error]
    while (link := links[-1].__cause__ or links[-1].__context__) is not None and link not in links:
        links.append(link)
    found = [link for link in links if isinstance(link, OSError) and not type(link).__module__.startswith("requests.")]
    return masked(first_line((found or links)[0]))


def masked(text: str) -> str:
    """`text` without the user names and passwords of addresses in it."""
    return re.sub(r"://[^/\s]*@", "://***@", text)


@contextlib.contextmanager
def _unchanged(variable: str) -> Iterator[None]:
    before = os.environ.get(variable)
    yield
    if before is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = before
