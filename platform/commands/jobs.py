"""The commands `hdam submit` and `hdam jobs`."""

import secrets
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from hdam.platform.jobs.server import JobsServer

OUT = Console()
ERRORS = Console(stderr=True)
STATUS_FAILED = 1
STATUS_INTERRUPTED = 130
REMEDY = "start its Ray with RAY_AUTH_MODE=token"

Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The cluster's jobs server, http://HEAD:8265; RAY_API_SERVER_ADDRESS if absent.",
        show_default=False,
    ),
]
Job = Annotated[str, typer.Argument(help="Its name, as hdam jobs list shows it.", show_default=False)]

jobs_app = typer.Typer(no_args_is_help=True, help="The jobs of a cluster.")


def submit(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(help="train, tune, evaluate, … with all that follows them.", show_default=False)
    ],
    address: Address = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait, nor show the log.")] = False,
    shared_paths: Annotated[
        bool, typer.Option("--shared-paths", help="Paths are those of a file system that all nodes have.")
    ] = False,
    pass_env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also send this variable, for all to see who have the cluster's token."),
    ] = None,
) -> None:
    """Do a command on a Ray cluster: with this code, its log here, and status 0 or 1 as it went well or not."""
    from hdam.platform.jobs.order import read_order, slug

    order = read_order(command, root=context.find_root().command, context=context)
    from hdam.platform.jobs.package import packed
    from hdam.platform.jobs.server import JobsServer
    from hdam.platform.jobs.settings import job_settings, naming
    from hdam.platform.jobs.show import entrypoint_of, how_to_return
    from hdam.platform.jobs.view import View
    from hdam.platform.tracked_run import git_commit

    server = JobsServer(address)
    view = View(is_here=server.is_here(), shares_paths=shared_paths)
    entrypoint = entrypoint_of(order.words_for(view))
    settings = job_settings(view, passed=pass_env or [])
    job = "-".join(part for part in (order.name, slug(order.label), secrets.token_hex(3)) if part)
    if server.is_open():
        _say(f"This cluster asks for no token, so that whoever reaches it may run anything there; {REMEDY}")
    if settings.kept:
        names = ", ".join(settings.kept)
        _say(f"Not sent, since whoever has the cluster's token could read it: {names}; the nodes need their own")
    with packed(order.files) as package:
        env_vars = {**settings.env_vars, **naming(job, git_commit())}
        server.submit(job, entrypoint, package=package, env_vars=env_vars, metadata={"hdam": order.name})
    if detach:
        OUT.print(Text(job), soft_wrap=True)
        _say(how_to_return(job, options=_options(address)))
        return
    _say(f"Job {job}")
    _follow(server, job, options=_options(address))


@jobs_app.command("list")
def list_jobs(address: Address = None) -> None:
    """All jobs, the newest first."""
    from hdam.platform.jobs.server import JobsServer
    from hdam.platform.jobs.show import show_jobs

    show_jobs(JobsServer(address).jobs(), OUT)


@jobs_app.command("logs")
def show_log(
    job: Job,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Until the job has ended; the status is then as that of hdam submit.")
    ] = False,
) -> None:
    """What a job has said."""
    from hdam.platform.jobs.server import JobsServer

    server = JobsServer(address)
    server.details(job)
    if follow:
        _follow(server, job, options=_options(address))
    else:
        _write(server.log(job))


@jobs_app.command("stop")
def stop_job(job: Job, address: Address = None) -> None:
    """End a job; a training writes a checkpoint first, and the same command goes on from there."""
    from hdam.platform.jobs.follow import wait_for_end
    from hdam.platform.jobs.server import JobsServer

    server = JobsServer(address)
    if not server.ask_to_stop(job):
        _say(f"Job {job} has ended already: {server.details(job).status.value}")
        return
    _say(f"Job {job} was asked to stop; it may finish its step and write a checkpoint")
    _say(f"Job {job}: {wait_for_end(server, job).value}")


def _follow(server: "JobsServer", job: str, *, options: str) -> None:
    """Show the log to its end, and leave with the job's status; Ctrl-C leaves the job alone."""
    from hdam.pipelines.errors import InputError
    from hdam.platform.jobs.follow import Follower
    from hdam.platform.jobs.show import how_to_return

    follower = Follower(server, job)
    try:
        details = follower.follow(_write)
    except KeyboardInterrupt:
        _say(f"\nJob {job} goes on; {how_to_return(job, options=options)}")
        raise typer.Exit(STATUS_INTERRUPTED) from None
    except InputError as error:
        _say(f"hdam: {error}; job {job} may go on: {how_to_return(job, options=options)}")
        raise typer.Exit(STATUS_FAILED) from None
    if details.status.value == "SUCCEEDED":
        _say(f"Job {job} is done")
        return
    what = f"failed: {follower.reason(details)}" if details.status.value == "FAILED" else "was stopped"
    _say(f"hdam: job {job} {what}")
    raise typer.Exit(STATUS_FAILED)


def _options(address: str | None) -> str:
    from hdam.platform.tracking import masked

    return f" --address {masked(address)}" if address else ""


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(line: str) -> None:
    ERRORS.print(Text(line), soft_wrap=True)
