"""`hdam prepare` on Ray: clips and shards as tasks of Ray Data, all CPUs of a machine or a cluster at once."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from hdam.pipelines.layouts import LayoutName
from hdam.pipelines.prepare import PrepareReport, Progress, prepare
from hdam.pipelines.prepare_options import PrepareOptions
from hdam.pipelines.tasks import Item, Lost, Result, RunTasks, in_turn
from hdam.platform.reports import preparing_bar

if TYPE_CHECKING:
    from hdam.experiments.experiment import ResourceConfig

LOG = logging.getLogger("hdam")

MIN_BYTES = 8 << 20
"""Less is done before Ray would have started."""


def run_prepare(
    source: str,
    dataset: str,
    *,
    options: PrepareOptions,
    run_tasks: RunTasks,
    layout: LayoutName | None = None,
    table: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> PrepareReport:
    """`prepare` with a progress bar, and a word on what is there already and on how to go on. Raises as it does."""
    seen: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if not seen and progress.num_ready:
            LOG.info("going on: %d of %d clips are there", progress.num_ready, progress.total)
        seen[:] = [progress]
        show(progress)

    try:
        with preparing_bar() as show:
            return prepare(
                source,
                dataset,
                options=options,
                layout=layout,
                table=table,
                name=name,
                overwrite=overwrite,
                run_tasks=run_tasks,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        if seen:
            LOG.warning("interrupted; finished clips are kept, and the same command goes on from there")
        raise


@contextmanager
def ray_tasks(
    *, cpus: int | None = None, min_bytes: int = MIN_BYTES, resources: "ResourceConfig | None" = None
) -> Iterator[RunTasks]:
    """Runs tasks on the cluster of RAY_ADDRESS, else on this machine: `cpus` at once at most, None: all that are there.

    Ray is started at the first need and stays until the block ends; `resources` (None: nothing) have to fit in beside
    each other. There is no need for a single task, for `cpus` 1, and, where `cpus` is None, for tasks whose `num_bytes`
    are together less than `min_bytes`. Raises InputError as `ray_session` does.
    """
    with ExitStack() as session:
        is_started = False

        def run_tasks(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result | Lost]:
            nonlocal is_started
            if len(items) <= 1 or cpus == 1 or (cpus is None and _num_bytes(items) < min_bytes):
                yield from in_turn(work, items)
                return
            from hdam.platform.cluster import ray_session  # takes seconds, and what is ready needs none of it
            from hdam.platform.ray_tasks import TASKS_ONLY, run_on_ray

            if not is_started:
                session.enter_context(ray_session(resources or TASKS_ONLY))
                is_started = True
            yield from run_on_ray(work, items, cpus=cpus)

        yield run_tasks


def _num_bytes(items: Sequence[Any]) -> float:
    """How much there is to do; infinite where an item does not say."""
    return sum(math.inf if (size := getattr(item, "num_bytes", None)) is None else size for item in items)
