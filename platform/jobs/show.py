"""What `hdam submit` and `hdam jobs` say."""

import shlex
from collections.abc import Sequence
from datetime import datetime

from ray.job_submission import JobDetails
from rich.console import Console
from rich.text import Text

from hdam.platform.reports import plain_table

ENTRYPOINT = "exec python -m hdam.platform.cli "
"""What runs a command, from the folder that was sent."""
PADDING = 2
"""Between two columns."""
COMMAND_WIDTH = 24
"""As much of a command as is shown in any case."""


def entrypoint_of(words: Sequence[str]) -> str:
    """The shell's command for a command of hdam."""
    return ENTRYPOINT + shlex.join(words)


def show_jobs(jobs: Sequence[JobDetails], console: Console) -> None:
    """A line for each job."""
    if not jobs:
        console.print("No job was submitted to this cluster.")
        return
    columns = ("Job", "Status", "Began", "Took")
    rows = [(job.submission_id or "", job.status.value, *_times(job)) for job in jobs]
    # Names are there to be copied, however narrow the screen; a command takes what is left, and lines may be longer.
    taken = sum(max(map(len, cells)) + PADDING for cells in zip(columns, *rows, strict=True))
    room = max(console.width - taken, COMMAND_WIDTH)
    table = plain_table(*columns, "Command", right=("Took",), whole=(*columns, "Command"))
    table.width = taken + room
    for job, row in zip(jobs, rows, strict=True):
        command = Text(job.entrypoint.replace(ENTRYPOINT, "hdam ", 1))
        command.truncate(room, overflow="ellipsis")
        table.add_row(*map(Text, row), command)
    console.print(table, crop=False)


def how_to_return(job: str, *, options: str) -> str:
    """The commands for a job that is left alone; `options` say where the cluster is."""
    return f"hdam jobs logs {job} --follow{options} shows its log, hdam jobs stop {job}{options} ends it"


def _times(job: JobDetails) -> tuple[str, str]:
    """When it began, and how long it took or has taken."""
    if not job.start_time:
        return "", ""
    began = datetime.fromtimestamp(job.start_time / 1000)
    ended = datetime.fromtimestamp(job.end_time / 1000) if job.end_time else datetime.now()
    minutes, seconds = divmod(max(0, int((ended - began).total_seconds())), 60)
    return f"{began:%Y-%m-%d %H:%M}", f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
