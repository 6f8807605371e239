"""A small process that outlives a killed driver, and ends the MLflow runs that it left behind.

A driver that gets SIGKILL, which is what the kernel sends when memory is short, writes nothing any more: MLflow would
show its runs as RUNNING for ever. The watchdog reads from a pipe whose other end goes when the driver does.
"""

import contextlib
import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SECONDS_TO_UNLOCK = 10.0
"""The kernel closes a killed process's files one after another; its lock may go a little later than its pipe."""
SECONDS_TO_LEAVE = 5.0


class Watchdog:
    """The driver's end: says which runs to watch. However the process fares, the driver is not disturbed.

    A driver that leaves this context, be it by an error, has set the status of its runs itself.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", "-m", "hdam.platform.watchdog"]  # -P: a `json.py` beside the user is not ours
        quiet = subprocess.DEVNULL
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, bufsize=0, start_new_session=True
            )
        return self

    def watch(self, run_id: str, folder: Path) -> None:
        """Have the run ended, should this process be killed while it holds the lock of `folder`."""
        self._tell({"watch": run_id, "folder": str(folder.absolute())})

    def unwatch(self, run_id: str) -> None:
        """Leave the run alone from now on."""
        self._tell({"unwatch": run_id})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._process.stdin is None:
            return
        self._tell({"done": True})
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_LEAVE)

    def _tell(self, message: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):  # it was killed, or told to go
            self._process.stdin.write(json.dumps(message).encode() + b"\n")


def main() -> None:
    """Listen until the driver is gone, then end the runs that it left behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are meant for the driver, which takes its leave
    watched = _listen(sys.stdin)
    if watched:
        _end_runs(watched)


def _listen(lines: Iterable[str]) -> dict[str, Path]:
    """The runs that are still watched, with their folders, when no more lines come; none after a proper leave."""
    watched: dict[str, Path] = {}
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:  # the driver was killed in the middle of a line
            continue
        if "done" in message:
            return {}
        if "watch" in message:
            watched[message["watch"]] = Path(message["folder"])
        else:
            watched.pop(message["unwatch"], None)
    return watched


def _end_runs(watched: dict[str, Path]) -> None:
    # Not before they are needed: until then the process costs a tenth of the memory.
    from hdam.platform.tracked_run import end_run, run_status
    from hdam.platform.tracking import connect

    client = connect()  # before the lock, so that it is held for no longer than it takes to set the status
    give_up = time.monotonic() + SECONDS_TO_UNLOCK
    for run_id, folder in watched.items():
        with contextlib.suppress(OSError), _lock(folder, give_up) as is_ours:  # the folder may be gone
            if is_ours and run_status(client, run_id) == "RUNNING":
                end_run(client, run_id, "KILLED")


@contextlib.contextmanager
def _lock(folder: Path, give_up: float) -> Iterator[bool]:
    """Hold the folder's lock; False where another process has it, for the run goes on there."""
    from hdam.platform.runs import LOCK_NAME

    with (folder / LOCK_NAME).open("a") as lock:
        while not (is_ours := _can_lock(lock.fileno())) and time.monotonic() < give_up:
            time.sleep(0.1)
        yield is_ours


def _can_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    main()
