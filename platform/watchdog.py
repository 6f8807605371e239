"""A small process that outlives the driver, and sets the status of MLflow runs that the driver could not.

A driver that gets SIGKILL, which is what the kernel sends when memory is short, writes nothing any more: MLflow would
show its runs as RUNNING for ever. The watchdog reads from a pipe whose other end goes when the driver does.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

SECONDS_TO_LEAVE = 5.0
SECONDS_OF_TRYING = 900.0
"""How long a store that is away is tried."""
SECONDS_BETWEEN_TRIES = 5.0


class Watchdog:
    """The driver's end: says which runs to watch. However the process fares, the driver is not disturbed."""

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

    def watch(self, run_id: str, folder: Path, status: str = "KILLED") -> None:
        """Have the run's status set when this process is gone, should it be RUNNING then.

        Not where another process holds `folder`, for the run goes on there.
        """
        self._tell({"watch": run_id, "folder": str(folder.absolute()), "status": status})

    def unwatch(self, run_id: str) -> None:
        """Leave the run alone from now on."""
        self._tell({"unwatch": run_id})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_LEAVE)

    def _tell(self, message: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):  # it was killed
            self._process.stdin.write(json.dumps(message).encode() + b"\n")


class Watched(NamedTuple):
    """A run that is watched."""

    run_id: str
    folder: Path
    status: str


def main() -> None:
    """Listen until the driver is gone, then end the runs that it left behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are meant for the driver, which takes its leave
    left = _listen(sys.stdin)
    give_up = time.monotonic() + SECONDS_OF_TRYING
    while (left := [watched for watched in left if not _settle(watched)]) and time.monotonic() < give_up:
        time.sleep(SECONDS_BETWEEN_TRIES)


def _listen(lines: Iterable[str]) -> list[Watched]:
    """The runs that are still watched when no more lines come."""
    watched: dict[str, Watched] = {}
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:  # the driver was killed in the middle of a line
            continue
        if "watch" in message:
            watched[message["watch"]] = Watched(message["watch"], Path(message["folder"]), message["status"])
        else:
            watched.pop(message["unwatch"], None)
    return list(watched.values())


def _settle(watched: Watched) -> bool:
    # Not before it is needed: until then the process costs a tenth of the memory.
    from hdam.platform.tracked_run import settle_run

    return settle_run(watched.run_id, watched.folder, watched.status)


if __name__ == "__main__":
    main()
