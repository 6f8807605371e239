"""What `hdam submit` packs, and what it makes of servers that are away, another version, or break off."""

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import traceback
from contextlib import contextmanager

import pytest
import ray
from ports import free_port
from ray.job_submission import JobDetails

from hdam.pipelines.errors import InputError
from hdam.platform.jobs import follow
from hdam.platform.jobs.package import packed
from hdam.platform.jobs.server import AwayError, JobsServer
from hdam.platform.tracking import masked

SECRET = "not-for-other-eyes"


def in_folder(folder, *command, path=""):
    """What a command says that knows of no hdam but that in `folder`, or on `path`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=folder, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(os.environ.get("HDAM_FROM_WHEEL") == "1", reason="there is no source")
def test_the_wheel_is_packed_and_packed_again_from_an_installed_one(tmp_path):
    where = "import hdam.platform.cli as cli; print(cli.__file__)"
    with packed({"submitted/a.yaml": "name: a"}) as package:
        assert in_folder(package, sys.executable, "-c", where) == str(package / "hdam/platform/cli.py")
        assert in_folder(package, sys.executable, "-m", "hdam.platform.cli", "--version").startswith("hdam ")
        names = {name for name in files_of(package) if "__pycache__" not in name}
        assert "submitted/a.yaml" in names
        assert not any("test" in name for name in names)
        # What pip makes of a wheel is this folder, so that it stands for an installed hdam.
        again = "import sys, shutil; from hdam.platform.jobs.package import packed\nwith packed({}) as package: "
        again += f"shutil.copytree(package, {str(tmp_path / 'again')!r})"
        in_folder(tmp_path, sys.executable, "-c", again, path=str(package))
    assert files_of(tmp_path / "again") == names - {"submitted/a.yaml"}


VERSION = json.dumps({"version": "4", "ray_version": ray.__version__})


@contextmanager
def answering(answers):
    """The address of a server with answers by path: a text with status 200, or a status and a text; else 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.requestline.split()[1]  # of `self.path`, Python has made one slash of two
            answer = answers.get(path, (404, "nothing here"))
            status, text = answer if isinstance(answer, tuple) else (200, answer)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        log_message = functools.partialmethod(lambda *_: None)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def jobs_list(address):
    """Status and the one line of `hdam jobs list`, in a process of its own, for Ray reads its variables once."""
    command = [sys.executable, "-m", "hdam.platform.cli", "jobs", "list", "--address", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    (line,) = done.stderr.splitlines()
    return done.returncode, line


def test_another_version_of_ray_is_told():
    with answering({"/api/version": json.dumps({"version": "4", "ray_version": "2.51.0"})}) as address:
        status, line = jobs_list(address)
    assert status == 2
    assert line.startswith(f"hdam: the cluster at {address} runs Ray 2.51.0, this machine 2.60")


@pytest.fixture
def without_token(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize(("answer", "is_open"), [("[]", True), ((401, "Unauthorized"), False)])
def test_a_cluster_that_asks_for_no_token_is_noticed(without_token, answer, is_open, end):
    with answering({"/api/version": VERSION, "/api/jobs/": answer}) as address:
        assert JobsServer(address + end).is_open() == is_open


@pytest.mark.parametrize("answer", ['{"status": "ok"}', "[]", '"ok"'])
def test_another_service_is_told(without_token, answer):
    with (
        answering({"/api/version": answer}) as address,
        pytest.raises(
            InputError, match=rf"what answers at {address} is no jobs server of Ray 2\..*; expected http://HEAD"
        ),
    ):
        JobsServer(address)


def test_of_a_servers_traceback_the_last_line_is_told(without_token):
    try:
        raise OSError("no space left on the head")
    except OSError:
        unexpected = traceback.format_exc()
    with answering({"/api/version": VERSION, "/api/jobs/": (500, unexpected)}) as address:
        server = JobsServer(address)
        with pytest.raises(InputError) as caught:
            server.jobs()
    assert str(caught.value) == f"the server at {address} refused: OSError: no space left on the head"


def test_that_nothing_answers_is_told():
    address = f"http://me:{SECRET}@127.0.0.1:{free_port()}"
    status, line = jobs_list(address)
    assert status == 2
    assert line.startswith(f"hdam: no jobs server answers at {masked(address)}")
    assert SECRET not in line


def test_an_address_of_another_kind_is_told():
    with pytest.raises(InputError, match=r"ray://head:10001 is not the address of a jobs server; expected http://HEAD"):
        JobsServer("ray://head:10001")


class BreakingServer:
    """Stands for a server whose connection breaks, which cannot be timed from outside."""

    LOG = "first\nsecond\nhdam: the third is wrong\n"

    def __init__(self, *, breaks):
        self._breaks = list(breaks)

    async def tail(self, job):
        end = self._breaks.pop(0) if self._breaks else None
        for start in range(0, len(self.LOG[:end]), 8):
            yield self.LOG[:end][start : start + 8]
        if end is not None:
            raise AwayError("the connection broke")

    def details(self, job):
        return JobDetails(type="SUBMISSION", status="FAILED", entrypoint="", driver_exit_code=2)


def test_a_log_is_read_on_where_the_connection_broke(monkeypatch):
    monkeypatch.setattr(follow, "SECONDS_BETWEEN_TRIES", 0.0)
    follower, said = follow.Follower(BreakingServer(breaks=[3, 3, 14]), "job"), []
    details = follower.follow(said.append)
    assert "".join(said) == BreakingServer.LOG
    assert follower.reason(details) == "the third is wrong"


def test_a_server_that_stays_away_is_told(monkeypatch):
    monkeypatch.setattr(follow, "SECONDS_BETWEEN_TRIES", 0.0)
    monkeypatch.setattr(follow, "SECONDS_OF_TRYING", 0.0)
    with pytest.raises(AwayError, match="the connection broke"):
        follow.Follower(BreakingServer(breaks=[0] * 100), "job").follow(lambda text: None)
