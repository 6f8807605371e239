"""Nodes of one Ray cluster on this machine that share no results: each sees a disk of its own in the same place."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ports import free_port
from processes import descendants

SECONDS_TO_START = 180
STARTS = 3
"""Ray gives a node 30 seconds to answer, which is too little on a machine that has much else to do."""
RAY = str(Path(sys.executable).with_name("ray"))


class SeparateNode:
    """`ray start` in a mount namespace where `results` is a filesystem of its own, which goes with the node.

    The first node of a cluster is its head and has no CPUs for tasks; others are told of it.
    """

    def __init__(self, results, *, head=None, num_cpus=0):
        self._results = results
        self._head = head
        self._num_cpus = num_cpus
        self._port = free_port() if head is None else head._port
        self._token = secrets.token_hex(32) if head is None else head._token
        self._folder = Path(tempfile.mkdtemp(prefix="hdam-node-"))  # Ray's sockets want a short path
        self._process = None

    @property
    def environment(self):
        """Of a driver on this node, and of everything that Ray starts here."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HDAM_", "MLFLOW_"))}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token}
        return ours | token | {"HDAM_RESULTS": str(self._results), "MLFLOW_DISABLE_TELEMETRY": "true"}

    def command(self, *command, **variables):
        """Start a command of hdam on this node, in the cluster; its output is a pipe."""
        inside = ["nsenter", "--mount", "--target", str(self._process.pid), "--"]
        return subprocess.Popen(
            [*inside, sys.executable, "-P", "-m", "hdam.platform.cli", *map(str, command)],
            env=self.environment | {"RAY_ADDRESS": f"127.0.0.1:{self._port}"} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def kill(self):
        """What a power cut does to a machine and its disk."""
        for pid in [pid for pid, _ in descendants(self._process.pid)] + [self._process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self):
        self._results.mkdir(exist_ok=True)
        where = ["--head", f"--port={self._port}", f"--temp-dir={self._folder / 'ray'}", "--include-dashboard=false"]
        where += [f"--ray-client-server-port={free_port()}", f"--dashboard-port={free_port()}"]
        if self._head is not None:
            where = [f"--address=127.0.0.1:{self._port}"]
        options = [f"--num-cpus={self._num_cpus}", f"--object-store-memory={200 << 20}"]
        options += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
        options += ["--min-worker-port=0", "--max-worker-port=0"]  # any, so that nodes of a machine do not meet
        start = [RAY, "start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1", *where, *options]
        mounted = f'mount -t tmpfs -o size=512m tmpfs "{self._results}" && exec "$@"'
        try:
            for _ in range(STARTS):
                self._start(["sh", "-c", mounted, "sh", *start])
                if self._runs():
                    return self
                self.kill()
            raise RuntimeError(f"the node does not start:\n{(self._folder / 'log').read_text()}")
        except BaseException:
            self.__exit__()
            raise

    def _start(self, command):
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", *command],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __exit__(self, *error):
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _runs(self):
        give_up = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < give_up and self._process.poll() is None:
            if "Ray runtime started" in (self._folder / "log").read_text():
                return True
            time.sleep(0.2)
        return False
