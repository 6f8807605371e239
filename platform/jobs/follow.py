"""A job's log as it comes, and how the job ended."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from ray.job_submission import JobDetails, JobStatus

from hdam.platform.jobs.server import AwayError, JobsServer

SECONDS_OF_TRYING = 120.0
"""How long a server that went away is looked for."""
SECONDS_BETWEEN_TRIES = 2.0
LAST_LINES = 50
MISTAKE = "hdam: "
"""How hdam's own line about what went wrong begins."""

Write = Callable[[str], None]


class Follower:
    """Reads what a job says, through connections that break: nothing twice, and nothing left out."""

    def __init__(self, server: JobsServer, job: str) -> None:
        self._server = server
        self._job = job
        self._num_read = 0
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)

    def follow(self, write: Write) -> JobDetails:
        """Hand the log to `write` until the job has ended; returns how. Raises AwayError where the server stays away."""
        away_since = None
        while True:
            before = self._num_read
            try:
                asyncio.run(self._read(write))
                if (details := self._server.details(self._job)).status.is_terminal():
                    return details
                away_since = None
            except AwayError:
                if away_since is None or self._num_read > before:
                    away_since = time.monotonic()
                if time.monotonic() - away_since > SECONDS_OF_TRYING:
                    raise
            time.sleep(SECONDS_BETWEEN_TRIES)

    def reason(self, details: JobDetails) -> str:
        """Why a job failed: its own line, else the last that it said, else what Ray says of it."""
        said = [line.strip() for line in self._last_lines if line.strip()]
        own = [line for line in said if line.startswith(MISTAKE)]
        if details.driver_exit_code is None:  # it was never begun, or was lost with its node
            return (details.message or "no reason given").strip().splitlines()[0]
        return (own or said or ["it said nothing"])[-1].removeprefix(MISTAKE)

    async def _read(self, write: Write) -> None:
        skipped = self._num_read
        async for text in self._server.tail(self._job):
            new, skipped = text[skipped:], max(0, skipped - len(text))
            if new:
                self._num_read += len(new)
                self._last_lines.extend(new.splitlines())
                write(new)


def wait_for_end(server: JobsServer, job: str) -> JobStatus:
    """The status of a job when it has ended."""
    while not (status := server.details(job).status).is_terminal():
        time.sleep(SECONDS_BETWEEN_TRIES)
    return status
