"""A real PostgreSQL server on a free port of this machine, with an empty database."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from ports import free_port

SECONDS_TO_START = 120
USER = "hdam"


def find_program(name):
    """A program of PostgreSQL, which Debian does not put on the PATH; None where it is not installed."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or next(map(str, places), None)


class PostgresServer:
    """It refuses to run as root, in whose place it takes `nobody`; so its folder is not one of pytest's."""

    def __init__(self):
        self._folder = Path(tempfile.mkdtemp(prefix="hdam-postgres-"))
        self._port = free_port()
        self._password = secrets.token_hex(16)

    @property
    def uri(self):
        """What MLflow's --backend-store-uri takes."""
        return f"postgresql+psycopg2://{USER}:{self._password}@127.0.0.1:{self._port}/postgres"

    def __enter__(self):
        (self._folder / "password").write_text(self._password)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for path in (self._folder, self._folder / "password"):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        options = ["--auth", "scram-sha-256", "--pwfile", "password", "--username", USER, "--encoding", "UTF8"]
        self._run("initdb", "--pgdata", "data", *options, "--no-sync")
        settings = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories='' -c fsync=off"
        self._control("start", "--wait", "--timeout", str(SECONDS_TO_START), "--log", "log", "--options", settings)
        return self

    def __exit__(self, *error):
        self._control("stop", "--mode", "immediate")
        shutil.rmtree(self._folder)

    def _control(self, *arguments):
        self._run("pg_ctl", "--pgdata", "data", *arguments)

    def _run(self, name, *arguments):
        """In the folder, and as a user whom the server accepts."""
        lower = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        ran = subprocess.run(
            [find_program(name), *arguments],
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if name == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **(lower if os.geteuid() == 0 else {}),
        )
        assert ran.returncode == 0, f"{name}: {ran.stdout or (self._folder / 'log').read_text()}"
