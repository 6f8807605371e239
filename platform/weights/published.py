"""Published checkpoints become registered models, and models published checkpoints."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hdam.experiments.experiment import DataConfig, Experiment
from hdam.experiments.loading import override
from hdam.models.discriminator import Discriminator
from hdam.models.families import build_model
from hdam.models.model import MotionModel
from hdam.models.published import export_published, load_published, published_name
from hdam.models.published_file import Family, read_published, write_published
from hdam.models.published_shapes import NOT_IN_SHAPES, infer_config
from hdam.models.weights import WeightsError
from hdam.pipelines.errors import InputError, first_line, printable
from hdam.platform.model_folder import LoadedModel
from hdam.platform.registry import register
from hdam.platform.tracked_run import end_run, flatten, start_run
from hdam.platform.tracking import connect, patiently

SIZE = "data.size"
NO_ALIAS = ""
"""An imported model has no score, so that it is nobody's candidate."""


class Part(NamedTuple):
    """What a part of a published file holds."""

    name: str
    num_tensors: int
    num_parameters: int


class ImportReport(NamedTuple):
    """What was registered."""

    uri: str
    parts: tuple[Part, ...]
    left_out: tuple[str, ...]
    """What the file holds besides."""
    assumed: dict[str, Any]
    """Settings, by dotted name, that neither the file nor the user told."""


class ExportReport(NamedTuple):
    """What was written."""

    path: Path
    parts: tuple[Part, ...]
    reading: str
    """Of the model; the published code reads all weights as `released`."""


def import_published(path: Path, *, family: Family, name: str, changes: Mapping[str, Any]) -> ImportReport:
    """Register the published model in `path` as a new version of `name`; `changes` are settings by dotted name.

    Nothing in the file is run. Raises InputError or WeightsError, before anything is registered, where the file is not
    wholly understood or the settings do not fit it.
    """
    _check_name(name)
    file = read_published(path, family)
    config = infer_config(file.tensors, family, origin=str(path))
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    imported = Experiment(
        name=_experiment_name(name),
        question=f"None: the weights were imported from {printable(path.name)}, sha256 {digest}.",
        data=DataConfig(),
        model=config,
    )
    experiment = override(imported, changes)
    model, discriminator = _build(
        experiment, has_discriminator=any(key.startswith("discriminator.") for key in file.tensors)
    )
    load_published(model, discriminator, file.tensors, origin=str(path))
    _try_out(model, experiment, path)
    tags = {
        "variant": experiment.model.variant,
        "imported": printable(path.name),
        "imported.sha256": digest,
        "ignored": str(list(experiment.model.ignored)),
    }
    version = _register(model, discriminator, experiment, name=name, tags=tags)
    return ImportReport(
        uri=f"models:/{name}/{version}",
        parts=_parts(model, discriminator, list(file.tensors)),
        left_out=file.left_out,
        assumed=_assumed(experiment, changes),
    )


def export_model(loaded: LoadedModel, path: Path) -> ExportReport:
    """Write a model, with the discriminator that it was imported with, as the published code's checkpoint.

    Raises WeightsError for a model that the published code has no names for, InputError where `path` cannot be written
    or is there already.
    """
    if path.exists():
        raise InputError(f"{path} is there already; give another name")
    parts = export_published(loaded.model, loaded.discriminator)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_published(parts, path)
    except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
        raise InputError(f"{path} cannot be written ({first_line(error)})") from error
    names = [f"{part}.{name}" for part, state in parts.items() for name in state]
    return ExportReport(path, _parts(loaded.model, loaded.discriminator, names), loaded.model.config.reading)


def _check_name(name: str) -> None:
    """Refuse what MLflow takes for no name, and what the address `models:/NAME@ALIAS` could not hold."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"--name {name!r}: expected letters, digits, '.', '_' and '-' alone, as in vox-fomm")


def _experiment_name(name: str) -> str:
    """The name of a model in the letters of an experiment's."""
    return re.sub(r"[^a-z0-9_-]", "-", name.lower())


def _build(experiment: Experiment, *, has_discriminator: bool) -> tuple[MotionModel, Discriminator | None]:
    model = build_model(experiment.model).eval()
    return model, Discriminator(experiment.model.discriminator).eval() if has_discriminator else None


def _try_out(model: MotionModel, experiment: Experiment, path: Path) -> None:
    """Paint once, so that a size that does not fit and damaged weights are told before anything is registered."""
    size = experiment.data.size
    grey = torch.full((1, 3, size, size), 0.5)
    try:
        with torch.no_grad():
            image = model(grey, grey).image
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} does not work at {SIZE}={size}: {first_line(error)}; change it by --set") from error
    if not image.isfinite().all():
        raise WeightsError(f"{path}: this model paints what is no number; its weights are damaged")


def _register(
    model: MotionModel,
    discriminator: Discriminator | None,
    experiment: Experiment,
    *,
    name: str,
    tags: Mapping[str, str],
) -> str:
    """Keep the model with an MLflow run of its own; returns the version."""
    client = connect()
    run_id = patiently(client, lambda: start_run(client, experiment, None, run_name=tags["imported"], tags=tags))
    try:
        version = register(
            model=model,
            experiment=experiment,
            name=name,
            run_id=run_id,
            tags=tags,
            alias=NO_ALIAS,
            discriminator=discriminator,
        )
    except BaseException:
        end_run(client, run_id, "FAILED")
        raise
    end_run(client, run_id, "FINISHED")
    return version


def _parts(model: MotionModel, discriminator: Discriminator | None, names: list[str]) -> tuple[Part, ...]:
    """Tensors, of `names`, and parameters of every published part."""
    parameters = dict(model.named_parameters(prefix="model"))
    if discriminator is not None:
        parameters |= dict(discriminator.named_parameters(prefix="discriminator"))
    num_parameters: dict[str, int] = {}
    for name, parameter in parameters.items():
        part = _part(published_name(name, discriminator, family=model.config.family))
        num_parameters[part] = num_parameters.get(part, 0) + parameter.numel()
    parts = [_part(name) for name in names]
    return tuple(Part(part, parts.count(part), num_parameters[part]) for part in dict.fromkeys(parts))


def _part(published: str) -> str:
    return published.partition(".")[0]


def _assumed(experiment: Experiment, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that shapes do not tell and that no change, of them or of a section around them, does."""
    values = flatten(experiment.settings())
    return {
        name: values[name]
        for name in (*NOT_IN_SHAPES, SIZE)
        if not any(f"{name}.".startswith(f"{change}.") for change in changes)
    }
