"""`hdam doctor --cluster`: what every node of the cluster can reach, asked from a process on that node."""

import logging
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import ray
from pyarrow import fs
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.filesystems import locate
from hdam.pipelines.manifest import load_manifest
from hdam.platform import tracking
from hdam.platform.cluster import must_have_cluster, ray_session
from hdam.platform.doctor import Finding
from hdam.platform.ray_tasks import TASKS_ONLY
from hdam.platform.sharing.store import VARIABLE, Place, probe, store
from hdam.platform.tracked_run import probe_run

LOG = logging.getLogger("hdam")

SECONDS_TO_ANSWER = 180.0
PACKAGES = ("hdam", "torch", "mlflow", "pyarrow", "numpy")
"""Have to be the same on all nodes; Ray itself sees to its own version and Python's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What every node is asked; addresses are the driver's."""

    tracking_uri: str
    """Empty where runs are kept in a file of the driver's disk, which no other node needs."""
    store: Place | None
    marker: str
    """A file of the driver's results folder, to see whether nodes share it; empty where they need not."""
    dataset: str
    """Empty: not asked."""
    versions: dict[str, str]


class Answer(NamedTuple):
    """One line of a node's answer."""

    subject: str
    found: str
    is_good: bool
    consequence: str = ""


def examine_cluster(dataset: str = "") -> list[Finding]:
    """Every check on every node of the cluster of RAY_ADDRESS, that of the driver included.

    Raises InputError where there is no cluster, or none answers.
    """
    must_have_cluster()
    with ray_session(TASKS_ONLY, is_waiting=False), _question(dataset) as question:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        answers = {node["NodeID"]: _ask(node["NodeID"], question) for node in nodes}
        ready, _ = ray.wait(list(answers.values()), num_returns=len(answers), timeout=SECONDS_TO_ANSWER)
        return [finding for node in nodes for finding in _findings(node, answers[node["NodeID"]], ready)]


@contextmanager
def _question(dataset: str) -> Iterator[Question]:
    shared = store()
    with ExitStack() as stack:
        with tracking.keeping_results() as folder:
            marker = stack.enter_context(tempfile.NamedTemporaryFile(prefix=".probe-", dir=folder))
        yield Question(
            tracking_uri=tracking.tracking_uri() if tracking.has_server() else "",
            store=shared,
            marker="" if shared is not None else marker.name,
            dataset=dataset if not dataset or "://" in dataset else str(Path(dataset).absolute()),
            versions=_versions(),
        )


def _ask(node_id: str, question: Question) -> Any:
    """Runs on that node, however busy its CPUs are."""
    options: dict[str, Any] = {
        "num_cpus": 0,
        "max_retries": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
    }
    return ray.remote(**options)(answer).remote(question)


def _findings(node: dict[str, Any], reference: Any, ready: list[Any]) -> Iterator[Finding]:
    name = f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})"
    if reference not in ready:
        reason = f"no answer within {SECONDS_TO_ANSWER:.0f} s"
        advice = "something that it asks hangs, the tracking server, the store or the dataset; or the node is going"
        yield Finding(f"{name}: hdam", reason, False, True, advice)
        return
    try:
        answers = ray.get(reference)
    except ray.exceptions.RayError as error:
        # A node without hdam cannot even read the question.
        reason = first_line(getattr(error, "cause", None) or error)
        yield Finding(
            f"{name}: hdam", reason, False, True, "nothing of hdam runs there; install the same version on it"
        )
        return
    for subject, found, is_good, consequence in answers:
        yield Finding(f"{name}: {subject}", found, is_good, True, consequence)


def answer(question: Question) -> list[Answer]:
    """What this node says; it takes no longer than the time-outs of its stores."""
    return [
        _compare_versions(question.versions),
        _try("tracking server", question.tracking_uri, _use_tracking, "MLFLOW_TRACKING_URI and its credentials"),
        _check_results(question),
        _try("dataset", question.dataset, _open_dataset, "the address and the credentials of this node"),
    ]


def _compare_versions(expected: dict[str, str]) -> Answer:
    found = _versions()
    other = [
        f"{name} {found[name]} instead of {version}" for name, version in expected.items() if found[name] != version
    ]
    advice = "the same versions as at the driver are needed; install them there"
    return Answer("versions", ", ".join(other or [f"{name} {found[name]}" for name in found]), not other, advice)


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES} | {"Python": ".".join(map(str, sys.version_info[:3]))}


def _check_results(question: Question) -> Answer:
    if question.store is not None:
        place = question.store
        return _try("store", place.address, lambda _: probe(place), f"{VARIABLE} and the credentials of this node")
    is_shared = Path(question.marker).exists()
    where = str(Path(question.marker).parent)
    advice = f"nodes share no results folder; mount one for HDAM_RESULTS, or set {VARIABLE}=s3://BUCKET/FOLDER"
    return Answer("results folder", where if is_shared else f"{where} is not the driver's", is_shared, advice)


def _use_tracking(uri: str) -> None:
    probe_run(tracking.connect(uri), name=f"doctor-{uuid.uuid4().hex[:8]}")


def _open_dataset(address: str) -> None:
    shard = load_manifest(address).shards[0].path
    filesystem, root = locate(address)
    if filesystem.get_file_info(f"{root}/{shard}").type != fs.FileType.File:
        raise InputError(f"{address}: the shard {shard} is missing")


def _try(subject: str, address: str, use: Callable[[str], None], look_at: str) -> Answer:
    """Whether this node can `use` an address; there is nothing to try where it is empty."""
    if not address:
        return Answer(subject, "none set", True)
    try:
        use(address)
    except Exception as error:  # whatever it is, the table is the place for it
        return Answer(
            subject, tracking.masked(first_line(error)), False, f"not reached from this node; look at {look_at}"
        )
    return Answer(subject, tracking.masked(address), True)
