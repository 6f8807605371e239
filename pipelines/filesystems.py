"""Where files lie, on this machine or in a store, and how one comes to its place: whole, or not at all."""

import functools
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from hdam.pipelines.errors import InputError, first_line

CONNECT_SECONDS = 3.0
REQUEST_SECONDS = 60.0
MAX_ATTEMPTS = 3
"""A wrong endpoint is told after seconds, and a store that stumbles once is asked again."""

_AWS_REASONS = {
    "NETWORK_CONNECTION": "no store answers there; is AWS_ENDPOINT_URL right, and the network up?",
    "NO_SUCH_BUCKET": "there is no such bucket; make it first, or correct the address",
    "NoCredentialProviders": "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "ACCESS_DENIED": "access denied; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights of that account",
    "INVALID_ACCESS_KEY_ID": "the store does not know this AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID",
    "REQUEST_TIME_TOO_SKEWED": "the clock of this machine is wrong; set it",
    "ExpiredToken": "the credentials have expired; set new ones",
    "HTTP status 507": "the store is full; make room there",
    "Quota": "the store is full; make room there",
    "HTTP status 403": "access denied; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights of that account",
    "HTTP status 301": "the bucket lies in another region; set AWS_REGION",
}
_LASTING = re.compile(
    "NO_SUCH_BUCKET|NoCredentialProviders|ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|"
    r"REQUEST_TIME_TOO_SKEWED|HTTP status (3\d\d|4(?!08|29)\d\d|507)"
)
"""What S3 would answer again, as Arrow words it; 408 and 429 ask for patience."""


def locate(address: str) -> tuple[fs.FileSystem, str]:
    """Filesystem and path of a local path, `file://` or `s3://` address, or another URI that pyarrow opens.

    S3 takes credentials and endpoint from the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    AWS_ENDPOINT_URL, AWS_REGION. What follows the bucket is taken literally, '#' and '%' too. Nothing is asked of the
    store yet. Raises InputError when no filesystem opens the address.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return fs.LocalFileSystem(), str(Path(address).expanduser().absolute())
    if scheme == "file":
        return fs.LocalFileSystem(), _path_of(rest, address)
    try:
        user, has_user, _ = rest.partition("/")[0].rpartition("@")
        if has_user and (scheme == "s3" or ":" in user):
            raise InputError(f"found credentials in an {scheme}:// address; they belong in variables such as AWS_…")
        if scheme == "s3":
            bucket = rest.partition("/")[0]
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]+", bucket):
                raise InputError(f"{address}: names no bucket; expected s3://BUCKET/FOLDER")
            return _s3(*_s3_place(bucket)), rest.rstrip("/")
        if scheme == "gs":
            return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=REQUEST_SECONDS)), rest.rstrip("/")
        filesystem, path = fs.FileSystem.from_uri(address)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{address}: no filesystem opens this address ({reason_of(error)})") from error
    return filesystem, path.rstrip("/")


def is_local(filesystem: fs.FileSystem) -> bool:
    """Whether files have a path that any program of this machine can open."""
    return isinstance(filesystem, fs.LocalFileSystem)


def reason_of(error: BaseException) -> str:
    """Why a filesystem refused, in one line: the answers of S3 in plain words, others as they are."""
    line = first_line(error)
    for word, reason in _AWS_REASONS.items():
        if word in line:
            return reason
    return getattr(error, "strerror", None) or line


def is_lasting(error: BaseException) -> bool:
    """Whether a filesystem has refused, and would do so again, instead of being out of reach or busy."""
    return isinstance(error, PermissionError) or bool(_LASTING.search(str(error)))


@contextmanager
def arriving(filesystem: fs.FileSystem, path: str) -> Iterator[Path]:
    """A local file to write, which appears whole at `path` when the block ends, and not at all where it fails.

    It is renamed where the filesystem is local (the folder must be there), and uploaded elsewhere. Several processes
    may write the same file side by side: the last one stays.
    """
    if is_local(filesystem):
        target = Path(path)
        partial = target.with_name(f".{uuid.uuid4().hex}.partial")
        try:
            yield partial
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix="hdam-") as folder:
        copy = Path(folder, "file")
        yield copy
        fs.copy_files(str(copy), path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=filesystem)


def _path_of(rest: str, address: str) -> str:
    host, _, path = rest.partition("/")
    if host not in ("", "localhost") or not path:
        raise InputError(f"{address}: expected file:///absolute/path")
    return "/" + unquote(path).strip("/")


def _s3_place(bucket: str) -> tuple[str, str]:
    """Region and endpoint (empty: Amazon's) of a bucket."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        return region, endpoint
    return ("us-east-1" if endpoint else fs.resolve_s3_region(bucket)), endpoint


@functools.lru_cache(maxsize=8)
def _s3(region: str, endpoint: str) -> fs.S3FileSystem:
    place = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    return fs.S3FileSystem(
        region=region,
        endpoint_override=place.netloc or None,
        scheme=place.scheme,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=MAX_ATTEMPTS),
    )
