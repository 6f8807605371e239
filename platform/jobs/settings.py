"""What a job is told of this machine's environment: where results, runs and stores are, and never a secret.

Variables of a job are no secret: whoever holds the cluster's token reads them through the jobs API and the dashboard,
and Ray writes them into its logs. Passwords and keys are therefore not sent; the nodes have to have them, by the role
of their machines or by variables that their Ray was started with. `--pass-env` overrules that, name by name.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from hdam.pipelines.errors import InputError
from hdam.pipelines.listing import is_remote
from hdam.platform.jobs.view import View
from hdam.platform.tracking import JOB_VARIABLE, results_dir

LOG = logging.getLogger("hdam")

PATHS = ("HDAM_STORE", "HDAM_RESULTS", "HDAM_WEIGHTS", "HDAM_DETECTORS")
SERVERS = ("MLFLOW_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
WORDS = ("AWS_REGION", "AWS_DEFAULT_REGION")
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
SECRET = re.compile("PASSWORD|SECRET|TOKEN|KEY|CREDENTIAL")
FORBIDDEN = "RAY_"
"""Ray's own variables, its token among them, are the nodes' business."""

STOPPING = {"RAY_JOB_STOP_WAIT_TIME_S": "120"}
"""How long a job that is stopped may finish its step and write a checkpoint; Ray would kill it after three seconds."""
SCREEN = {"COLUMNS": "140", "TERM": "dumb"}
"""Of the log: lines of this width, and no cursor to be moved."""


class Settings(NamedTuple):
    """The environment of a job."""

    env_vars: Mapping[str, str]
    kept: tuple[str, ...]
    """Names of credentials that are set here and were not sent."""


def job_settings(view: View, *, passed: Sequence[str] = ()) -> Settings:
    """What a job is told; `passed` are names that the user wants sent besides.

    Raises InputError for an address that the cluster does not see, one with a password in it, and a name that is not
    set or must not be sent.
    """
    known = {name: os.environ[name] for name in (*PATHS, *SERVERS, *WORDS) if os.environ.get(name)}
    if view.is_here:
        known["HDAM_RESULTS"] = str(results_dir())
    env_vars = {name: _as_seen(name, value, view) for name, value in known.items() if name not in passed}
    env_vars |= {name: _asked_for(name) for name in passed}
    kept = tuple(name for name in CREDENTIALS if os.environ.get(name) and name not in passed)
    return Settings({**env_vars, **STOPPING, **SCREEN}, kept)


def naming(job: str, commit: str) -> dict[str, str]:
    """What lets a job's runs be found again: its own name, and the commit that it was made of."""
    return {JOB_VARIABLE: job} | ({"HDAM_COMMIT": commit} if commit else {})


def _as_seen(name: str, value: str, view: View) -> str:
    if is_remote(value) and urlsplit(value).username is not None:
        raise InputError(
            f"{name} holds a user's name or password, which the jobs API would show; unset it here and set it on the "
            f"cluster's nodes, or send it in spite of that: --pass-env {name}"
        )
    if name in PATHS:
        return view.place(value, what=name) if name == "HDAM_STORE" else _path_of_nodes(name, value, view)
    return view.server(value, what=name) if name in SERVERS else value


def _path_of_nodes(name: str, value: str, view: View) -> str:
    """Folders that the job makes or finds on the nodes: there is no saying from here whether they share them."""
    return View(is_here=view.is_here, shares_paths=True).place(value, what=name)


def _asked_for(name: str) -> str:
    if name.startswith(FORBIDDEN):
        raise InputError(
            f"--pass-env {name}: variables of Ray are not sent; its token is asked of the nodes themselves"
        )
    if not (value := os.environ.get(name)):
        raise InputError(f"--pass-env {name}: not set here")
    if SECRET.search(name) or (is_remote(value) and urlsplit(value).username is not None):
        LOG.warning("%s is shown to everyone who has the cluster's token: by the jobs API, the dashboard, logs", name)
    return value
