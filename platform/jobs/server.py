"""The jobs server of a Ray cluster: one clear line where it is away, lets nobody in, or is another version."""

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import ray
import requests
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from hdam.pipelines.errors import InputError, first_line
from hdam.platform.tracking import masked

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
SECONDS_TO_ANSWER = 30.0
SECONDS_TO_GET_READY = 60.0
SECONDS_BETWEEN_TRIES = 2.0
NOT_READY = "No available agent"
"""Says a head that has just been started."""
BROKEN = "WebSocket"
"""Is in the message of what Ray's client raises where a log's connection breaks."""
TRACEBACK = "Traceback (most recent call last)"
CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.authentication.authentication_token_setup",
)
"""Loggers that tell of every upload, and that a token is in use."""
TOKEN = "its token belongs in RAY_AUTH_TOKEN_PATH (a file) or ~/.ray/auth_token, and RAY_AUTH_MODE must not be disabled"


class AwayError(InputError):
    """The server does not answer, or the connection to it broke."""


class JobsServer:
    """What `hdam submit` and `hdam jobs` ask of a cluster. Every method raises InputError, or AwayError."""

    def __init__(self, address: str | None = None) -> None:
        self.address = (address or _address_of_environment()).rstrip("/")
        """As the user gave it; `masked` where it is shown."""
        if not self.address.startswith(("http://", "https://")):
            raise InputError(
                f"{masked(self.address)} is not the address of a jobs server; expected http://HEAD:8265, by --address "
                "or RAY_API_SERVER_ADDRESS"
            )
        os.environ[ADDRESS_VARIABLES[0]] = self.address  # Ray looks there before it looks at its argument
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # Ray's client does so for nobody
        with self._told():
            self._client = _Client(self.address)
            self._check_version()

    def is_here(self) -> bool:
        """Whether every node is this machine. An address says nothing: a port may be forwarded."""
        ours = {place.address for places in psutil.net_if_addrs().values() for place in places}
        give_up = time.monotonic() + SECONDS_TO_GET_READY
        while not (nodes := self._nodes()) and time.monotonic() < give_up:  # it has just been started
            time.sleep(SECONDS_BETWEEN_TRIES)
        return bool(nodes) and all(node.node_ip in ours for node in nodes)

    def is_open(self) -> bool:
        """Whether the cluster asks for no token, so that all who reach it may run what they like."""
        with self._told():
            return requests.get(f"{self.address}/api/jobs/", timeout=SECONDS_TO_ANSWER).ok

    def submit(
        self, job: str, entrypoint: str, *, package: Path, env_vars: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """Send `package` where it is not known there, and begin the job `job` in it."""
        give_up = time.monotonic() + SECONDS_TO_GET_READY
        while True:
            try:
                with self._told():
                    self._client.submit_job(
                        submission_id=job,
                        entrypoint=entrypoint,
                        runtime_env={"working_dir": str(package), "env_vars": dict(env_vars)},
                        metadata=dict(metadata),
                    )
                return
            except InputError as error:
                if NOT_READY not in str(error) or time.monotonic() > give_up:
                    raise
            time.sleep(SECONDS_BETWEEN_TRIES)

    def jobs(self) -> list[JobDetails]:
        """All jobs that were submitted, the newest first."""
        with self._told():
            jobs = [job for job in self._client.list_jobs() if job.submission_id]
        return sorted(jobs, key=lambda job: job.start_time or 0, reverse=True)

    def details(self, job: str) -> JobDetails:
        """What is known of a job."""
        with self._told(job):
            return self._client.get_job_info(job)

    def log(self, job: str) -> str:
        """All that a job has said until now."""
        with self._told(job):
            return self._client.get_job_logs(job)

    async def tail(self, job: str) -> AsyncIterator[str]:
        """The same from its beginning, and as it comes, until the job has ended."""
        with self._told(job):
            async for text in self._client.tail_job_logs(job):
                yield text

    def ask_to_stop(self, job: str) -> bool:
        """Have a job leave; whether it was running."""
        with self._told(job):
            return self._client.stop_job(job)

    def _nodes(self) -> list[Any]:
        with self._told():
            return list(list_nodes(address=self.address, filters=[("state", "=", "ALIVE")]))

    def _check_version(self) -> None:
        theirs = str(self._client.ray_version())
        if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
            raise InputError(
                f"the cluster at {masked(self.address)} runs Ray {theirs}, this machine {ray.__version__}; "
                f"install ray=={theirs} here, or {ray.__version__} on all nodes"
            )

    @contextlib.contextmanager
    def _told(self, job: str = "") -> Iterator[None]:
        """Ray's errors, in one line."""
        where = masked(self.address)
        try:
            yield
        except InputError:
            raise
        except AuthenticationError as error:
            is_wrong = "Authentication failed" in str(error)
            what = "does not know this token" if is_wrong else "takes no one without its token"
            raise InputError(f"the cluster at {where} {what}; {TOKEN}") from None
        except (OSError, aiohttp.ClientError, RayStateApiException) as error:
            raise AwayError(
                f"no jobs server answers at {where} ({type(error).__name__}); is the head up, and its port 8265 "
                "forwarded (ray dashboard cluster.yaml)? --address or RAY_API_SERVER_ADDRESS says where it is"
            ) from error
        except (RuntimeError, ValueError) as error:
            if BROKEN in str(error):
                raise AwayError(f"the connection to {where} broke ({first_line(error)})") from error
            if job and "404" in str(error):
                raise InputError(f"no job {job} at {where}; hdam jobs list names those there are") from None
            raise InputError(f"the server at {where} refused: {masked(_reason(error))}") from error
        except (KeyError, TypeError) as error:  # in Ray's client, which takes every answer for that of a jobs server
            raise InputError(
                f"what answers at {where} is no jobs server of Ray {ray.__version__} "
                f"({type(error).__name__}: {first_line(error)}); expected http://HEAD:8265, by --address or "
                "RAY_API_SERVER_ADDRESS"
            ) from error


class _Client(JobSubmissionClient):
    """Ray's own, which would wait for ever for an answer."""

    def ray_version(self) -> str:
        return str(self._do_request("GET", "/api/version").json()["ray_version"])

    def _do_request(self, *arguments: Any, **options: Any) -> Any:
        return super()._do_request(*arguments, timeout=SECONDS_TO_ANSWER, **options)


def _reason(error: Exception) -> str:
    """What the server says; of a traceback, which it sends of what it did not expect, the last line."""
    said = str(error)
    return said.rstrip(" .\n").splitlines()[-1] if TRACEBACK in said else first_line(error)


def _address_of_environment() -> str:
    return next((found for name in ADDRESS_VARIABLES if (found := os.environ.get(name))), DEFAULT_ADDRESS)
