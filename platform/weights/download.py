"""Fetching one large file, from an address or from this machine, with its checksum."""

import contextlib
import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from hdam.pipelines.errors import InputError, first_line
from hdam.platform.tracking import masked

SECONDS_OF_PATIENCE = 30.0
"""How long a server may be silent."""
BLOCK_BYTES = 2**20
ELSEWHERE = "--from takes the file from another address, or from this machine"

OnBytes = Callable[[int, int | None], None]
"""Hears how many bytes have come, and of how many (None: unknown)."""


def fetch(origin: str, path: Path, *, on_bytes: OnBytes) -> str:
    """Copy `origin`, a file or an http(s) address, to `path`; returns the sha256 of what has come.

    Raises InputError where it is not there, or ends before its time, and OSError where `path` cannot be written.
    """
    digest, done = hashlib.sha256(), 0
    with _opened(origin) as (stream, total), path.open("wb") as file:
        while block := _read(stream, origin):
            file.write(block)
            digest.update(block)
            done += len(block)
            on_bytes(done, total)
    if total is not None and done != total:
        raise InputError(f"{masked(origin)}: cut after {done} of {total} bytes; the same command tries again")
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(origin: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """A stream of bytes, and how many there will be."""
    if "://" in origin:
        with _answer(origin) as answer:
            length = answer.headers.get("Content-Length")
            yield answer, int(length) if length else None
        return
    path = Path(origin).expanduser()
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(
            f"{origin} cannot be read ({error.strerror}); expected a file or an http(s) address"
        ) from error
    with file:
        yield file, path.stat().st_size


def _answer(address: str) -> HTTPResponse:
    if not address.startswith(("http://", "https://")):
        raise InputError(f"{masked(address)}: expected a file, or an address that begins with http:// or https://")
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "hdam"})
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=SECONDS_OF_PATIENCE)
        return answer
    except urllib.error.HTTPError as error:
        raise InputError(f"{masked(address)}: the server answers {error.code} {error.reason}; {ELSEWHERE}") from error
    except urllib.error.URLError as error:
        raise InputError(f"{masked(address)} cannot be reached ({error.reason}); {ELSEWHERE}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f"{masked(address)} does not answer ({first_line(error)}); {ELSEWHERE}") from error


def _read(stream: BinaryIO, origin: str) -> bytes:
    try:
        return stream.read(BLOCK_BYTES)
    except (OSError, HTTPException) as error:
        raise InputError(
            f"{masked(origin)}: cut in the middle ({first_line(error)}); the same command tries again"
        ) from error
