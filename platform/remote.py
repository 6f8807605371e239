"""One piece of work on the cluster, where the GPUs are, watched by the driver."""

from collections.abc import Callable
from typing import Any, TypeVar

import ray
import torch

from hdam.experiments.experiment import ResourceConfig
from hdam.platform.cluster import ray_session
from hdam.platform.failures import TrainingError, describe
from hdam.platform.messages import Inbox, Mailbox, Message

POLL_SECONDS = 0.3

Result = TypeVar("Result")
Tell = Callable[[Message], None]


def call_on_cluster(work: Callable[[Tell], Result], resources: ResourceConfig, *, on_message: Tell) -> Result:
    """Run `work` in a process of Ray with the resources of one worker; what it tells comes to `on_message`.

    Raises TrainingError with one line about the failure where it fails.
    """
    with ray_session(resources):
        mailbox = Mailbox.remote()  # type: ignore[attr-defined]
        inbox = Inbox[Message](mailbox)
        options: dict[str, Any] = {
            "num_cpus": min(1.0, resources.data_cpus),
            "num_gpus": resources.gpus_per_worker,
            "scheduling_strategy": "DEFAULT",  # a trial of a sweep would lend its own place, which has no CPUs
        }
        remote: Any = ray.remote(**options)(_work)
        answer = remote.remote(work, mailbox, resources.workers * resources.threads_per_worker)
        is_done = False
        try:
            while not is_done:
                is_done = bool(ray.wait([answer], timeout=POLL_SECONDS)[0])
                for message in inbox.fetch():
                    on_message(message)
            result: Result = ray.get(answer)
        except (ray.exceptions.RayError, ValueError) as error:
            raise TrainingError(describe(error)) from error
        except BaseException:  # Ctrl-C, or a signal to end
            ray.cancel(answer, force=True)
            raise
    return result


def _work(work: Callable[[Tell], Result], mailbox: Any, num_threads: int) -> Result:
    torch.set_num_threads(num_threads)
    told: list[Any] = []

    def tell(message: Message) -> None:
        told[:] = [mailbox.post.remote(message)]

    result = work(tell)
    ray.get(told)  # the last message has arrived, and so have those before it
    return result
