"""What Tune says of its trials goes into the sweep's record, and what the record says is what Tune tries next."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.search import Searcher

from hdam.pipelines.errors import first_line
from hdam.platform.failures import cause_of, describe
from hdam.platform.locks import is_held
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.tune.points import Told, point_at
from hdam.platform.tune.records import ENDED, Ledger, TrialRecord, number_in
from hdam.platform.tune.trainable import OUTCOME, TrialFailedError, changes_in
from hdam.platform.tune.trial import STOP_NAME

LOG = logging.getLogger("hdam")

SECONDS_TO_LEAVE = 120.0
"""How long a trial that is stopped may take to write its last checkpoint."""
POLL_SECONDS = 0.2


class Queue:
    """The trials that are left: those that were begun or are known, then new ones."""

    def __init__(self, plan: SweepPlan, ledger: Ledger) -> None:
        self._plan = plan
        self._ledger = ledger
        self._left = [trial.number for trial in ledger.trials if trial.status not in ENDED]
        self.is_closed = False
        """No trial begins any more."""

    @property
    def trials(self) -> Sequence[TrialRecord]:
        """All that are known."""
        return self._ledger.trials

    @property
    def num_left(self) -> int:
        """How many trials have not ended."""
        return len(self._left) + max(self._plan.num_trials - len(self._ledger.trials), 0)

    def next(self) -> TrialRecord | None:
        """The next trial, once each; None where there is none."""
        if self.is_closed:
            return None
        if self._left:
            return self._ledger.trial(self._left.pop(0))
        if len(self._ledger.trials) >= self._plan.num_trials:
            return None
        return self._new()

    def _new(self) -> TrialRecord:
        trials, sweep = self._ledger.trials, self._plan.loaded.sweep
        point, place = divmod(len(trials), len(sweep.seeds))
        known = next((trial.settings for trial in trials if trial.point == point), None)
        settings = known or point_at(self._plan.loaded, point, told_of(trials, sweep.metric))
        return self._ledger.add(settings=settings, seed=sweep.seeds[place], point=point)


def told_of(trials: Sequence[TrialRecord], metric: str) -> list[Told]:
    """What is known of every point: the mean over its seeds, or how far it came where all were stopped."""
    found: list[Told] = []
    for point in sorted({trial.point for trial in trials}):
        same = [trial for trial in trials if trial.point == point and trial.status != "failed"]
        values = [value for trial in same if (value := trial.value(metric)) is not None]
        stopped = next((trial.history for trial in same if trial.status == "stopped" and not values), [])
        if same:
            value = sum(values) / len(values) if values else None
            history = tuple((step, watched) for step, watched in stopped)
            found.append(Told(point=same[0].settings, value=value, history=history))
    return found


class _Unpickled:
    """Tune keeps copies of what it is given, to restore them; here, the sweep's record is what is kept."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class QueueSearch(_Unpickled, Searcher):
    """Lets Tune take its trials from a queue."""

    def __init__(self, queue: Queue, make_config: Callable[[TrialRecord], dict[str, Any]]) -> None:
        super().__init__()
        self._queue = queue
        self._make_config = make_config

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """The queue knows what is wanted."""
        return True

    def suggest(self, *_: Any) -> Any:
        """Tune's configuration of the next trial."""
        trial = self._queue.next()
        return Searcher.FINISHED if trial is None else self._make_config(trial)

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """The record hears of it by `Watch`."""

    def save(self, checkpoint_path: str) -> None:
        """The record is kept already."""

    def restore(self, checkpoint_path: str) -> None:
        """The record is read by whoever makes the queue."""


class Watch(_Unpickled, Callback):
    """Keeps the record, and says on the screen how trials do."""

    def __init__(self, plan: SweepPlan, ledger: Ledger, queue: Queue) -> None:
        self._plan = plan
        self._ledger = ledger
        self._queue = queue
        self._counted: dict[int, float] = {}
        """Until when the time of a trial is in its record."""

    def on_trial_start(self, *_: Any, **told: Any) -> None:
        """It begins, or goes on."""
        number, settings = _number(told["trial"]), changes_in(told["trial"].config)
        self._counted[number] = time.monotonic()
        self._note_changes(number, settings)
        record = self._ledger.change_trial(number, status="running", reason="")
        LOG.info("trial %d of %d: %s", number, self._plan.num_trials, describe_settings(record))

    def on_trial_result(self, *_: Any, **told: Any) -> None:
        """It has told its figures."""
        trial, result = told["trial"], told["result"]
        number, watched = _number(trial), self._plan.loaded.sweep.watched
        metrics = {name: value for name, value in result.items() if "/" in name and isinstance(value, float)}
        known = self._ledger.trial(number)
        history = known.history
        if watched in metrics and result.get(OUTCOME) != "stopped":
            history = [*history, (int(result["step"]), metrics[watched])]
            LOG.info("trial %d: %s %.4g at step %d", number, watched, metrics[watched], result["step"])
        metrics = {**known.metrics, **metrics}
        self._ledger.change_trial(number, metrics=metrics, history=history, seconds=self._seconds(number))
        self._note_changes(number, changes_in(trial.config))

    def on_trial_complete(self, *_: Any, **told: Any) -> None:
        """It is finished, or Tune's scheduler stops it; then it is waited for, since Tune would cut it off."""
        number, last = _number(told["trial"]), told["trial"].last_result
        if last.get(OUTCOME) == "finished":
            record = self._end(number, status="finished", reason="")
            metric = self._plan.loaded.sweep.metric
            LOG.info("trial %d is finished: %s %s", number, metric, f"{record.metrics.get(metric, float('nan')):.4g}")
        elif self._queue.is_closed or OUTCOME in last:
            self._end(number, status="interrupted", reason="")
        else:
            self.stop([number])
            record = self._end(number, status="stopped", reason=self._reason(number))
            LOG.info("trial %d is stopped %s", number, record.reason)

    def on_trial_error(self, *_: Any, **told: Any) -> None:
        """It failed; the sweep goes on."""
        number, reason = _number(told["trial"]), _why_failed(told["trial"])
        self._end(number, status="failed", reason=reason)
        LOG.warning("trial %d failed: %s", number, reason)

    def stop(self, numbers: Sequence[int]) -> None:
        """Let trials take their leave, and wait for them."""
        folders = [self._ledger.folder_of(self._ledger.trial(number)) for number in numbers]
        for folder in folders:
            (folder / STOP_NAME).touch()
        give_up = time.monotonic() + SECONDS_TO_LEAVE
        while any(is_held(folder) for folder in folders) and time.monotonic() < give_up:
            time.sleep(POLL_SECONDS)

    def _end(self, number: int, **changes: Any) -> TrialRecord:
        return self._ledger.change_trial(number, seconds=self._seconds(number), **changes)

    def _seconds(self, number: int) -> float:
        """Of work until now; a member of a population that rests does not work."""
        now = time.monotonic()
        since, self._counted[number] = self._counted.get(number, now), now
        return self._ledger.trial(number).seconds + now - since

    def _reason(self, number: int) -> str:
        step, value = (self._ledger.trial(number).history or [(0, float("nan"))])[-1]
        sweep = self._plan.loaded.sweep
        return f"by {sweep.scheduler} at step {step} of {self._plan.steps}: {sweep.watched} {value:.4g}"

    def _note_changes(self, number: int, settings: dict[str, Any]) -> None:
        """Of a population: Tune has changed the settings, and given the trial another one's weights."""
        known = self._ledger.trial(number)
        if all(known.settings[name] == value for name, value in settings.items()):
            return
        step = known.history[-1][0] if known.history else 0
        record = self._ledger.change_trial(
            number, settings={**known.settings, **settings}, changes=[*known.changes, (step, settings)]
        )
        LOG.info("trial %d takes over another one's weights, with %s", number, describe_settings(record))


def describe_settings(trial: TrialRecord) -> str:
    """In one line: `losses.delta=0.3, seed 1`."""
    settings = [f"{name}={_short(value)}" for name, value in trial.settings.items()]
    return ", ".join([*settings, f"seed {trial.seed}"])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(trial: Any) -> int:
    return number_in(trial.custom_trial_name)


def _why_failed(trial: Any) -> str:
    """In one line. Tune keeps the error in a file of its own folder."""
    path = trial.pickled_error_file
    if path is None or not Path(path).is_file():
        return "its process died"
    cause = cause_of(ray.cloudpickle.loads(Path(path).read_bytes()))
    return first_line(cause) if isinstance(cause, TrialFailedError) else describe(cause)
