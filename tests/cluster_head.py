"""A real head of a Ray cluster on loopback, with its jobs server and a token of its own."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from ports import free_port
from processes import descendants

SECONDS_TO_START = 180
SECONDS_TO_STOP = 30
OURS = ("AWS_", "HDAM_", "MLFLOW_", "RAY_", "PYTHON")
"""Variables that a head does not take over: its nodes know what they are told, and import what is shipped to them."""


class ClusterHead:
    """`ray start --head` in a folder of its own; clients find it by `environment`.

    Its nodes, and so all jobs, have `env_vars` in their environment.
    """

    def __init__(self, *, env_vars: Mapping[str, str] | None = None, num_cpus: int = 4) -> None:
        self.token = secrets.token_hex(32)
        self._num_cpus = num_cpus
        self._env_vars = dict(env_vars or {})
        self._port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="hdam-head-"))  # Ray's sockets want a short path
        self._process = None

    @property
    def address(self):
        """What `--address` takes."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self):
        """The variables with which a client finds the head and is let in."""
        return {
            "RAY_API_SERVER_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token_path),
        }

    def start(self):
        """Start the head and wait until its jobs server answers, which takes about 10 s."""
        self._token_path.write_text(self.token)
        self._token_path.chmod(0o600)
        ports = {
            name: str(free_port())
            for name in ("port", "ray-client-server-port", "dashboard-agent-listen-port", "metrics-export-port")
        }
        options = ports | {
            "dashboard-host": "127.0.0.1",
            "dashboard-port": str(self._port),
            "min-worker-port": "0",  # any, so that two clusters of a machine do not meet
            "max-worker-port": "0",
            "num-cpus": str(self._num_cpus),
            "object-store-memory": str(400 << 20),
            "temp-dir": str(self._folder / "ray"),
        }
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        environment |= {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self._token_path)} | self._env_vars
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in options.items())],
                cwd=self._folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_it_answers()

    def stop(self):
        """End the head and everything that it started."""
        if self._process is None:
            return
        below = [pid for pid, _ in descendants(self._process.pid)]
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_STOP)
        for pid in [self._process.pid, *below]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def texts(self):
        """(path, text) of every file that the head and its jobs have written, the token's own file aside."""
        for path in sorted(self._folder.rglob("*")):
            if path.is_file() and path != self._token_path:
                with contextlib.suppress(OSError):
                    yield path, path.read_bytes().decode("utf-8", errors="replace")

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _token_path(self):
        return self._folder / "token"

    @property
    def _log(self):
        return self._folder / "head.log"

    def _wait_until_it_answers(self):
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {self.token}"})
        give_up = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < give_up and self._process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.5)
        raise RuntimeError(f"the head does not answer:\n{self._log.read_text(encoding='utf-8')}")
