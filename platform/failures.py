"""What goes wrong in a training: which failures another attempt cannot mend, and the one line that tells of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from ray.exceptions import RayActorError
from ray.train import UserCallback

from hdam.models.weights import WeightsError
from hdam.pipelines.errors import InputError
from hdam.platform.step import NonFiniteError

LASTING = (InputError, WeightsError, NonFiniteError)
"""Would happen again in the next attempt."""


class TrainingError(InputError):
    """A training that could not be finished; its message says why and, with `advice`, how to go on."""

    def __init__(self, reason: str, *, advice: str = "") -> None:
        super().__init__(f"{reason}; {advice}" if advice else reason)
        self.reason = reason


class StopOnLasting(UserCallback):
    """Ends the training at a failure that would only happen again, instead of spending all attempts on it."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Runs in Ray's controller, which gives up when a callback raises."""
        del run_context
        for error in worker_exceptions.values():
            cause = cause_of(error)
            if isinstance(cause, LASTING):
                raise cause


def cause_of(error: BaseException) -> BaseException:
    """The failure behind the wrappings of Ray: the innermost lasting one if there is any, else the innermost."""
    chain = list(_unwrapped(error))
    return next((found for found in reversed(chain) if isinstance(found, LASTING)), chain[-1])


def describe(error: BaseException) -> str:
    """One line about `error`."""
    cause = cause_of(error)
    if isinstance(cause, RayActorError):
        return "a process died: it was killed, or the machine ran out of memory"
    line = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    return line if isinstance(cause, LASTING) else f"{type(cause).__name__}: {line}"


def _unwrapped(error: BaseException) -> Iterator[BaseException]:
    yield error
    inner = [*getattr(error, "worker_failures", {}).values()]
    inner += [getattr(error, name, None) for name in ("controller_failure", "health_check_failure", "cause")]
    for found in [*inner, error.__cause__]:
        if isinstance(found, BaseException) and found is not error:
            yield from _unwrapped(found)
