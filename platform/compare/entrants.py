"""The models of a comparison: their finished evaluations, read and found to be comparable."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import check_size
from hdam.platform.evaluation.metrics import METRICS, Metric, Protocol
from hdam.platform.evaluation.results import EvaluationRecord, read_evaluation
from hdam.platform.evaluation.tables import ClipMean, read_clip_means
from hdam.platform.model_folder import LoadedModel

FINISHED = "finished"
LONGEST_LABEL = 28
"""Letters of a label in a chart."""


class Entrant(NamedTuple):
    """A model of a comparison and how it did."""

    label: str
    """Short, and no other entrant's."""
    folder: Path
    record: EvaluationRecord
    clips: Mapping[Protocol, Mapping[str, ClipMean]]
    """By protocol and clip id."""

    def version_of(self, metric: Metric) -> str:
        """Name and version of what the metric looked through; empty where it needs nothing."""
        return self.record.instruments.get(metric.name, "")

    def measured(self, protocol: Protocol) -> list[str]:
        """Names of the metrics that were measured, in the order of the tables."""
        return [name for name in METRICS if name in self.record.means.get(protocol, {})]


def check_models(models: Sequence[LoadedModel], dataset: str) -> None:
    """InputError for fewer than two models, one that is there twice, or one of another size than the dataset."""
    if len(models) < 2:
        raise InputError("a comparison takes two models or more; hdam evaluate takes one")
    for number, model in enumerate(models):
        check_size(dataset, model.experiment.data.size)
        for earlier in models[:number]:
            if _is_same(earlier, model):
                raise InputError(f"{earlier.uri} and {model.uri} are the same model; name each one once")


def read_entrants(folders: Sequence[Path]) -> tuple[Entrant, ...]:
    """The evaluations in `folders`, in this order.

    Raises InputError unless there are two or more, all of them finished and of the same clips by the same settings and
    instruments.
    """
    if len(folders) < 2:
        raise InputError("a comparison takes the evaluations of two models or more")
    for number, folder in enumerate(folders):
        if folder.resolve() in [earlier.resolve() for earlier in folders[:number]]:
            raise InputError(f"{folder} is there twice; name each model once")
    records = [_read_finished(folder) for folder in folders]
    for folder, record in zip(folders[1:], records[1:], strict=True):
        _check_comparable(records[0], folders[0], record, folder)
    labels = unique_labels([_name(record) for record in records], [record.model["uri"] for record in records])
    return tuple(
        Entrant(label, folder, record, _by_protocol(read_clip_means(folder)))
        for label, folder, record in zip(labels, folders, records, strict=True)
    )


def unique_labels(names: Sequence[str], uris: Sequence[str]) -> list[str]:
    """The names; those that several have give way to as much of the end of their URIs as tells them apart."""
    labels = list(names)
    for name in set(names):
        places = [place for place, other in enumerate(names) if other == name]
        if len(places) > 1:
            parts = [uris[place].rstrip("/").split("/") for place in places]
            longest = max(len(each) for each in parts)
            tails = [["/".join(each[-length:]) for each in parts] for length in range(1, longest + 1)]
            chosen = next((some for some in tails if len(set(some)) == len(some)), None)
            for number, place in enumerate(places):
                labels[place] = f"{name} ({number + 1})" if chosen is None else chosen[number]
    return labels


def shorten(label: str, longest: int = LONGEST_LABEL) -> str:
    """A label without its middle where it is long; the ends of names and URIs say most."""
    if len(label) <= longest:
        return label
    head = (longest - 1) // 3
    return f"{label[:head]}…{label[len(label) - (longest - 1 - head) :]}"


def _is_same(first: LoadedModel, second: LoadedModel) -> bool:
    if first.experiment.model != second.experiment.model:
        return False
    ours, theirs = first.model.state_dict(), second.model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _read_finished(folder: Path) -> EvaluationRecord:
    record = read_evaluation(folder)
    if record is None or record.status != FINISHED:
        raise InputError(f"{folder} holds no finished evaluation; run hdam evaluate until it is")
    return record


def _check_comparable(first: EvaluationRecord, place: Path, other: EvaluationRecord, other_place: Path) -> None:
    """InputError, naming what differs, unless both evaluations looked at the same clips in the same way."""
    for what in ("fingerprint", "split"):
        if first.dataset[what] != other.dataset[what]:
            raise InputError(
                f"{place} and {other_place} are not of the same clips: {what} {first.dataset[what]} of "
                f"{first.dataset['name']}, {other.dataset[what]} of {other.dataset['name']}; evaluate both on the same"
            )
    for kind, ours, theirs in (
        ("settings", first.settings, other.settings),
        ("instruments", first.instruments, other.instruments),
    ):
        for name in sorted(ours.keys() & theirs.keys() if kind == "instruments" else ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                found = f"{json.dumps(ours.get(name))} and {json.dumps(theirs.get(name))}"
                raise InputError(
                    f"{place} and {other_place} have other {kind}, {name}: {found}; evaluate both in the same way"
                )


def _name(record: EvaluationRecord) -> str:
    return f"{record.model['name']} {record.model['version']}".strip()


def _by_protocol(clips: Sequence[ClipMean]) -> dict[Protocol, dict[str, ClipMean]]:
    found: dict[Protocol, dict[str, ClipMean]] = {}
    for clip in clips:
        found.setdefault(clip.protocol, {})[clip.clip_id] = clip
    return found
