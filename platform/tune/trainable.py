"""The edge to Ray Tune: an actor that does a trial in a thread, and hands on what the trial tells.

Tune calls `step` for the next figures, and `stop` when its scheduler has decided. A trial takes seconds to take its
leave (its workers write a last checkpoint), which Tune's function trials do not wait for; this one does. The driver of
the training lives in this very process: Ray is there already and is used as it is, signals do not concern a thread, and
folders are locked as by any other process. A process of its own for every trial would import torch and Ray once more.
"""

import json
import os
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ray import tune

from hdam.experiments.experiment import Experiment
from hdam.experiments.loading import override
from hdam.platform.failures import TrainingError, describe
from hdam.platform.prepared import Prepared
from hdam.platform.runs import write_json
from hdam.platform.tune.population import give_weights, take_weights
from hdam.platform.tune.trial import Figures, TrialStoppedError, TrialTask, prepare_trial, run_trial

SECONDS_TO_LEAVE = 150.0
NAME, SWEEP = "name", "sweep"
"""Keys in Tune's configuration of a trial, for its name and the sweep's folder; what Tune may change lies beside them.
A trial that takes over another one's settings is given all of them, the name included: it goes by its first."""
TASK_NAME = "task.json"
OUTCOME = "outcome"
"""In a trial's last result: `finished` or `stopped`."""


class TrialFailedError(RuntimeError):
    """A trial that cannot be finished; says why in one line."""


class Trial(tune.Trainable):
    """A trial as Tune sees it."""

    def setup(self, config: dict[str, Any], environment: Mapping[str, str] = {}) -> None:
        """Take the trial, which begins with the first step: until then, Tune may hand over a checkpoint.

        `environment` is what this process, which was started before it was known, has to know of the driver's.
        """
        os.environ.update(environment)
        self._task = _read_task(self.trial_name, config)
        self._prepared: Prepared | None = None
        self._work: _Work | None = None

    def step(self) -> dict[str, Any]:
        """The figures of the next checkpoint, or the last ones. Raises TrialFailedError."""
        if self._work is None:
            self._work = _Work(self._task, self._prepare)
        return self._work.next()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """For a trial that is to take over the weights, and for this one when it goes on."""
        give_weights(self._prepare(), Path(self._task.folder), Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        """Of this trial, or of one whose weights it takes over."""
        take_weights(self._prepare(), Path(self._task.folder), Path(checkpoint_dir))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial: this process has imported everything."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Stop the trial where it is still at work, and wait until it has taken its leave."""
        if self._work is not None:
            self._work.stop()

    def _prepare(self) -> Prepared:
        if self._prepared is None:
            self._prepared = prepare_trial(self._task)
        return self._prepared


class _Work:
    """A trial in a thread."""

    def __init__(self, task: TrialTask, prepare: Callable[[], Prepared]) -> None:
        self._task = task
        self._prepare = prepare
        self._told: queue.Queue[dict[str, Any] | Exception] = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hdam-trial", daemon=True)
        self._thread.start()

    def next(self) -> dict[str, Any]:
        """Wait for the next figures."""
        told = self._told.get()
        if isinstance(told, Exception):
            # What another command would do is not said of a trial: the sweep has advice of its own.
            raise TrialFailedError(told.reason if isinstance(told, TrainingError) else describe(told)) from told
        return told

    def stop(self) -> None:
        """Let the trial end after the step that it is at."""
        self._stop.set()
        self._thread.join(SECONDS_TO_LEAVE)

    def _run(self) -> None:
        figures: Figures = {}

        def tell(newest: Figures) -> None:
            figures.update(newest)
            self._told.put(dict(newest))

        try:
            last = run_trial(self._task, self._prepare(), on_figures=tell, wants_stop=self._stop.is_set)
        except TrialStoppedError:
            self._told.put({**figures, "done": True, OUTCOME: "stopped"})
        except Exception as error:
            self._told.put(error)
        else:
            self._told.put({**last, "done": True, OUTCOME: "finished"})


def config_of(task: TrialTask) -> dict[str, Any]:
    """For Tune; what the trial is told lies in its folder."""
    folder = Path(task.folder)
    write_json(folder / TASK_NAME, asdict(task))
    return {NAME: folder.name, SWEEP: str(folder.parent)}


def changes_in(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that Tune may change, by dotted name."""
    return {name: value for name, value in config.items() if name not in (NAME, SWEEP)}


def _read_task(name: str, config: dict[str, Any]) -> TrialTask:
    """With the settings that Tune has changed."""
    task = TrialTask(**json.loads((Path(config[SWEEP]) / name / TASK_NAME).read_text(encoding="utf-8")))
    experiment = override(Experiment.model_validate(task.experiment), changes_in(config))
    return replace(task, experiment=experiment.settings())
