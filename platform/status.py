"""How an experiment is doing: its stages, how far each is, and where the results are. Starts nothing."""

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from hdam.experiments.experiment import Experiment
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import load_manifest
from hdam.platform import tracking
from hdam.platform.locks import is_held
from hdam.platform.runs import (
    PROGRESS_NAME,
    RUNS_DIR,
    STAGES_DIR,
    RunRecord,
    StageRecord,
    begun_stage,
    find_run,
    find_stage,
    read_record,
)
from hdam.platform.sharing import holds
from hdam.platform.sharing.checkpoints import best_known, step_to_tell
from hdam.platform.sharing.holds import held_elsewhere
from hdam.platform.sharing.store import check_store, place_of
from hdam.platform.stages import Stage, plan_stages, run_name, with_absolute_paths
from hdam.platform.tracked_run import settle_run
from hdam.platform.train_report import outcome

LOG = logging.getLogger("hdam")


class StageStatus(NamedTuple):
    """One stage."""

    kind: str
    key: str
    state: str
    """`to do`, `running`, `killed`, `interrupted`, `failed` or `finished`."""
    details: str
    """Progress or outcome, or why it failed."""
    experiment: str
    """The experiment that it was done for; empty where it was not begun."""
    mlflow_run_id: str
    place: str
    """Its folder, or its address in the shared store, if there is one."""
    best: str
    """Name of the checkpoint with the best score on held-out pairs; empty without one."""


class ExperimentStatus(NamedTuple):
    """An experiment on a dataset."""

    state: str
    run_dir: Path
    mlflow_run_id: str
    model_uri: str
    """Of a finished one."""
    stages: tuple[StageStatus, ...]


def examine_experiment(experiment: Experiment) -> ExperimentStatus:
    """The newest run of `experiment`, and every stage as the next `hdam train` would find it.

    MLflow runs of drivers that were killed are set to KILLED, should they still be shown as running.
    Raises InputError where there is no dataset.
    """
    if not experiment.data.path:
        raise InputError("no dataset given; set data.path: --set data.path=DATASET")
    manifest = load_manifest(experiment.data.path)
    check_store()
    experiment = with_absolute_paths(experiment)
    results = tracking.results_dir()
    run_dir = find_run(results / RUNS_DIR, run_name(experiment, manifest), fresh=False)
    record = read_record(run_dir, RunRecord)
    stages = plan_stages(experiment, manifest.fingerprint)
    folders = _folders_of(stages, record, results / STAGES_DIR)
    records = {folder: read_record(folder, StageRecord) for folder in folders}
    states = _states({run_dir: record, **records})
    report = record.report or {}
    uri = f"models:/{report['model_name']}/{report['model_version']}" if report else ""
    found = [
        _stage_status(stage, folder, records[folder], states[folder])
        for stage, folder in zip(stages, folders, strict=True)
    ]
    return ExperimentStatus(states[run_dir], run_dir, record.mlflow_run_id, uri, tuple(found))


def _folders_of(stages: Sequence[Stage], record: RunRecord, stages_dir: Path) -> list[Path]:
    """Where each stage was begun, or would be."""
    folders: dict[str, Path] = {}
    for stage in stages:
        folder = begun_stage(stages_dir, record, stage.kind)
        if folder is None:
            inputs: dict[str, str] = {kind: folders[kind].name for kind in stage.inputs}
            folder = find_stage(stages_dir, stage.name, inputs=inputs, is_new=False)
        folders[stage.kind] = folder
    return list(folders.values())


def _stage_status(stage: Stage, folder: Path, record: StageRecord, state: str) -> StageStatus:
    place = place_of(folder)
    return StageStatus(
        kind=stage.kind,
        key=stage.key,
        state=state,
        details=_details(state, record, folder),
        experiment=record.experiment,
        mlflow_run_id=record.mlflow_run_id,
        place=str(folder) if place is None else place.address,
        best=best_known(folder, place) or "",
    )


def _states(records: Mapping[Path, RunRecord | StageRecord]) -> dict[Path, str]:
    """How folders are doing; all on which somebody is said to work are looked at together, and no longer than one."""
    states = {folder: "to do" if record.status == "new" else record.status for folder, record in records.items()}
    running = [folder for folder, state in states.items() if state == "running"]
    if not running:
        return states
    _tell_wait(running)
    with ThreadPoolExecutor(len(running)) as pool:
        at_work = list(pool.map(is_held, running))
    for folder, is_at_work in zip(running, at_work, strict=True):
        if not is_at_work:  # who is killed cannot write it down, but gives up the lock
            settle_run(records[folder].mlflow_run_id, folder, "KILLED")
            states[folder] = "killed"
    return states


def _tell_wait(folders: Sequence[Path]) -> None:
    """Say what may take a while: to see whether another machine is at work."""
    places = [place for folder in folders if (place := place_of(folder)) is not None]
    hosts = {hold.host for place in places if (hold := held_elsewhere(place)) is not None}
    if hosts:
        told = "looking whether %s still works on it, which takes %.0f s at most"
        LOG.info(told, " and ".join(sorted(hosts)), holds.SECONDS_TO_STALE)


def _details(state: str, record: StageRecord, folder: Path) -> str:
    if record.result is not None:
        return outcome(folder.name.partition("-")[0], record.result)
    progress = _read_progress(folder)
    total = f" of {progress['total']}" if "total" in progress else ""
    if state == "running":
        ratio = f", held-out ratio {progress['held_out_ratio']:.2f}" if "held_out_ratio" in progress else ""
        speed = f", {progress['pairs_per_second']:.1f} pairs/s" if "pairs_per_second" in progress else ""
        return f"step {progress.get('step', 0)}{total}{speed}{ratio}"
    step = step_to_tell(folder, place_of(folder))
    kept = f"checkpoint of step {step}{total}" if step else ""
    return "; ".join(part for part in (kept, record.reason) if part)


def _read_progress(folder: Path) -> dict[str, Any]:
    try:
        progress: dict[str, Any] = json.loads((folder / PROGRESS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return progress
