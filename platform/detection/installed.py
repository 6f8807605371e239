"""Whether a package's files are as its installer left them."""

import base64
import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path


def faults_of_package(record: Path) -> Iterator[str]:
    """Files of a package that are not what its RECORD says: path, sha256 in URL-safe base64, size.

    Compiled Python files do not count, since they are made anew where they are wrong.
    """
    with record.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == 3]
    noted_of = {row[0]: row[1] for row in rows if row[1].startswith("sha256=") and not row[0].endswith(".pyc")}
    for name, noted in noted_of.items():
        path = record.parent.parent / name
        if not path.is_file():
            yield f"{path} is missing"
        elif _digest(path) != noted:
            yield f"{path} is not as it was installed"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
