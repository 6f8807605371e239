"""From a YAML file and `--set` overrides to an `Experiment`; every mistake is one clear line."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from hdam.experiments.experiment import Experiment
from hdam.pipelines.errors import InputError

SHIPPED = Path(__file__).resolve().parent


def find_shipped(path: Path) -> Path:
    """`path` where it is a file; else the experiment or sweep of that name that comes with hdam, if there is one."""
    shipped = SHIPPED / path.name
    return path if path.is_file() or path.name != str(path) or not shipped.is_file() else shipped


def load_experiment(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read `path`, lay it over the files that its `base:` names, and apply `overrides` by dotted name.

    `base:` is one file, or a list that are laid over each other in this order: a dataset's, say, and a model's.

    Raises InputError with one line for a missing file, broken YAML, a base that has a base, an unknown key (with the
    nearest known one) and a value of the wrong kind.
    """
    settings = read_with_bases(Path(path))
    if is_sweep(settings):
        raise InputError(f"{path} is a sweep, not an experiment: hdam tune takes it")
    return override_settings(settings, overrides or {}, origin=str(path))


def read_with_bases(path: Path) -> dict[str, Any]:
    """The settings in a file, laid over those of its bases. Raises InputError."""
    above = _read(path)
    settings: dict[str, Any] = {}
    for base in _bases(above, path):
        settings = _merge(settings, _read_base(path.parent / base, named_by=path))
    return _merge(settings, above)


def is_sweep(settings: Mapping[str, Any]) -> bool:
    """Whether a file is a sweep's: it searches, or names the experiment that it varies."""
    return "search" in settings or "experiment" in settings


def override(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """The same experiment with `changes`, given by dotted name: `{"optim.lr": 1e-4}`. Raises InputError."""
    return override_settings(experiment.settings(), changes, origin=experiment.name)


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """`["optim.lr=1e-4"]` as `{"optim.lr": 0.0001}`; values are read as YAML. Raises InputError."""
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise InputError(f"--set {pair!r}: expected a dotted name and a value, as in --set optim.lr=1e-4")
        changes[key.strip()] = _parse_value(value, pair)
    return changes


def override_settings(settings: dict[str, Any], changes: Mapping[str, Any], *, origin: str) -> Experiment:
    """Apply `changes` to plain `settings` and validate the result; `origin` names the file in errors."""
    known = set(known_keys(Experiment))
    for key in _leaves(settings):
        _check_known(key, known, origin)
    for key, value in changes.items():
        _check_known(key, known, f"--set {key}")
        _assign(settings, key, value)
    try:
        return Experiment.model_validate(settings)
    except ValidationError as error:
        raise InputError(f"{origin}: {first_problem(error)}") from error


def known_keys(kind: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of every setting below `kind`, sections included."""
    for name, annotation in _fields(kind):
        yield prefix + name
        if isinstance(annotation, type) and _is_section(annotation):
            yield from known_keys(annotation, f"{prefix}{name}.")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such experiment file; the shipped ones are in the folder experiments/")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: expected settings as 'key: value', found {type(settings).__name__}")
    return settings


def _bases(settings: dict[str, Any], path: Path) -> list[str]:
    """What `settings`, read from `path`, name as their bases; the key is taken out."""
    named = settings.pop("base", None)
    if named is None:
        return []
    bases = [named] if isinstance(named, str) else named
    if not (isinstance(bases, list) and bases and all(isinstance(base, str) and base for base in bases)):
        raise InputError(f"{path}: base: {named!r}; expected a file or a list of files")
    return bases


def _read_base(path: Path, *, named_by: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such experiment file; {named_by} names it as its base")
    settings = _read(path)
    if "base" in settings:
        raise InputError(
            f"{path}: is a base of {named_by} and names a base itself, {settings['base']!r}; a base has no base"
        )
    return settings


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in above.items():
        both_sections = isinstance(value, dict) and isinstance(below.get(key), dict)
        below[key] = _merge(below[key], value) if both_sections else value
    return below


def _parse_value(text: str, pair: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {pair!r}: the value is not readable as YAML") from error
    if isinstance(value, str):  # YAML 1.1 reads 1e-4, without a dot, as a word
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")


def _check_known(key: str, known: set[str], origin: str) -> None:
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    raise InputError(f"{origin}: unknown key {key!r}; the nearest known key is {near[0]!r}")


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    for section in sections:
        if settings.get(section) is None:
            settings[section] = {}
        settings = settings[section]
        if not isinstance(settings, dict):
            raise InputError(f"--set {key}: {section!r} holds {settings!r}; expected settings as 'key: value'")
    settings[leaf] = value


def _fields(kind: type) -> list[tuple[str, Any]]:
    if issubclass(kind, BaseModel):
        return [(name, field.annotation) for name, field in kind.model_fields.items()]
    return [(field.name, field.type) for field in dataclasses.fields(kind)]  # type: ignore[arg-type]


def _is_section(kind: type) -> bool:
    return issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)


def first_problem(error: ValidationError) -> str:
    """What is wrong, in one line that names the key."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    found = "" if isinstance(first.get("input"), dict) or not place else f", found {first.get('input')!r}"
    return (f"{place}: {message}{found}" if place else message) + more
