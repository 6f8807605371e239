"""A command that is to be done on a cluster: checked here, and put in words that its nodes understand."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hdam.experiments.experiment import Experiment
from hdam.experiments.loading import find_shipped, load_experiment, parse_overrides, read_with_bases
from hdam.experiments.sweep_loading import find_beside, load_sweep
from hdam.pipelines.errors import InputError
from hdam.pipelines.listing import is_remote
from hdam.pipelines.manifest import load_manifest
from hdam.platform.jobs.view import View

SENT_DIR = "submitted"
"""Where a job finds the files that were sent with it."""
LABEL_LENGTH = 40
REGISTERED = ("models:/", "runs:/")
CHANGES = "changes"
"""The parameter behind --set."""


@dataclass(kw_only=True, slots=True)
class Order:
    """A command and its parameters."""

    name: str
    syntax: Any
    """The command as typer knows it."""
    params: dict[str, Any]
    label: str = ""
    """What it is about, for the job's name."""
    files: dict[str, str] = field(default_factory=dict)
    """What has to be sent: text by relative path."""
    experiments: Sequence[Experiment] = ()

    def words_for(self, view: View) -> list[str]:
        """The command line, with every path as the nodes understand it. Raises InputError where they do not."""
        self._check_datasets(view)
        for name, what in PLACES.get(self.name, {}).items():
            if given := self.params.get(name):
                self.params[name] = _each(given, functools.partial(_place, view=view, what=what))
        if self.experiments:
            moved = [f"{name}={place}" for name, place in self._moved(view)]
            self.params[CHANGES] = [*(self.params[CHANGES] or []), *moved]
        return [self.name, *_words(self.syntax, self.params)]

    def _check_datasets(self, view: View) -> None:
        given = self.params.get("data")
        named = [given] if given else [each.data.path for each in self.experiments]
        for dataset in named:
            if not dataset:
                raise InputError("no dataset given; set data.path: --set data.path=DATASET")
            if view.is_here and not is_remote(dataset):
                load_manifest(dataset)

    def _moved(self, view: View) -> Iterator[tuple[str, str]]:
        """Settings that are paths of this machine in another form than the nodes need."""
        read: Mapping[str, Callable[[Experiment], str]] = {
            "data.path": lambda experiment: experiment.data.path,
            "losses.perceptual.weights": lambda experiment: experiment.losses.perceptual.weights,
        }
        for name, value_of in read.items():
            paths = {path for each in self.experiments if (path := value_of(each))}
            moved = {path: view.place(path, what=name) for path in sorted(paths)}
            if any(path != place for path, place in moved.items()):
                if len(moved) > 1:
                    raise InputError(f"{name}: {', '.join(moved)}: where experiments differ in it, give whole paths")
                yield name, next(iter(moved.values()))


def read_order(words: Sequence[str], *, root: Any, context: Any) -> Order:
    """The order that `words` are, as `hdam` takes them; `root` knows all commands, `context` is this one's.

    Everything that can be checked here is. Raises InputError, and typer's errors of usage.
    """
    name = words[0]
    if name not in READERS:
        known = ", ".join(sorted(READERS))
        raise InputError(f"hdam {name} is not done on a cluster; hdam submit takes {known}")
    syntax = root.get_command(context, name)
    order = Order(name=name, syntax=syntax, params=syntax.make_context(f"hdam {name}", list(words[1:])).params)
    READERS[name](order)
    return order


def slug(text: str) -> str:
    """`text` as a part of a job's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LABEL_LENGTH].strip("-")


def _read_experiment(order: Order) -> None:
    path = find_shipped(order.params["experiment"])
    experiment = load_experiment(path, parse_overrides(order.params[CHANGES] or []))
    order.label, order.experiments = experiment.name, (experiment,)
    order.params["experiment"] = _send(order, path.name, read_with_bases(path))


def _read_sweep(order: Order) -> None:
    path = find_shipped(order.params["sweep"])
    loaded = load_sweep(path, parse_overrides(order.params[CHANGES] or []))
    order.label, order.experiments = loaded.sweep.name, tuple(loaded.experiments.values())
    settings = read_with_bases(path)
    names = [Path(name).name for name in loaded.sweep.files]
    for name, file in zip(names, loaded.sweep.files, strict=True):
        _send(order, f"experiments/{name}", read_with_bases(find_beside(path, file)))
    settings["experiment"] = [f"experiments/{name}" for name in names]
    order.params["sweep"] = _send(order, path.name, settings)


def _read_model(order: Order) -> None:
    given = order.params.get("models") or [order.params["model"]]
    order.label = "-".join(re.sub(r"^(models|runs):/", "", uri) for uri in given)


def _read_dataset(order: Order) -> None:
    order.label = order.params["name"] or order.params["dataset"].rstrip("/").rpartition("/")[2]


READERS: Mapping[str, Callable[[Order], None]] = {
    "train": _read_experiment,
    "status": _read_experiment,
    "tune": _read_sweep,
    "evaluate": _read_model,
    "compare": _read_model,
    "prepare": _read_dataset,
    "doctor": lambda _: None,
}
"""The commands that make sense on a cluster, and what reads them."""

PLACES: Mapping[str, Mapping[str, str]] = {
    "evaluate": {"model": "the model", "data": "the dataset"},
    "compare": {"models": "the model", "data": "the dataset"},
    "prepare": {"source": "the source", "dataset": "the dataset", "table": "the table"},
    "doctor": {"data": "the dataset"},
}
"""Parameters that are paths or addresses."""


def _send(order: Order, name: str, settings: Mapping[str, Any]) -> str:
    """Settings with those of their bases, as one file; returns its path in the job's folder."""
    path = f"{SENT_DIR}/{name}"
    order.files[path] = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    return path


def _place(address: str, *, view: View, what: str) -> str:
    return address if address.startswith(REGISTERED) else view.place(address, what=what)


def _each(value: Any, change: Callable[[str], str]) -> Any:
    return [change(each) for each in value] if isinstance(value, list | tuple) else change(value)


def _words(syntax: Any, params: Mapping[str, Any]) -> list[str]:
    """A command's parameters as they are typed: arguments, then the options that are not at their defaults."""
    arguments: list[str] = []
    options: list[str] = []
    for param in syntax.params:
        value = params.get(param.name)
        values = [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]
        if value is None or value == param.default:
            continue
        if param.param_type_name == "argument":
            arguments += values
        elif param.is_flag:
            options.append(param.opts[0])
        else:
            options += [word for each in values for word in (max(param.opts, key=len), each)]
    return arguments + options
