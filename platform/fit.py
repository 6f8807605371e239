"""The workers of a training on Ray, watched by the driver from their start to their end.

However many workers there are, of `resources.workers` or less, every step trains on the same pairs, see `TrainStep`.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hdam.experiments.experiment import Experiment, ResourceConfig
from hdam.platform.cluster import ray_session
from hdam.platform.datasets import ingest_config, stream
from hdam.platform.failures import StopOnLasting, TrainingError, describe
from hdam.platform.messages import Inbox, Joined, Lost, MachineMessage, Mailbox, Message, Waiting
from hdam.platform.pair_plan import PairPlan
from hdam.platform.scaling import ScalableTrainer, WorkerPolicy, scaling_config
from hdam.platform.sharing.checkpoints import newest_step, step_to_tell
from hdam.platform.sharing.files import FILES_DIR, SharedFile, offer_file
from hdam.platform.sharing.store import place_of, store
from hdam.platform.worker import Task, run_worker

LOG = logging.getLogger("hdam")

POLL_SECONDS = 0.3
RAY_POLL = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
"""Ray looks after its workers every 2 seconds, and so long may a report and the end have to wait for it."""
RAY_START = ("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
"""Room for workers is looked for before they are started, so that Ray need not wait a minute for it to be granted."""
SECONDS_TO_STOP = 120.0
"""How long an interrupted training may take to write its last checkpoint."""

OnMessage = Callable[[Message], None]


def fit(
    experiment: Experiment,
    plan: PairPlan,
    *,
    run_dir: Path,
    attempt: str,
    lineage: str,
    last_step: int,
    held_out_split: str,
    on_message: OnMessage,
    initial: Path | None = None,
) -> None:
    """Train from the newest checkpoint in `run_dir` to `last_step`, and hand on what the workers tell.

    `attempt` is what `holding` gave for the folder, and `lineage` what its record says. Where there is no checkpoint,
    the weights begin as those in the file `initial`, or as random ones. At Ctrl-C or a signal to end, the workers write
    a checkpoint first; a second one ends them at once.

    Raises InputError when the machine is too small, TrainingError when the workers fail once too often, or when a
    cluster has had no room for them for `resources.wait_seconds`.
    """
    for name, value in (RAY_POLL, RAY_START):
        os.environ.setdefault(name, value)
    with ray_session(experiment.resources):
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        mailbox = Mailbox.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        task = Task(
            experiment=experiment.settings(),
            run_dir=str(run_dir),
            place=place_of(run_dir),
            files=_offered(experiment, initial, run_dir),
            initial=str(initial or ""),
            attempt=attempt,
            lineage=lineage,
            steps_per_epoch=plan.steps_per_epoch,
            last_step=last_step,
            held_out_split=held_out_split,
            mailbox=mailbox,
        )
        watched = _Watched(_make_ray_trainer(experiment.resources, plan, task).fit, mailbox, on_message)
        try:
            watched.follow()
        except (KeyboardInterrupt, SystemExit):
            watched.stop()
            raise
        if error := watched.outcome.exception():
            step = step_to_tell(run_dir, task.place)
            kept = f"the checkpoint of step {step} is kept, the same command goes on from there" if step else ""
            raise TrainingError(f"training failed: {describe(error)}", advice=kept) from error


class _Watched:
    """A training in the background, and what comes from it."""

    def __init__(self, work: Callable[[], Any], mailbox: Any, on_message: OnMessage) -> None:
        self.outcome = in_background(work)
        self._mailbox = mailbox
        self._on_message = on_message
        self._inbox = Inbox[Message | MachineMessage](mailbox)
        self._is_training = False

    def follow(self, *, seconds: float = float("inf")) -> None:
        """Hand on messages until the training has ended, for so many seconds at most."""
        deadline = time.monotonic() + seconds
        while not self.outcome.done() and time.monotonic() < deadline:
            wait([self.outcome], timeout=POLL_SECONDS)
            self._fetch()
        self._fetch()  # handling the last ones may have taken until after the end

    def _fetch(self) -> None:
        for message in self._inbox.fetch():
            if isinstance(message, MachineMessage):
                self._is_training = self._is_training and not isinstance(message, Waiting)
                LOG.warning("%s", line_of(message))
            else:
                self._is_training = True
                self._on_message(message)

    def stop(self) -> None:
        """Let the workers write a last checkpoint and end; what has not begun yet has nothing to keep."""
        if not self._is_training:
            return
        LOG.warning("stopping after this step, with a checkpoint; Ctrl-C once more stops at once")
        self._mailbox.ask_to_stop.remote()
        self.follow(seconds=SECONDS_TO_STOP)
        if not self.outcome.done():
            LOG.warning("the workers did not end within %.0f s; they are stopped as they are", SECONDS_TO_STOP)


def line_of(message: MachineMessage) -> str:
    """What became of the cluster, for the log."""
    match message:
        case Lost(node=node):
            return f"node {node} is lost"
        case Joined(node=node):
            return f"node {node} has joined"
        case Waiting(needs=needs, has=has, seconds=seconds):
            return f"waiting for {needs}: there is room for {has}; giving up in {seconds / 60:.1f} min"


def _make_ray_trainer(resources: ResourceConfig, plan: PairPlan, task: Task) -> ScalableTrainer:
    run_dir = Path(task.run_dir)

    def rest_of_stream() -> ray.data.Dataset:
        """Called at every start of the workers: what their newest checkpoint has not seen."""
        first_step = newest_step(run_dir, task.place)
        return stream(plan, first_step=first_step, last_step=task.last_step, resources=resources)

    return ScalableTrainer(
        run_worker,
        policy=WorkerPolicy(resources, task.mailbox, place=task.place, last_step=task.last_step),
        train_loop_config={"task": task},
        scaling_config=scaling_config(resources),
        run_config=RunConfig(
            # A name of its own for every attempt: Ray has nothing to remember, the checkpoints say where to go on.
            name=task.attempt,
            storage_path=str(run_dir / "ray"),
            failure_config=FailureConfig(max_failures=resources.max_failures),
            callbacks=[StopOnLasting()],
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
        datasets={"train": rest_of_stream},
        dataset_config=ingest_config(resources),
    )


def _offered(experiment: Experiment, initial: Path | None, run_dir: Path) -> tuple[SharedFile, ...]:
    """Files of this disk that workers with other disks read, in the shared store, if there is one."""
    whole, place = store(), place_of(run_dir)
    if whole is None or place is None:
        return ()
    files = [] if initial is None else [offer_file(initial, place)]
    if weights := experiment.losses.perceptual.weights:
        files.append(offer_file(Path(weights), whole.folder(FILES_DIR)))
    return tuple(files)


def in_background(work: Callable[[], Any]) -> "Future[Any]":
    """Run `work` in a thread: the driver's own keeps the screen and hears Ctrl-C, which Ray would take for itself."""
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="ray-train", daemon=True).start()
    return outcome
