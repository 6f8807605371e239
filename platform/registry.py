"""Registered models: safetensors weights, the experiment as JSON and a pyfunc face, found again by URI."""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import mlflow.pyfunc
import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

from hdam.experiments.experiment import Experiment
from hdam.models.discriminator import Discriminator
from hdam.models.model import MotionModel
from hdam.pipelines.errors import InputError
from hdam.platform.model_folder import (
    ARTIFACT_NAME,
    WEIGHTS_NAME,
    LoadedModel,
    load_folder,
    write_model,
)
from hdam.platform.tracking import connect, masked

LOG = logging.getLogger("hdam")

CANDIDATE = "candidate"
MODEL_NAME = "model"
"""Name of the logged model within its run: `runs:/RUN/model`."""
PINNED = ("hdam", "torch", "mlflow", "numpy", "pillow", "safetensors", "pydantic")
EXPECTED = (
    "expected models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN/model, "
    f"a checkpoint's folder or one with {WEIGHTS_NAME}"
)


class ModelVersion(NamedTuple):
    """One registered version."""

    version: str
    aliases: tuple[str, ...]
    created: datetime
    run_id: str
    tags: dict[str, str]


class RegisteredModel(NamedTuple):
    """A registered name and its versions, the newest first."""

    name: str
    versions: tuple[ModelVersion, ...]


def register(
    *,
    model: MotionModel,
    experiment: Experiment,
    name: str,
    run_id: str,
    tags: Mapping[str, str],
    alias: str = CANDIDATE,
    discriminator: Discriminator | None = None,
) -> str:
    """Log `model` to the run, register it as the newest version of `name`, point `alias` at it; returns the version.

    No alias moves where `alias` is empty. Raises InputError where MLflow does not take it.
    """
    client = connect()
    with _mistakes(f"registering {name}"):
        model_id = _log_model(client, model, experiment, run_id, discriminator)
        with suppress(MlflowException):  # there is one of that name already; anything else fails again in the next line
            client.create_registered_model(name)
        registered = client.create_model_version(
            name, f"models:/{model_id}", run_id=run_id, tags=dict(tags), model_id=model_id
        )
        if alias:
            client.set_registered_model_alias(name, alias, registered.version)
    return str(registered.version)


def load_model(uri: str, device: str | torch.device = "cpu") -> LoadedModel:
    """The model behind `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/RUN/model` or a folder, on `device`.

    An alias is looked up once: the model's `uri` names the version that it meant then, however it moves afterwards.
    Raises InputError for what is not there, saying what is.
    """
    name, version = _resolve(uri)
    if not uri.startswith(("models:/", "runs:/")):
        if not uri or not Path(uri).is_dir():
            raise InputError(f"{uri!r}: no such folder; {EXPECTED}")
        loaded, pinned = _read_logged(Path(uri)), uri
    else:
        pinned = f"models:/{name}/{version}" if version else uri
        if "@" in uri:
            LOG.info("%s is version %s", uri, version)
        loaded = _download(pinned)
    return loaded._replace(model=loaded.model.to(device), name=name, version=version, uri=pinned)


def list_models() -> list[RegisteredModel]:
    """All registered models, by name."""
    client = connect()
    return [_with_versions(client, found.name) for found in sorted(_all(client), key=lambda model: model.name)]


def show_model(name: str) -> RegisteredModel:
    """One registered model. Raises InputError when there is none of that name."""
    client = connect()
    _check_name(client, name)
    return _with_versions(client, name)


def is_registered(name: str, version: str) -> bool:
    """Whether this version is there."""
    client = connect()
    with _mistakes(f"looking for version {version} of {name}"):
        return version in [str(found.version) for found in _versions(client, name)]


def find_version(name: str, tags: Mapping[str, str]) -> str | None:
    """The newest version of `name` that has all of `tags`; None where there is none."""
    client = connect()
    with _mistakes(f"looking for versions of {name}"):
        return next(
            (str(found.version) for found in _versions(client, name) if tags.items() <= found.tags.items()), None
        )


def set_alias(name: str, version: str, alias: str) -> None:
    """Point `alias` at a version. Raises InputError when name or version do not exist, or the alias is no name."""
    client = connect()
    _check_version(client, name, version)
    with _mistakes(f"alias {alias!r}"):
        client.set_registered_model_alias(name, alias, version)


def tag_version(name: str, version: str, tags: Mapping[str, str]) -> None:
    """Add tags to a version, or change them. Raises InputError when name or version do not exist."""
    client = connect()
    _check_version(client, name, version)
    with _mistakes(f"tags of version {version} of {name}"):
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)


def _log_model(
    client: MlflowClient, model: MotionModel, experiment: Experiment, run_id: str, discriminator: Discriminator | None
) -> str:
    """Make the model one that MLflow keeps with the run; returns its id."""
    # Made by hand: `Model.log` alone would put it into the experiment "Default", and its files beside the caller.
    model_id = client.create_logged_model(
        client.get_run(run_id).info.experiment_id, name=MODEL_NAME, source_run_id=run_id
    ).model_id
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # MLflow asks for an input example; it would be stored, and the signature says all of it.
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        written = Path(folder) / ARTIFACT_NAME
        write_model(written, model=model, experiment=experiment, discriminator=discriminator)
        Model.log(
            artifact_path=None,
            model_id=model_id,
            flavor=mlflow.pyfunc,
            run_id=run_id,
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={ARTIFACT_NAME: str(written)},
            pip_requirements=[f"{package}=={metadata.version(package)}" for package in PINNED],
            signature=_signature(),
        )
    return str(model_id)


def _signature() -> ModelSignature:
    image = np.dtype(np.uint8)
    return ModelSignature(
        inputs=Schema([TensorSpec(image, (1, -1, -1, 3), "source"), TensorSpec(image, (-1, -1, -1, 3), "driving")]),
        outputs=Schema([TensorSpec(image, (-1, -1, -1, 3))]),
        params=ParamSchema([ParamSpec("mode", "string", "relative")]),
    )


def _resolve(uri: str) -> tuple[str, str]:
    """Name and version of what `uri` means; InputError when a registered one does not exist."""
    if not uri.startswith("models:/"):
        return uri.rstrip("/").rsplit("/", 1)[-1], ""
    client = connect()
    name, at, alias = uri.removeprefix("models:/").strip("/").partition("@")
    if not at:
        name, _, version = name.partition("/")
        if not version:
            raise InputError(f"{uri}: which version? {_known(client, name)}; {EXPECTED}")
        _check_version(client, name, version)
        return name, version
    _check_name(client, name)
    aliases = client.get_registered_model(name).aliases
    if alias not in aliases:
        raise InputError(f"{uri}: no alias {alias!r}; {_known(client, name)}")
    return name, str(aliases[alias])


def _download(uri: str) -> LoadedModel:
    """The model of a version or a run. Raises InputError where its files are gone."""
    connect()
    with tempfile.TemporaryDirectory() as folder:
        try:
            return _read_logged(Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder)))
        except (MlflowException, OSError, InputError) as error:
            reason = masked(" ".join(str(error).replace(folder, "").split()))
            raise InputError(
                f"{uri}: its files cannot be read from the artifact store; were they deleted? ({reason})"
            ) from error


def _read_logged(folder: Path) -> LoadedModel:
    """The model in a folder: one that MLflow keeps, or one that `write_model` made."""
    inner = folder / "artifacts" / ARTIFACT_NAME
    return load_folder(inner if inner.is_dir() else folder)


def _check_name(client: MlflowClient, name: str) -> None:
    names = sorted(model.name for model in _all(client))
    if name not in names:
        known = f"there are {', '.join(names)}" if names else "there is none yet; hdam train registers one"
        raise InputError(f"no registered model {name!r}; {known}")


def _check_version(client: MlflowClient, name: str, version: str) -> None:
    _check_name(client, name)
    if version not in [str(found.version) for found in _versions(client, name)]:
        raise InputError(f"model {name} has no version {version!r}; {_known(client, name)}")


def _known(client: MlflowClient, name: str) -> str:
    """What there is of `name`, for messages."""
    _check_name(client, name)
    versions = [str(found.version) for found in _versions(client, name)]
    aliases = [f"@{alias} → {at}" for alias, at in sorted(client.get_registered_model(name).aliases.items())]
    return f"{name} has versions {', '.join(versions)}, aliases {', '.join(aliases) or 'none'}"


def _with_versions(client: MlflowClient, name: str) -> RegisteredModel:
    by_version: dict[str, list[str]] = {}
    for alias, version in client.get_registered_model(name).aliases.items():
        by_version.setdefault(str(version), []).append(alias)
    versions = [
        ModelVersion(
            version=str(found.version),
            aliases=tuple(sorted(by_version.get(str(found.version), ()))),
            created=datetime.fromtimestamp(found.creation_timestamp / 1000).astimezone(),
            run_id=found.run_id or "",
            tags=dict(found.tags),
        )
        for found in _versions(client, name)
    ]
    return RegisteredModel(name, tuple(versions))


def _all(client: MlflowClient) -> list[Any]:
    return _every_page(client.search_registered_models)


def _versions(client: MlflowClient, name: str) -> list[MlflowVersion]:
    """Versions of `name`, the newest first."""
    found = _every_page(client.search_model_versions, filter_string=f"name='{name}'")
    return sorted(found, key=lambda version: -int(version.version))


def _every_page(search: Any, **query: Any) -> list[Any]:
    page = search(**query)
    found = list(page)
    while page.token:
        page = search(**query, page_token=page.token)
        found.extend(page)
    return found


@contextmanager
def _mistakes(subject: str) -> Iterator[None]:
    """What MLflow refuses, as an InputError about `subject`."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise InputError(f"{subject}: {' '.join(str(error).split())}") from error
