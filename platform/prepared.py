"""Everything that can be known and checked of an experiment before Ray is started or anything is written."""

from dataclasses import dataclass

import torch

from hdam.experiments.experiment import Experiment
from hdam.models.objective import build_objective
from hdam.models.optimisation import build_optimisers
from hdam.models.weights import WeightsError
from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.manifest import Manifest
from hdam.platform.cluster import check_machine
from hdam.platform.datasets import open_dataset
from hdam.platform.pair_plan import PairPlan, make_plan
from hdam.platform.stages import TEST_SPLIT, Stage, plan_stages, with_absolute_paths
from hdam.platform.weights.files import check_given


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An experiment, checked."""

    experiment: Experiment
    """With absolute paths, which the workers understand."""
    manifest: Manifest
    plan: PairPlan
    """The order of the pairs, of which every training takes as many as it lasts."""
    stages: tuple[Stage, ...]

    @property
    def has_test_clips(self) -> bool:
        """Whether anything is held out."""
        return TEST_SPLIT in self.manifest.splits and self.manifest.splits[TEST_SPLIT].clips > 0

    @property
    def held_out_split(self) -> str:
        """The split that pictures and scores of a training are made of."""
        return TEST_SPLIT if self.has_test_clips else "train"

    @property
    def trained(self) -> Stage:
        """The stage that makes the model."""
        return [stage for stage in self.stages if stage.is_training][-1]

    def num_steps(self, stage: Stage) -> int:
        """How long a training lasts."""
        return stage.experiment.optim.duration.steps(self.plan.steps_per_epoch)


def prepare_training(experiment: Experiment) -> Prepared:
    """Every check that needs no cluster. Raises InputError or WeightsError; writes nothing."""
    check_machine(experiment.resources)
    manifest = open_dataset(experiment.data)
    experiment = with_absolute_paths(experiment)
    check_given(experiment)
    stages = plan_stages(experiment, manifest.fingerprint)
    for stage in stages:
        if stage.is_training:
            losses_of(stage.experiment)
    plan = make_plan(experiment.data, manifest, batch_size=experiment.optim.batch_size, seed=experiment.seed)
    return Prepared(experiment=experiment, manifest=manifest, plan=plan, stages=stages)


def losses_of(experiment: Experiment) -> tuple[str, ...]:
    """Names of the losses that a training logs; the networks are built and run once to know them.

    Raises InputError, or WeightsError, for settings that do not fit each other: before Ray is started.
    """
    size, optim = experiment.data.size, experiment.optim
    black = torch.zeros(1, 3, size, size)
    try:
        objective = build_objective(experiment.model, experiment.losses).eval()
        build_optimisers(objective, lr=optim.lr, betas=optim.betas)
        with torch.no_grad():
            terms, _ = objective(black, black, objective.draw(1))
    except WeightsError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"these settings of model.*, losses.* and optim.* do not work at data.size={size}: {first_line(error)}"
        ) from error
    return ("total", *terms, *(("discriminator",) if objective.discriminator is not None else ()))
