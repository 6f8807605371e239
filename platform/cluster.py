"""Ray: a local cluster where there is none, and a clear word where the machine is too small."""

import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from typing import NamedTuple

import ray
import torch

from hdam.experiments.experiment import ResourceConfig
from hdam.pipelines.errors import InputError, first_line
from hdam.platform.doctor import usable_cpus

LOG = logging.getLogger("hdam")

ADDRESS = "RAY_ADDRESS"
HEAD = "node:__internal_head__"
"""A resource of which there is one in all, on the head."""


@contextlib.contextmanager
def ray_session(resources: ResourceConfig, *, is_waiting: bool = True) -> Iterator[None]:
    """Ray for the length of the `with` block: the cluster of RAY_ADDRESS, else a local one that ends with the block.

    A session that is already there is used and left alone. Raises InputError when this machine is too small. What a
    cluster does not have now is waited for, which is said unless the block is not `is_waiting` for anything.
    """
    if ray.is_initialized():
        check_machine(resources)
        yield
        return
    start_ray(resources)
    if is_waiting and os.environ.get(ADDRESS):
        _warn_if_small(resources)
    try:
        yield
    finally:
        ray.shutdown()


def start_ray(resources: ResourceConfig) -> None:
    """Join the cluster of RAY_ADDRESS, or start one on this machine.

    Raises InputError when `resources` don't fit on this machine, and when no cluster answers at RAY_ADDRESS.
    """
    is_verbose = LOG.isEnabledFor(logging.DEBUG)
    logging_level = logging.INFO if is_verbose else logging.ERROR
    if address := os.environ.get(ADDRESS):
        try:
            ray.init(log_to_driver=is_verbose, logging_level=logging_level)
        except (ConnectionError, ValueError, ray.exceptions.AuthenticationError) as error:
            reason = first_line(error)
            raise InputError(f"{ADDRESS}={address}: no cluster there ({reason}); correct or unset it") from error
        _take_signal()
        return
    check_machine(resources)
    # Ray asks for a token by default, since its ports are open to the network; RAY_AUTH_MODE is left as it is.
    ray.init(
        address="local",
        num_cpus=max(1, int(usable_cpus())),
        include_dashboard=False,
        log_to_driver=is_verbose,
        logging_level=logging_level,
        object_store_memory=_object_store_bytes(resources),
    )
    _take_signal()


def must_have_cluster() -> None:
    """Raises InputError where neither a session is there nor RAY_ADDRESS names a cluster."""
    if not ray.is_initialized() and not os.environ.get(ADDRESS):
        raise InputError(f"no cluster: {ADDRESS} is not set; in a job (hdam submit) and on a node it may be `auto`")


def must_be_on_head() -> None:
    """Raises InputError where this process joined the cluster from another node than its head."""
    own = ray.get_runtime_context().get_node_id()
    if not any(HEAD in node["Resources"] for node in ray.nodes() if node["NodeID"] == own):
        raise InputError(
            "a sweep with HDAM_STORE is started on the cluster's head, as hdam submit does; this is another node"
        )


def _take_signal() -> None:
    """Let a signal to end (SIGTERM) be a SystemExit in the driver, which writes a checkpoint; Ray's own handler would
    kill the workers first."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, leave)


def check_machine(resources: ResourceConfig) -> None:
    """Whether `resources` fit on this machine; nothing is refused on a cluster, see `machine_has`.

    Raises InputError that says what would fit: Ray would wait for ever without a word.
    """
    if (machine := machine_has()) is not None:
        check_resources(resources, cpus=machine.cpus, gpus=machine.gpus)


class Machine(NamedTuple):
    """What there is for all workers and tasks together."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        """As it is said to a person."""
        kinds = [(self.cpus, "CPU"), *([(self.gpus, "GPU")] if self.gpus else [])]
        return " and ".join(f"{count:g} {kind}{'s' * (count != 1)}" for count, kind in kinds)


def machine_has() -> Machine | None:
    """Of this machine; None where RAY_ADDRESS names a cluster, joined or not.

    What a cluster has now says little: its machines come when they are asked for, and may be gone for a while.
    """
    if os.environ.get(ADDRESS):
        return None
    if ray.is_initialized():
        return has_now()
    return Machine(max(1, int(usable_cpus())), torch.cuda.device_count())


def has_now() -> Machine:
    """All nodes of the session that is there."""
    found = ray.cluster_resources()
    return Machine(found.get("CPU", 0.0), found.get("GPU", 0.0))


def check_resources(resources: ResourceConfig, *, cpus: float, gpus: float) -> None:
    """Whether workers and data tasks fit beside each other. Raises InputError that says what would fit."""
    workers, per_worker, data = resources.fewest_workers, resources.cpus_per_worker, resources.data_cpus
    told = f"resources.{'workers' if resources.min_workers is None else 'min_workers'}={workers}"
    has = f"this machine has {cpus:g} CPU{'s' * (cpus != 1)}"
    if workers > cpus:
        raise InputError(f"{told}, but {has}; use at most {int(cpus)}")
    needed = workers * per_worker + data
    if needed > cpus:
        most = int((cpus - data) / per_worker)
        advice = f"use at most {most} or lower resources.cpus_per_worker" if most >= 1 else "lower resources.data_cpus"
        raise InputError(
            f"{told} need {workers} × {per_worker:g} CPUs and {data:g} for the data, "
            f"together {needed:g}; {has}; {advice}"
        )
    if workers * resources.gpus_per_worker > gpus:
        raise InputError(
            f"{told} need {resources.gpus_per_worker:g} GPU each; {gpus:g} found; "
            "use fewer workers or set resources.gpus_per_worker=0"
        )


def _warn_if_small(resources: ResourceConfig) -> None:
    """A cluster may grow when asked, so that too little is no error there."""
    workers, has = resources.fewest_workers, has_now()
    cpus = workers * resources.cpus_per_worker + resources.data_cpus
    needed = Machine(math.ceil(cpus), workers * resources.gpus_per_worker)
    if needed.cpus > has.cpus or needed.gpus > has.gpus:
        LOG.warning("the cluster has %s now in all, and this needs %s; waiting for machines to join", has, needed)


def _object_store_bytes(resources: ResourceConfig) -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(resources.object_store_mib << 20, memory // 4)
