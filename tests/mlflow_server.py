"""A real tracking server on this machine that can be stopped and started again, to see what its absence does."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from ports import free_port

SECONDS_TO_START = 300
SECONDS_TO_STOP = 20


class MlflowServer:
    """`mlflow server` on the same free port at every start.

    Runs are kept in a SQLite file and artifacts beside it, in `folder`, unless a database or a place is named.
    """

    def __init__(self, folder: Path, *, database: str = "", artifacts: str = "") -> None:
        self._folder = folder
        self._database = database or f"sqlite:///{folder / 'mlflow.db'}"
        self._artifacts = artifacts or str(folder / "artifacts")
        self._port = free_port()
        self._process = None

    @property
    def uri(self):
        """What MLFLOW_TRACKING_URI is set to."""
        return f"http://127.0.0.1:{self._port}"

    def start(self):
        """Start the server and wait until it answers, which takes 13 to 20 s."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", self._database, "--workers", "1"]
        command += ["--artifacts-destination", self._artifacts]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        if "AWS_ENDPOINT_URL" in environment:
            environment["MLFLOW_S3_ENDPOINT_URL"] = environment["AWS_ENDPOINT_URL"]
        environment.pop("MLFLOW_TRACKING_URI", None)  # a server would hand its clients on to that one
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self._wait_until_it_answers()

    def stop(self):
        """End the server and its workers; nothing listens on the port afterwards."""
        if self._process is None:
            return
        self._send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_STOP)
        self._send(signal.SIGKILL)  # for what is left of the group
        self._process.wait()
        self._process = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error):
        self.stop()

    @property
    def _log(self):
        return self._folder / "server.log"

    def _send(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _wait_until_it_answers(self):
        give_up = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < give_up and self._process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"the MLflow server does not answer:\n{self._log.read_text(encoding='utf-8')}")
