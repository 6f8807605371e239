"""A model as a folder: safetensors weights and the experiment as JSON; nothing in it is a pickle.

A checkpoint of a training is read as well, for its weights.
"""

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from hdam.experiments.experiment import Experiment
from hdam.models.discriminator import Discriminator
from hdam.models.families import build_model
from hdam.models.model import MotionModel
from hdam.models.weights import fill, load_weights, save_weights
from hdam.pipelines.errors import InputError
from hdam.platform.checkpoints import SEAL_NAME, is_sound, read_checkpoint, read_seal

ARTIFACT_NAME = "hdam"
"""The folder's name inside a model that MLflow keeps."""
WEIGHTS_NAME = "weights.safetensors"
EXPERIMENT_NAME = "experiment.json"
DISCRIMINATOR_NAME = "discriminator.safetensors"
"""Only in the folders of imported models that came with a discriminator; no animation needs it."""


class LoadedModel(NamedTuple):
    """A model in evaluation mode, and where it comes from."""

    model: MotionModel
    experiment: Experiment
    name: str
    """Registered name; for a folder or a run, its last part."""
    version: str
    """Empty for a folder or a run."""
    uri: str
    discriminator: Discriminator | None = None
    """Kept where a published model was imported with one."""


def write_model(
    folder: Path, *, model: MotionModel, experiment: Experiment, discriminator: Discriminator | None = None
) -> None:
    """Write weights and experiment, and those of the discriminator if there is one, into the new folder `folder`."""
    folder.mkdir(parents=True)
    save_weights(model, folder / WEIGHTS_NAME)
    if discriminator is not None:
        save_weights(discriminator, folder / DISCRIMINATOR_NAME)
    (folder / EXPERIMENT_NAME).write_text(experiment.model_dump_json(indent=2), encoding="utf-8")


def read_checkpointed_model(folder: Path) -> tuple[MotionModel, Experiment]:
    """The model in a checkpoint, in evaluation mode on the CPU, and the experiment that trains it.

    Raises InputError for a checkpoint that is damaged or says nothing of its experiment.
    """
    seal = read_seal(folder) if is_sound(folder) else None
    if seal is None or seal["experiment"] is None:
        raise InputError(f"{folder}: this checkpoint is damaged; take another one of the same run")
    experiment = Experiment.model_validate(seal["experiment"])
    model = build_model(experiment.model)
    fill(model, read_checkpoint(folder)["model"], origin=str(folder))
    return model.eval(), experiment


def read_model(folder: Path) -> tuple[MotionModel, Experiment]:
    """The model that `write_model` wrote, or that of a checkpoint, in evaluation mode on the CPU, and its experiment.

    Raises InputError when a file is missing or its settings are not understood, WeightsError when weights do not fit.
    """
    if (folder / SEAL_NAME).is_file():
        return read_checkpointed_model(folder)
    for name in (WEIGHTS_NAME, EXPERIMENT_NAME):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no model there, {name} is missing")
    path = folder / EXPERIMENT_NAME
    try:
        experiment = Experiment.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: settings that this hdam does not know: {error}") from error
    model = build_model(experiment.model)
    load_weights(model, folder / WEIGHTS_NAME)
    return model.eval(), experiment


def load_folder(folder: Path) -> LoadedModel:
    """What `read_model` reads, and the discriminator beside it, if there is one. Raises the same errors."""
    model, experiment = read_model(folder)
    discriminator = None
    if (folder / DISCRIMINATOR_NAME).is_file():
        discriminator = Discriminator(experiment.model.discriminator).eval()
        load_weights(discriminator, folder / DISCRIMINATOR_NAME)
    return LoadedModel(model, experiment, name=folder.name, version="", uri=str(folder), discriminator=discriminator)
