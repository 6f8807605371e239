"""How many workers train: decided in Ray's controller at every start, and when machines go or come.

Ray's own policies hear of a lost machine up to 20 seconds late and then try in vain for a minute, leave no CPU for the
data, take numbers of workers among which a batch cannot be divided, and grow between two checkpoints, which costs the
steps since the first. This one looks at the machines themselves, and grows when a checkpoint has just been written, or
uploaded where there is a store. It also asks the autoscaler for the CPUs of the data, which Ray does not before the
workers are there.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import DefaultAutoscalingCoordinator
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision, ScalingDecision, ScalingPolicy
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer

from hdam.experiments.experiment import ResourceConfig
from hdam.platform.cluster import Machine
from hdam.platform.failures import TrainingError
from hdam.platform.messages import Joined, Lost, Waiting
from hdam.platform.sharing.checkpoints import stored_step
from hdam.platform.sharing.store import Place, StoreError

LOOK_SECONDS = 1.0
"""Between two looks at the machines."""
REMIND_SECONDS = 180.0
"""Between two messages of what is waited for."""
SECONDS_TO_EXPIRE = 60.0
"""What was asked of the autoscaler is dropped after so long, should it not be taken back."""
ROUNDING = 1e-6

Room = Mapping[str, float]
"""Resources of one node by Ray's names: `CPU`, `GPU`, …."""


class ScalableTrainer(TorchTrainer):
    """Ray's trainer with a policy of ours, for which it has no argument."""

    def __init__(self, *args: Any, policy: "WorkerPolicy", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._policy = policy

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        return super()._initialize_and_run_controller(**{**parts, "scaling_policy": self._policy})


class WorkerPolicy(ScalingPolicy):
    """As many workers as fit, of the numbers that `resources` allows; waits where not even the fewest do.

    It has the last word on starts that fail as well, of which Ray would try any number.
    """

    def __init__(self, resources: ResourceConfig, mailbox: Any, *, place: Place | None, last_step: int) -> None:
        """`place` is the training's in the shared store, if there is one."""
        super().__init__(scaling_config(resources))
        self._resources = resources
        self._mailbox = mailbox
        self._place = place
        self._last_step = last_step
        self._kept_step = 0
        """Of a checkpoint that was reported and at which it was not decided yet whether to grow; else 0."""
        self._data_request: DefaultAutoscalingCoordinator | None = None
        """While the CPUs of the data are asked for."""
        self._nodes: dict[str, str] = {}
        """Names of the nodes at the last look, by id."""
        self._next_look = 0.0
        self._idle_since: float | None = None
        """When there were first no workers at work, since they were last."""
        self._next_reminder = 0.0
        self._has_tried = False
        """A start has been tried since workers were last at work."""

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Before the first start, after a failure, and after a start that failed.

        Raises TrainingError when no workers have been at work for `resources.wait_seconds`.
        """
        self._maybe_send_resource_request()
        self._idle_since = self._idle_since or time.monotonic()
        # After a start in vain nothing is ours, so that all that is taken is taken by others. Before, the workers that
        # failed may still hold theirs.
        rooms = self._look(is_free=self._has_tried)
        count = num_that_fit(rooms, self._resources)
        left = self._idle_since + self._resources.wait_seconds - time.monotonic()
        if left <= 0:
            raise TrainingError(self._reason(rooms, is_room=count > 0))
        if count:
            return self._resize(count)
        self._tell_wait(rooms, left)
        self._ask_for_data_cpus()
        time.sleep(LOOK_SECONDS)  # Ray asks again at once
        return NoopDecision()

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Every time that Ray looks after its workers."""
        self._maybe_send_resource_request()
        self._idle_since, self._next_reminder, self._has_tried = None, 0.0, False
        self._cease_to_ask()
        reports = [status.training_report for status in worker_group_status.worker_statuses.values()]
        self._kept_step = max([self._kept_step, *(report.metrics["step"] for report in reports if report)])
        if not any(reports) and time.monotonic() < self._next_look:
            return NoopDecision()
        count, rooms = worker_group_state.num_workers, self._look()
        more = num_that_fit(rooms, self._resources)
        is_room = more > count and num_on(self._look(is_free=True), self._resources) >= more - count
        if not is_room or self._kept_step >= self._last_step:
            self._kept_step = 0
        if self._kept_step and self._is_safe(self._kept_step):
            self._kept_step = 0
            return self._resize(more)
        return NoopDecision()

    async def before_controller_shutdown(self) -> None:
        """Called by Ray."""
        self._cease_to_ask()
        await super().before_controller_shutdown()

    def before_controller_abort(self) -> None:
        """Called by Ray."""
        self._cease_to_ask()
        super().before_controller_abort()

    def _is_safe(self, step: int) -> bool:
        """Whether workers on any node would find the checkpoint of a step."""
        try:
            return self._place is None or stored_step(self._place) >= step
        except StoreError:
            return False

    def _ask_for_data_cpus(self) -> None:
        """Of the autoscaler, under a name of its own: Ray asks it for the workers alone while there are none."""
        if self._data_request is None:
            self._data_request = DefaultAutoscalingCoordinator(f"{self._requester_id}-data")
        each = min(1.0, self._resources.data_cpus)
        tasks = [{"CPU": each}] * math.ceil(self._resources.data_cpus / each)
        self._data_request.request_resources(tasks, expire_after_s=SECONDS_TO_EXPIRE)

    def _cease_to_ask(self) -> None:
        if self._data_request is not None:
            self._data_request.cancel_request()
            self._data_request = None

    def _get_num_workers_for_resource_request(self) -> int:
        return self._resources.workers

    def _resize(self, count: int) -> ResizeDecision:
        self._has_tried = True
        return ResizeDecision(num_workers=count, resources_per_worker=per_worker(self._resources))

    def _look(self, *, is_free: bool = False) -> list[Room]:
        """What the nodes have, or have free; tells of those that went or came since the last look."""
        self._next_look = time.monotonic() + LOOK_SECONDS
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        names = {key: f"{node['NodeManagerAddress']} ({key[:8]})" for key, node in nodes.items()}
        for key in self._nodes.keys() - names.keys():
            self._mailbox.post.remote(Lost(node=self._nodes[key]))
        for key in names.keys() - self._nodes.keys() if self._nodes else ():
            self._mailbox.post.remote(Joined(node=names[key]))
        self._nodes = names
        free = available_resources_per_node() if is_free else {}
        return [free.get(key, {}) if is_free else node["Resources"] for key, node in nodes.items()]

    def _tell_wait(self, rooms: Sequence[Room], left: float) -> None:
        now = time.monotonic()
        if now >= self._next_reminder:
            self._next_reminder = now + REMIND_SECONDS
            self._mailbox.post.remote(Waiting(needs=needs_of(self._resources), has=str(has_of(rooms)), seconds=left))

    def _reason(self, rooms: Sequence[Room], *, is_room: bool) -> str:
        """Why it is not waited any longer."""
        waited = f"waited {self._resources.wait_seconds:g} s for {needs_of(self._resources)}"
        if is_room:
            return f"{waited}; there is room, but no start of them succeeded; Ray's logs of the workers say why"
        return (
            f"{waited}, but there is room for {has_of(rooms)}; add a node, lower resources.min_workers "
            "or raise resources.wait_seconds"
        )


def scaling_config(resources: ResourceConfig) -> ScalingConfig:
    """The workers as Ray Train is told of them."""
    return ScalingConfig(
        num_workers=(resources.fewest_workers, resources.workers),
        use_gpu=resources.gpus_per_worker > 0,
        resources_per_worker=per_worker(resources),
    )


def per_worker(resources: ResourceConfig) -> dict[str, float]:
    """What each worker takes, by Ray's names."""
    needs = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return {kind: amount for kind, amount in needs.items() if amount}


def num_on(rooms: Sequence[Room], resources: ResourceConfig) -> int:
    """Workers that find room on the nodes, if nothing else does."""
    needs = per_worker(resources)
    return sum(min(int(room.get(kind, 0) / need + ROUNDING) for kind, need in needs.items()) for room in rooms)


def num_that_fit(rooms: Sequence[Room], resources: ResourceConfig) -> int:
    """The largest allowed number of workers for which there is room beside the data tasks; 0 where there is none."""
    cpus = sum(room.get("CPU", 0) for room in rooms) - resources.data_cpus
    most = min(num_on(rooms, resources), int(cpus / resources.cpus_per_worker + ROUNDING))
    return max((count for count in resources.worker_counts if count <= most), default=0)


def needs_of(resources: ResourceConfig) -> str:
    """What the fewest workers take, as it is said to a person."""
    kinds = " and ".join(_amount(amount, kind) for kind, amount in per_worker(resources).items())
    count = resources.fewest_workers
    return f"{count} worker{'s' * (count > 1)} of {kinds} each, and {_amount(resources.data_cpus, 'CPU')} for the data"


def has_of(rooms: Sequence[Room]) -> Machine:
    """What there is on all nodes together."""
    return Machine(*(sum(room.get(kind, 0) for room in rooms) for kind in ("CPU", "GPU")))


def _amount(amount: float, kind: str) -> str:
    return f"{amount:g} {kind}{'s' * (amount > 1)}"
