"""Tasks of Ray Data for work that does not depend on each other: all CPUs of a machine or a cluster at once."""

import functools
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
import ray.data
from ray import cloudpickle

from hdam.experiments.experiment import ResourceConfig
from hdam.pipelines.tasks import Item, Lost, Result
from hdam.platform.datasets import Rest

LOG = logging.getLogger("hdam")

TASKS_ONLY = ResourceConfig(workers=1, cpus_per_worker=0.01, data_cpus=0.01)
"""What has to fit beside each other where nothing is trained: nothing."""

MAX_BLOCKS = 2000
"""Ray Data keeps a task per block in mind; of more items, several share one."""

DIED = "the process that worked on it died twice: out of memory, or a defect of a decoder"


def run_on_ray(work: Callable[[Item], Result], items: Sequence[Item], *, cpus: int | None) -> Iterator[Result | Lost]:
    """Do all items on the Ray that is there, `cpus` at once at most (None: as many as fit).

    Items whose process died are tried once more; then they are lost.
    """
    left = dict(enumerate(items))
    for number, result in _run_tasks(work, left, cpus=cpus):
        del left[number]
        yield result
    if not left:
        return
    LOG.warning("%d of %d tasks died with their process; each is tried once more", len(left), len(items))
    again: Any = ray.remote(num_cpus=1, max_retries=0)(_outcome)
    for number, answer in {number: again.remote(work, pickle.dumps(item)) for number, item in left.items()}.items():
        try:
            yield _result(ray.get(answer))
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError):
            yield Lost(number, DIED)


def run_on_actors(
    make_work: Callable[[], Callable[[Item], Result]], items: Sequence[Item], *, actors: int, num_gpus: float
) -> Iterator[Result | Lost]:
    """Do all items in at most `actors` processes, each of which makes its work once; results come as they are done.

    An item whose process died is tried again in a new one; when that dies as well, it is lost. An error of making the
    work is raised here as it is, as one of the work's.
    """
    left = dict(enumerate(items))
    stream = _stream(
        _Actor,
        left,
        fn_constructor_args=(cloudpickle.dumps(make_work),),
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(items))),
        num_cpus=1,
        num_gpus=num_gpus,
        ray_remote_args_fn=lambda: {"max_restarts": -1, "max_task_retries": 1},
    )
    for number, result in stream:
        del left[number]
        yield result
    yield from (Lost(number, DIED) for number in left)


def _run_tasks(
    work: Callable[[Item], Result], items: Mapping[int, Item], *, cpus: int | None
) -> Iterator[tuple[int, Result]]:
    def run_some(batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        yield from _answers(work, batch)

    yield from _stream(
        run_some,
        items,
        num_cpus=1,
        compute=ray.data.TaskPoolStrategy(size=cpus),
        # Ray would repeat for ever what kills its process.
        ray_remote_args_fn=lambda: {"max_retries": 0},
    )


def _stream(work: Any, items: Mapping[int, Item], **options: Any) -> Iterator[tuple[int, Any]]:
    """Number and result of each item, as they come; an item whose process died has none.

    Items and results travel pickled: to Ray Data they are bytes, whatever they hold. `work` and `options` are those of
    `map_batches`.
    """
    rows = [{"number": number, "item": pickle.dumps(item)} for number, item in items.items()]
    numbered = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ray_remote_args_fn")  # gone in 2.64; nothing else sets retries
        tasks = numbered.map_batches(work, batch_size=1, **options)
    context = tasks.context
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # each result is handed over when it is there, not with its block
    context.custom_execution_callback_classes = [Rest]
    context.execution_no_progress_timeout_s = -1  # a long video takes its time, and machines that have yet to start
    context.max_errored_blocks = -1  # a video that kills its reader does not end the rest
    if not LOG.isEnabledFor(logging.DEBUG):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it has its say about every execution
    for row in tasks.iter_rows():
        yield row["number"], _result(row["outcome"])


class _Actor:
    """A process that does one item after the other."""

    def __init__(self, make_work: bytes) -> None:
        try:
            self._work: Callable[[Any], Any] = pickle.loads(make_work)()
        except Exception as error:  # Ray would wrap it; the first item tells of it
            self._work = functools.partial(_refuse, error)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """Called by Ray Data."""
        yield from _answers(self._work, batch)


def _answers(work: Callable[[Any], Any], batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
    for number, item in zip(batch["number"], batch["item"], strict=True):
        yield {"number": [int(number)], "outcome": [_outcome(work, item)]}


def _refuse(error: Exception, _: Any) -> None:
    raise error


def _outcome(work: Callable[[Item], Result], item: bytes) -> bytes:
    """Does one piece of work, in a process of Ray."""
    try:
        return cloudpickle.dumps(work(pickle.loads(item)))
    except Exception as error:  # goes to the driver as it is, without Ray's wrapping
        return cloudpickle.dumps(_Raised(error))


def _result(outcome: bytes) -> Any:
    found = pickle.loads(outcome)
    if isinstance(found, _Raised):
        raise found.error
    return found


class _Raised:
    """An error of a task, on its way to the driver."""

    def __init__(self, error: Exception) -> None:
        self.error = error
