"""Ray Tune with the settings that a sweep needs."""

import logging
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import BasicVariantGenerator

from hdam.platform import tracking
from hdam.platform.cluster import ADDRESS, HEAD
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.tune.records import TrialRecord
from hdam.platform.tune.schedulers import make_scheduler
from hdam.platform.tune.trainable import NAME, Trial
from hdam.platform.tune.watch import Queue, QueueSearch, Watch

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has it all
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # one line says why a trial failed
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
OUR_VARIABLES = ("HDAM_", "MLFLOW_", ADDRESS)
TOKEN = 1e-3
"""Of the head, where all trials are: they take none of the CPUs, which are their workers'."""
LENT = 0.9
"""As much of it as members of a population may take together; Ray Train and Ray Data need some for themselves."""

MakeConfig = Callable[[TrialRecord], dict[str, Any]]


def make_tuner(plan: SweepPlan, queue: Queue, watch: Watch, *, make_config: MakeConfig, folder: Path) -> tune.Tuner:
    """The trials of `queue`, as `make_config` describes them, under the eyes of `watch`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", message="Consider boosting PBT performance")  # by what would cut members off
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the record says which trials failed, and why
    sweep = plan.loaded.sweep
    is_population = sweep.scheduler == "pbt"
    # Tune has no other way to bound how many members of a population are at work than what they take of the cluster.
    token = math.floor(1e4 * LENT / sweep.concurrency) / 1e4 if is_population else TOKEN
    members = _members(queue, make_config) if is_population else []
    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(Trial, environment=_environment()), tune.PlacementGroupFactory([{HEAD: token}])
        ),
        param_space={name: tune.choice([value]) for name, value in (members[0] if members else {}).items()},
        tune_config=tune.TuneConfig(
            # A population has to begin as a whole: Tune takes it from no search that proposes one after the other.
            search_alg=BasicVariantGenerator(members) if is_population else QueueSearch(queue, make_config),
            scheduler=make_scheduler(sweep, steps=plan.steps, known=queue.trials),
            num_samples=len(members) if is_population else queue.num_left,
            max_concurrent_trials=None if is_population else sweep.concurrency,
            reuse_actors=not is_population,  # a paused member has to take its leave; others are known to have done so
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            callbacks=[watch],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )


def _environment() -> dict[str, str]:
    """Where results and tracking are, and whether a cluster was joined, of which nothing is refused, since it may grow.

    It goes through memory alone, for there may be passwords in it.
    """
    ours = {name: value for name, value in os.environ.items() if name.startswith(OUR_VARIABLES)}
    return ours | {"HDAM_RESULTS": str(tracking.results_dir())}


def _name(trial: Any) -> str:
    return str(trial.config[NAME])


def _members(queue: Queue, make_config: MakeConfig) -> list[dict[str, Any]]:
    """The configurations of all trials; the settings that Tune may change lie beside the rest."""
    configs = []
    while (trial := queue.next()) is not None:
        configs.append({**make_config(trial), **trial.settings})
    return configs
