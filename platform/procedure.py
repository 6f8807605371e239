"""One stage after the other: what is known is used again, what was begun goes on, the rest is done."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdam.pipelines.errors import first_line
from hdam.platform import tracking
from hdam.platform.checkpoints import newest_checkpoint, step_of
from hdam.platform.job import Done, Job
from hdam.platform.prepared import Prepared
from hdam.platform.publishing import publish
from hdam.platform.runs import STAGES_DIR, RunStatus, StageRecord, find_stage, locked, read_record, write_record
from hdam.platform.stage_evaluation import evaluate_stage
from hdam.platform.stage_screening import screen_stage
from hdam.platform.stage_training import train_stage
from hdam.platform.stages import Stage, StageKind
from hdam.platform.tracked_run import Status, end_run, resume_run, start_run
from hdam.platform.watchdog import Watchdog

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG = logging.getLogger("hdam")

SHOWN_RUN_ID = 8
WORK: Mapping[StageKind, Callable[[Job], dict[str, Any]]] = {
    "fomm": train_stage,
    "dam": train_stage,
    "screen": screen_stage,
    "hdam": train_stage,
    "evaluate": evaluate_stage,
}


class Procedure:
    """The stages of one run."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        client: "MlflowClient",
        watchdog: Watchdog,
        parent_id: str,
        begun: Mapping[str, str],
        anew: Sequence[StageKind],
        on_begin: Callable[[StageKind, Path], None],
    ) -> None:
        """`begun` are the folders of stages of an earlier attempt, and `anew` the stages that are done in any case.

        `on_begin` hears of the folder of every other stage, so that the next attempt can be told of it.
        """
        self._prepared = prepared
        self._client = client
        self._watchdog = watchdog
        self._parent_id = parent_id
        self._begun = begun
        self._anew = anew
        self._on_begin = on_begin

    def finish(self) -> dict[StageKind, Done]:
        """Do what is left of all stages."""
        done: dict[StageKind, Done] = {}
        for stage in self._prepared.stages:
            inputs = {kind: done[kind] for kind in stage.inputs}
            folder = self._find_folder(stage, inputs)
            done[stage.kind] = self._known(stage, folder) or self._do(stage, folder, inputs)
            self._publish(done[stage.kind])
        return {kind: self._publish(each) for kind, each in done.items()}

    def _find_folder(self, stage: Stage, inputs: Mapping[StageKind, Done]) -> Path:
        stages_dir = tracking.results_dir() / STAGES_DIR
        if stage.kind in self._begun:
            return stages_dir / self._begun[stage.kind]
        folder = find_stage(stages_dir, stage.name, inputs=folders_of(inputs), is_new=stage.kind in self._anew)
        self._on_begin(stage.kind, folder)
        return folder

    def _known(self, stage: Stage, folder: Path) -> Done | None:
        """The stage where it is finished; its first use by this run is told, and shown in MLflow."""
        record = read_record(folder, StageRecord)
        if record.status != "finished":
            return None
        if stage.kind not in self._begun:
            run_id = record.mlflow_run_id[:SHOWN_RUN_ID]
            LOG.info("stage %s is known, from run %s of %s (%s)", stage.kind, run_id, record.experiment, folder)
            self._link(stage, record)
        return Done(stage=stage, folder=folder, record=record, was_known=True)

    def _do(self, stage: Stage, folder: Path, inputs: Mapping[StageKind, Done]) -> Done:
        with locked(folder, is_waiting=True) as attempt:
            if (known := self._known(stage, folder)) is not None:  # another process has finished it meanwhile
                return known
            LOG.info("stage %s, in %s", stage.kind, folder)
            record = self._begin(stage, folder, inputs)
            started = time.monotonic()

            def note(status: RunStatus, reason: str) -> None:
                write_record(folder, replace(record, status=status, reason=reason))

            with ending(self._client, self._watchdog, record.mlflow_run_id, folder, note=note):
                job = Job(
                    prepared=self._prepared,
                    stage=stage,
                    folder=folder,
                    attempt=attempt,
                    inputs=inputs,
                    client=self._client,
                    run_id=record.mlflow_run_id,
                )
                result = self._work(job) | {"seconds": time.monotonic() - started}
                record = replace(record, result=result)
        return Done(stage=stage, folder=folder, record=record, was_known=False)

    def _publish(self, done: Done) -> Done:
        """Let MLflow have what it has not got yet."""
        record, folder = read_record(done.folder, StageRecord), done.folder
        if not record.is_published and publish(self._client, done.stage.kind, folder, record):
            record = replace(record, is_published=True)
            write_record(folder, record)
        return replace(done, record=record)

    def _work(self, job: Job) -> dict[str, Any]:
        try:
            return WORK[job.stage.kind](job)
        except (KeyboardInterrupt, SystemExit):
            step = step_of(newest_checkpoint(job.folder))
            where = f" from step {step}" if step else ""
            again = "the same command, without --fresh and --from," if self._anew else "the same command"
            LOG.warning("interrupted in stage %s; %s goes on%s", job.stage.kind, again, where)
            raise

    def _begin(self, stage: Stage, folder: Path, inputs: Mapping[StageKind, Done]) -> StageRecord:
        """The stage's record, with an MLflow run that is running: an earlier attempt's where there was one."""
        tracking.wait_for_store(self._client)
        record = replace(read_record(folder, StageRecord), status="running", reason="")
        if not record.mlflow_run_id or not resume_run(self._client, record.mlflow_run_id):
            record = replace(
                record,
                mlflow_run_id=self._start_run(stage, {}),
                parent_run_id=self._parent_id,
                experiment=self._prepared.experiment.name,
                inputs=folders_of(inputs),
            )
        write_record(folder, record)
        return record

    def _link(self, stage: Stage, record: StageRecord) -> None:
        """A child of this run that stands for one of another run."""
        if record.parent_run_id != self._parent_id:
            with tracking.tolerated(f"the run of stage {stage.kind} was not linked"):
                end_run(self._client, self._start_run(stage, {"reused_from": record.mlflow_run_id}), "FINISHED")

    def _start_run(self, stage: Stage, tags: Mapping[str, str]) -> str:
        return start_run(
            self._client,
            stage.experiment,
            self._prepared.manifest,
            run_name=stage.kind,
            parent_id=self._parent_id,
            tags={"stage": stage.kind, "stage.key": stage.key, **tags},
        )


def folders_of(inputs: Mapping[StageKind, Done]) -> dict[str, str]:
    """Names of the folders of finished stages."""
    return {kind: done.folder.name for kind, done in inputs.items()}


@contextmanager
def ending(
    client: "MlflowClient",
    watchdog: Watchdog,
    run_id: str,
    folder: Path,
    *,
    note: Callable[[RunStatus, str], None],
) -> Iterator[None]:
    """Whatever happens inside, the record of a folder (by `note`) and its MLflow run say how it ended.

    A driver that is killed cannot say it; the watchdog does.
    """
    watchdog.watch(run_id, folder)
    try:
        yield
    except Exception as error:
        _note(note, "failed", first_line(error))
        _end(client, run_id, "FAILED")
        raise
    except BaseException:  # Ctrl-C, or a signal to end
        _note(note, "interrupted", "")
        _end(client, run_id, "KILLED")
        raise
    else:
        note("finished", "")
        _end(client, run_id, "FINISHED")
    finally:
        watchdog.unwatch(run_id)


def _end(client: "MlflowClient", run_id: str, status: Status) -> None:
    """A store that is away is no reason to fail at the end."""
    with tracking.tolerated("the run's status was not written"):
        end_run(client, run_id, status)


def _note(note: Callable[[RunStatus, str], None], status: RunStatus, reason: str) -> None:
    """A record that cannot be written (a full disk) must not hide what is being told."""
    try:
        note(status, reason)
    except OSError as error:
        LOG.warning("the record of the run was not written: %s", error)
