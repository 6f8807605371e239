"""A driver that is killed leaves no run behind that seems to be running; and nothing else is touched."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from local_store import keep_results_in

from hdam.platform import tracking
from hdam.platform.locks import locked

DRIVER = """
import sys
from pathlib import Path
from hdam.platform.locks import locked
from hdam.platform.watchdog import Watchdog
with locked(Path(sys.argv[1])), Watchdog() as watchdog:
    for line in sys.stdin:
        action, run_id, folder, status = line.split()
        if action == "watch":
            watchdog.watch(run_id, Path(folder), status)
        else:
            watchdog.unwatch(run_id)
        print("done", flush=True)
print("left", flush=True)
"""
LONGEST_END = 30


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a store in SQLite; the drivers find it by the environment."""
    with pytest.MonkeyPatch.context() as patch:
        keep_results_in(tmp_path_factory.mktemp("results"), patch)
        yield tracking.connect()


@pytest.fixture
def run_id(client):
    return client.create_run("0").info.run_id


class Driver:
    """A process that holds the lock of `folder` and keeps a watchdog."""

    def __init__(self, process, folder):
        self.process = process
        self._folder = folder
        (self.watchdog,) = self._watchdogs()

    def watch(self, run_id, folder=None, status="KILLED"):
        self._tell("watch", run_id, folder or self._folder, status)

    def unwatch(self, run_id):
        self._tell("unwatch", run_id, self._folder, "-")

    def leave(self):
        self.process.stdin.close()
        assert self.process.stdout.read() == "left\n"
        assert self.process.wait() == 0

    def kill(self):
        self.process.kill()
        self.process.wait()

    def wait_until_deaf_to(self, number):
        """In its first moments Python still has its own way with signals."""
        give_up = time.monotonic() + LONGEST_END
        while time.monotonic() < give_up:
            state = Path(f"/proc/{self.watchdog.pid}/status").read_text(encoding="utf-8")
            ignored = int(next(line.split()[1] for line in state.splitlines() if line.startswith("SigIgn")), 16)
            if ignored & 1 << number - 1:
                return
            time.sleep(0.05)
        raise AssertionError(f"the watchdog does not ignore {number.name}")

    def wait_for_the_watchdog(self):
        _, alive = psutil.wait_procs([self.watchdog], timeout=LONGEST_END)
        # Where nobody reaps orphans, as in some containers, they stay as zombies.
        assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)

    def _tell(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"

    def _watchdogs(self):
        give_up = time.monotonic() + LONGEST_END
        while time.monotonic() < give_up:
            children = psutil.Process(self.process.pid).children()
            found = [child for child in children if "hdam.platform.watchdog" in child.cmdline()]
            if found:
                return found
            time.sleep(0.05)
        return []


@contextmanager
def driving(folder):
    command = [sys.executable, "-c", DRIVER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Driver(process, folder)
        finally:
            process.kill()


def status(client, run_id):
    return client.get_run(run_id).info.status


def test_only_runs_that_a_killed_driver_left_behind_are_killed(client, tmp_path):
    names = ("left behind", "finished", "unwatched", "never watched", "goes on elsewhere", "folder gone")
    runs = {name: client.create_run("0").info.run_id for name in names}
    with locked(tmp_path / "elsewhere"), driving(tmp_path / "here") as driver:
        driver.watch("f" * 32)  # the store does not know it
        driver.watch(runs["folder gone"], tmp_path / "gone")
        driver.watch(runs["goes on elsewhere"], tmp_path / "elsewhere")
        for name in ("finished", "unwatched", "left behind"):
            driver.watch(runs[name])
        driver.unwatch(runs["unwatched"])
        client.set_terminated(runs["finished"], status="FINISHED")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            driver.wait_until_deaf_to(number)
            driver.watchdog.send_signal(number)
        driver.kill()
        driver.wait_for_the_watchdog()
    assert {name: status(client, run_id) for name, run_id in runs.items()} == {
        "left behind": "KILLED",
        "finished": "FINISHED",
        "folder gone": "KILLED",
        **dict.fromkeys(names[2:5], "RUNNING"),
    }
    with locked(tmp_path / "here"):
        pass


def test_a_status_that_the_driver_could_not_set_is_set_when_it_has_left(client, run_id, tmp_path):
    other = client.create_run("0").info.run_id
    with driving(tmp_path) as driver:
        driver.watch(other)
        driver.watch(run_id, status="FINISHED")
        driver.unwatch(other)
        driver.leave()
        driver.wait_for_the_watchdog()
    assert (status(client, run_id), status(client, other)) == ("FINISHED", "RUNNING")


def test_a_killed_watchdog_does_not_disturb_the_driver(run_id, tmp_path):
    with driving(tmp_path) as driver:
        driver.watch(run_id)
        driver.watchdog.kill()
        time.sleep(0.5)
        driver.watch("a" * 32)
        driver.unwatch(run_id)
        driver.leave()
        assert driver.process.returncode == 0


def test_watching_costs_little():
    script = (
        "import sys, hdam.platform.watchdog; "
        "print(*{'mlflow', 'pydantic', 'numpy', 'torch', 'logging'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
