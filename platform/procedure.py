"""One stage after the other: what is known is used again, what was begun goes on, the rest is done."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdam.pipelines.errors import InputError, first_line
from hdam.platform import tracking
from hdam.platform.job import Done, Job, OnStageMessage, ignore
from hdam.platform.locks import holding, is_lost
from hdam.platform.prepared import Prepared
from hdam.platform.publishing import publish
from hdam.platform.reports import RUN_ID_LENGTH
from hdam.platform.runs import (
    STAGES_DIR,
    RunRecord,
    RunStatus,
    StageRecord,
    begun_stage,
    claim_stage,
    read_record,
    write_record,
)
from hdam.platform.sharing.checkpoints import step_to_tell
from hdam.platform.sharing.stages import adopt_stage, fetch_stage, share_stage
from hdam.platform.sharing.store import place_of
from hdam.platform.stage_evaluation import evaluate_stage
from hdam.platform.stage_screening import screen_stage
from hdam.platform.stage_training import train_stage
from hdam.platform.stages import Stage, StageKind
from hdam.platform.tracked_run import Status, end_run, resume_run, start_run
from hdam.platform.watchdog import Watchdog

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG = logging.getLogger("hdam")

WORK: Mapping[StageKind, Callable[[Job], dict[str, Any]]] = {"screen": screen_stage, "evaluate": evaluate_stage}
"""Of the stages that do not train."""


class Procedure:
    """The stages of one run."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        client: "MlflowClient",
        watchdog: Watchdog,
        record: RunRecord,
        anew: Sequence[StageKind],
        on_change: Callable[[RunRecord], None],
        on_message: OnStageMessage = ignore,
    ) -> None:
        """`record` is the run's, and `on_change` hears of its changes; stages in `anew` are done in any case."""
        self._prepared = prepared
        self._client = client
        self._watchdog = watchdog
        self._record = record
        self._anew = anew
        self._on_change = on_change
        self._on_message = on_message

    def finish(self) -> dict[StageKind, Done]:
        """Do what is left of all stages."""
        done: dict[StageKind, Done] = {}
        for stage in self._prepared.stages:
            inputs = {kind: done[kind] for kind in stage.inputs}
            folder = self._find_folder(stage, inputs)
            done[stage.kind] = self._known(stage, folder) or self._do(stage, folder, inputs)
            self._link(done[stage.kind])
            self._publish(done[stage.kind])
        return {kind: self._publish(each) for kind, each in done.items()}

    def _find_folder(self, stage: Stage, inputs: Mapping[StageKind, Done]) -> Path:
        """The folder that an earlier attempt of this run has taken, or that of whoever has done or begun the stage."""
        stages_dir = tracking.results_dir() / STAGES_DIR
        if (begun := begun_stage(stages_dir, self._record, stage.kind)) is not None:
            return begun
        folder = claim_stage(stages_dir, stage.name, inputs=folders_of(inputs), is_new=stage.kind in self._anew)
        self._change(stages={**self._record.stages, stage.kind: folder.name})
        return folder

    def _known(self, stage: Stage, folder: Path, *, attempt: str = "") -> Done | None:
        """The stage where it is finished; `attempt` is this one's, where it holds the folder."""
        record = read_record(folder, StageRecord)
        if record.status != "finished":
            return None
        adopt_stage(folder, keep=stage.experiment.log.keep_checkpoints, attempt=attempt)
        fetch_stage(folder)
        return Done(stage=stage, folder=folder, record=record, was_known=True)

    def _do(self, stage: Stage, folder: Path, inputs: Mapping[StageKind, Done]) -> Done:
        with holding(folder, is_waiting=True) as attempt:
            known = self._known(stage, folder, attempt=attempt)
            if known is not None:  # another process has finished it meanwhile
                return known
            LOG.info("stage %s, in %s", stage.kind, folder)
            fetch_stage(folder)
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
                    lineage=record.lineage,
                    inputs=inputs,
                    client=self._client,
                    run_id=record.mlflow_run_id,
                    on_message=self._on_message,
                )
                result = self._work(job) | {"seconds": time.monotonic() - started}
                record = replace(record, result=result)
        return Done(stage=stage, folder=folder, record=record, was_known=False)

    def _work(self, job: Job) -> dict[str, Any]:
        keep = job.stage.experiment.log.keep_checkpoints
        try:
            share_stage(job.folder, job.attempt, lineage=job.lineage, keep=keep)  # what an earlier attempt could not
            result = WORK.get(job.stage.kind, train_stage)(job)
            share_stage(job.folder, job.attempt, lineage=job.lineage, keep=keep)
            return result
        except (KeyboardInterrupt, SystemExit):
            step = step_to_tell(job.folder, place_of(job.folder))
            where = f" from step {step}" if step else ""
            again = "the same command, without --fresh and --from," if self._anew else "the same command"
            LOG.warning("interrupted in stage %s; %s goes on%s", job.stage.kind, again, where)
            raise

    def _begin(self, stage: Stage, folder: Path, inputs: Mapping[StageKind, Done]) -> StageRecord:
        """The stage's record, with an MLflow run that is running: an earlier attempt's where there was one."""
        record = replace(read_record(folder, StageRecord), status="running", reason="")
        run_id = record.mlflow_run_id
        if not run_id or not tracking.patiently(self._client, lambda: resume_run(self._client, run_id)):
            record = replace(
                record,
                mlflow_run_id=self._start_run(stage, folder),
                parent_run_id=self._record.mlflow_run_id,
                experiment=self._prepared.experiment.name,
                inputs=folders_of(inputs),
            )
        write_record(folder, record)
        return record

    def _link(self, done: Done) -> None:
        """Say of a stage that another run has begun where it is from, and show it among the children of this run."""
        kind, record = done.stage.kind, done.record
        if record.parent_run_id == self._record.mlflow_run_id or kind in self._record.linked:
            return
        run_id = record.mlflow_run_id
        LOG.info(
            "stage %s is known, from run %s of %s (%s)", kind, run_id[:RUN_ID_LENGTH], record.experiment, done.folder
        )
        link = self._start_run(done.stage, done.folder, {"reused_from": run_id})
        if end_run(self._client, link, "FINISHED"):
            self._watchdog.unwatch(link)
        self._change(linked=[*self._record.linked, kind])

    def _start_run(self, stage: Stage, folder: Path, tags: Mapping[str, str] = {}) -> str:
        """A child of this run; from its first moment on, the watchdog ends it with this process."""

        def start() -> str:
            return start_run(
                self._client,
                stage.experiment,
                self._prepared.manifest,
                run_name=stage.kind,
                parent_id=self._record.mlflow_run_id,
                tags={"stage": stage.kind, "stage.key": stage.key, **tags},
                on_created=lambda run_id: self._watchdog.watch(run_id, folder),
            )

        return tracking.patiently(self._client, start)

    def _publish(self, done: Done) -> Done:
        """Let MLflow have what it has not got yet."""
        record = read_record(done.folder, StageRecord)
        if record.is_published:
            return replace(done, record=record)
        with holding(done.folder, is_waiting=True):  # others that use the stage may have the same in mind
            record = read_record(done.folder, StageRecord)
            if not record.is_published and publish(self._client, done.stage.kind, done.folder, record):
                record = replace(record, is_published=True)
                write_record(done.folder, record)
        return replace(done, record=record)

    def _change(self, **changes: Any) -> None:
        self._record = replace(self._record, **changes)
        self._on_change(self._record)


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

    What this process cannot tell MLflow, because it was killed or the store is away, the watchdog does.
    """
    watchdog.watch(run_id, folder)
    status: Status = "FINISHED"
    try:
        yield
        note("finished", "")
    except Exception as error:
        status = "FAILED"
        _note(note, "failed", first_line(error))
        raise
    except BaseException:  # Ctrl-C, or a signal to end
        status = "KILLED"
        _note(note, "interrupted", "")
        raise
    finally:
        if is_lost(folder) or end_run(client, run_id, status):  # a driver that has taken over ends it
            watchdog.unwatch(run_id)
        else:
            watchdog.watch(run_id, folder, status)


def _note(note: Callable[[RunStatus, str], None], status: RunStatus, reason: str) -> None:
    """A record that cannot be written (a full disk) must not hide what is being told."""
    try:
        note(status, reason)
    except InputError as error:
        LOG.warning("%s", error)
