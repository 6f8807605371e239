"""`hdam evaluate`: all metrics of a model on a dataset, by actors of Ray Data, one per GPU or CPU.

Clips do not depend on each other, each is one item for an actor, and what an item's numbers are does not depend on
who works on it: two evaluations of a model agree to the last digit on the same kind of machine.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from ray.exceptions import RayError

from hdam.models.weights import digest_of
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import Manifest, check_size, load_manifest
from hdam.pipelines.tasks import Lost
from hdam.platform.cluster import ray_session
from hdam.platform.evaluation.actors import WHAT_IS_UP, Workers, lent_model
from hdam.platform.evaluation.choice import Choice, choose_metrics
from hdam.platform.evaluation.metrics import METRICS, Protocol
from hdam.platform.evaluation.plan import EvaluationSettings, Item, plan_items
from hdam.platform.evaluation.report import write_tables
from hdam.platform.evaluation.results import EvaluationRecord, Mean, read_evaluation, write_evaluation
from hdam.platform.evaluation.scoring import files_of, make_scorer
from hdam.platform.evaluation.sheet import write_sheet
from hdam.platform.evaluation.tables import (
    FRAMES_DIR,
    PER_CLIP_NAME,
    PER_FRAME_NAME,
    States,
    clip_table,
    mean_states,
    merged,
    read_frames,
    write_table,
)
from hdam.platform.failures import describe
from hdam.platform.locks import holding
from hdam.platform.model_folder import LoadedModel
from hdam.platform.ray_tasks import TASKS_ONLY, run_on_actors
from hdam.platform.sharing.store import Place, check_store, patiently, place_of
from hdam.platform.tracking import results_dir

LOG = logging.getLogger("hdam")

EVALUATIONS_DIR = "evaluations"
VERSION = 1
"""Another definition of a metric gets another version, so that no old number is taken for a new one."""
OnItem = Callable[[int, int | None], None]
KEY_LENGTH = 8


class Work(NamedTuple):
    """An evaluation that is to be done."""

    loaded: LoadedModel
    dataset: str
    settings: EvaluationSettings
    choice: Choice
    items: list[Item]
    record: EvaluationRecord
    folder: Path


def evaluate(
    loaded: LoadedModel,
    dataset: str,
    *,
    settings: EvaluationSettings,
    fresh: bool = False,
    workers: Workers = WHAT_IS_UP,
    on_item: OnItem = lambda done, total: None,  # noqa: ARG005
) -> Path:
    """Measure a model on the clips of a split; returns the folder of the finished evaluation.

    A finished one of the same model, dataset, settings and instruments is used again unless `fresh`; an interrupted one
    goes on. `on_item` hears how many items are done, and of how many. Raises InputError for a dataset of another size,
    settings that cannot be, instruments that are not here, more workers than fit, a store that is away for minutes, and
    clips whose process died twice.
    """
    workers.check()
    work = _prepare(loaded, dataset, settings)
    check_store()
    with holding(work.folder, is_waiting=True):
        if fresh:
            _clear(work.folder)
        known = read_evaluation(work.folder)
        if known is not None and known.status == "finished":
            LOG.info("evaluated before, with the same model, data, settings and instruments: %s", work.folder)
            return work.folder
        write_evaluation(work.folder, work.record)
        try:
            _score_items(work, workers, on_item)
            _finish(work)
        except KeyboardInterrupt:
            LOG.warning("interrupted; clips that are measured stay, and the same command goes on from there")
            raise
        except RayError as error:
            raise InputError(f"not measured: {describe(error)}; the same command goes on from what is") from error
        except OSError as error:
            raise InputError(
                f"{work.folder} cannot be written ({error}); the same command goes on when it can"
            ) from error
    return work.folder


def _prepare(loaded: LoadedModel, dataset: str, settings: EvaluationSettings) -> Work:
    check_size(dataset, loaded.experiment.data.size)
    if settings.cross_mode == "avd" and "cross" in settings.protocols and loaded.model.avd is None:
        raise InputError("--cross-mode avd needs a model with an AVD network; train one with model.has_avd: true")
    manifest = load_manifest(dataset)
    items = plan_items(dataset, settings)
    choice = choose_metrics(settings, size=loaded.experiment.data.size)
    record = _record(loaded, dataset, manifest, settings, choice, items)
    folder = _folder_of(record, loaded.experiment.settings()["model"])
    return Work(loaded, dataset, settings, choice, items, record, folder)


def _record(
    loaded: LoadedModel,
    dataset: str,
    manifest: Manifest,
    settings: EvaluationSettings,
    choice: Choice,
    items: Sequence[Item],
) -> EvaluationRecord:
    return EvaluationRecord(
        status="running",
        model={
            "name": loaded.name,
            "version": loaded.version,
            "uri": loaded.uri,
            "variant": loaded.experiment.model.variant,
            "weights": digest_of(loaded.model),
        },
        dataset={
            "name": manifest.name,
            "path": dataset,
            "fingerprint": manifest.fingerprint,
            "split": settings.split,
        },
        settings={**dataclasses.asdict(settings), "protocols": list(settings.protocols), "metrics": choice.names},
        instruments=dict(choice.instruments),
        num_clips=len({item.driving.clip_id for item in items}),
        num_frames=sum({item.driving.clip_id: item.driving.num_frames for item in items}.values()),
        missing=list(choice.missing),
    )


def _folder_of(record: EvaluationRecord, model: Mapping[str, Any]) -> Path:
    """Named by all that decides the numbers; `model` are the settings by which the weights are read."""
    weights, fingerprint = record.model["weights"], record.dataset["fingerprint"]
    decides = [VERSION, weights, dict(model), fingerprint, record.settings, record.instruments]
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]
    name = "-".join(part for part in (record.model["name"], record.model["version"], key) if part)
    return results_dir() / EVALUATIONS_DIR / name


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.name.startswith("."):
            path.unlink()


def _score_items(work: Work, workers: Workers, on_item: OnItem) -> None:
    """Bring the files of all items into the folder; those that are there already stay."""
    names = work.choice.names
    left = [item for item in work.items if read_frames(work.folder, item, names) is None]
    done, total = len(work.items) - len(left), len(work.items)
    on_item(done, total)
    if not left:
        return
    if done:
        LOG.info("going on: %d of %d clips are measured", done, total)
    lost, place = [], place_of(work.folder)
    with lent_model(work.loaded, work.folder, place), ray_session(TASKS_ONLY):
        actors, gpus = workers.crew()
        make = functools.partial(
            make_scorer, work.dataset, work.settings, names, work.folder, place, may_use_gpu=gpus > 0
        )
        for result in run_on_actors(make, left, actors=actors, num_gpus=gpus):
            if isinstance(result, Lost):
                lost.append(f"{left[result.number].name} ({result.reason})")
                continue
            if place is not None:
                _fetch_item(work, result, place)
            done += 1
            on_item(done, total)
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise InputError(f"not measured: {lost[0]}{more}; the same command goes on from the {done} that are")


def _fetch_item(work: Work, item: Item, place: Place) -> None:
    """What an actor has uploaded."""
    for name in files_of(item):
        patiently(lambda name=name: place.get(name, work.folder / name))  # type: ignore[misc]


def _finish(work: Work) -> None:
    """Join the tables of all items, and write the means."""
    names = work.choice.names
    tables = [_require_frames(work.folder, item, names) for item in work.items]
    states: list[States] = [mean_states(table, names) for table in tables]
    write_table(work.folder / PER_FRAME_NAME, pa.concat_tables(tables))
    write_table(work.folder / PER_CLIP_NAME, clip_table(work.items, states, names))
    means: dict[str, dict[str, Mean]] = {}
    for protocol in dict.fromkeys(item.protocol for item in work.items):
        write_sheet(work.folder, protocol, work.items, states)
        means[protocol] = _means(work.items, protocol, states)
    record = dataclasses.replace(work.record, status="finished", means=means)
    write_tables(work.folder, record)
    write_evaluation(work.folder, record)
    shutil.rmtree(work.folder / FRAMES_DIR, ignore_errors=True)


def _means(items: Sequence[Item], protocol: Protocol, states: Sequence[States]) -> dict[str, Mean]:
    of_protocol = [state for item, state in zip(items, states, strict=True) if item.protocol == protocol]
    return {
        name: Mean(
            value=None if math.isnan(state.value) else state.value,
            count=state.count,
            num_unmeasured=state.num_unmeasured,
            num_broken=state.num_broken,
        )
        for name, state in merged(of_protocol).items()
        if protocol in METRICS[name].protocols
    }


def _require_frames(folder: Path, item: Item, metrics: Sequence[str]) -> pa.Table:
    table = read_frames(folder, item, metrics)
    if table is None:
        raise InputError(f"{folder}: the numbers of {item.name} are gone; the same command measures them again")
    return table
