"""`hdam cluster check`: what is wrong with a cluster's file, before a machine is paid for. Needs no network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hdam.pipelines.errors import InputError, first_line

PLACEHOLDER = "YOUR-"
"""What the lines marked <- hold in our files."""
SHOWN_LENGTH = 60


class Problem(NamedTuple):
    """One thing that is wrong."""

    key: str
    """Where: `available_node_types.head.resources.CPU`; empty for the file as a whole."""
    found: str
    expected: str

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{where}found {shown(self.found)}, expected {self.expected}"


class Checked(NamedTuple):
    """A file that was looked at."""

    kind: str
    """`Ray cluster`, `RayCluster` or `RayJob`; several, joined."""
    problems: tuple[Problem, ...]


def check_file(path: Path) -> Checked:
    """Look at a file for `ray up`, or at manifests for KubeRay.

    Raises InputError where there is no file, where it is no YAML, and where it is neither of the two.
    """
    from hdam.platform.clusters.kuberay import KINDS, check_manifest
    from hdam.platform.clusters.ray_file import check_ray_file

    documents = _read(path)
    if any("apiVersion" in document for document in documents):
        manifests = [document for document in documents if document.get("kind") in KINDS]
        if not manifests:
            kinds = ", ".join(str(document.get("kind", "none")) for document in documents)
            raise InputError(f"{path}: found kind {kinds}, expected {' or '.join(KINDS)}")
        problems = [problem for each in manifests for problem in (*waiting(each), *check_manifest(each))]
        return Checked(" and ".join(each["kind"] for each in manifests), tuple(problems))
    [settings, *more] = documents
    if more or not settings.keys() & {"provider", "available_node_types", "cluster_name"}:
        raise InputError(
            f"{path}: found {', '.join(map(str, settings)) or 'nothing'}; expected a file for ray up (cluster_name, "
            "provider, available_node_types) or manifests for KubeRay (apiVersion, kind, spec)"
        )
    return Checked("Ray cluster", (*waiting(settings), *check_ray_file(settings)))


def waiting(content: Any) -> list[Problem]:
    """The values that still wait for yours, each where it comes first: an alias repeats it."""
    first = dict[str, str]()
    for key, text in _leaves(content, ""):
        if PLACEHOLDER in text:
            first.setdefault(text, key)
    return [Problem(key, text, "yours, at the line marked <-") for text, key in first.items()]


def _leaves(content: Any, key: str) -> Iterator[tuple[str, str]]:
    """Key and text of all values, in the order of the file."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _leaves(value, f"{key}[{number}]")
    else:
        yield key, str(content)


def shown(text: str) -> str:
    """`text` in one line, cut where it is long."""
    line = " ".join(text.split()) or "nothing"
    return line if len(line) <= SHOWN_LENGTH else f"{line[: SHOWN_LENGTH - 1]}…"


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        documents = [
            document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document is not None
        ]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise InputError(f"{path}: cannot be read ({reason}); expected a YAML file") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: of dates that no calendar has
        raise InputError(f"{path} is no YAML: {first_line(error)}{_line_of(error)}") from error
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise InputError(f"{path}: found no settings, expected a YAML mapping")
    return documents


def _line_of(error: yaml.YAMLError | ValueError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" ({error.problem}, line {mark.line + 1})" if mark else ""  # type: ignore[union-attr]
