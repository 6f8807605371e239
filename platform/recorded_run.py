"""An experiment at work: its folder with the record, and its MLflow run, the parent of those of its stages."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hdam.platform import tracking
from hdam.platform.job import OnStageMessage, ignore
from hdam.platform.prepared import Prepared
from hdam.platform.procedure import Procedure, ending
from hdam.platform.runs import RunRecord, RunStatus, read_record, write_record
from hdam.platform.stages import StageKind
from hdam.platform.tracked_run import resume_run, start_run
from hdam.platform.train_report import TrainReport, report_to_json
from hdam.platform.watchdog import Watchdog

if TYPE_CHECKING:
    from mlflow import MlflowClient


class RecordedRun:
    """A run that is begun, or gone on with where its folder knows of an earlier attempt."""

    def __init__(
        self,
        prepared: Prepared,
        run_dir: Path,
        *,
        client: "MlflowClient",
        watchdog: Watchdog,
        parent_id: str = "",
        tags: Mapping[str, str] = {},
    ) -> None:
        """The caller holds `run_dir`. MLflow shows the run below the run `parent_id`, if there is one, with `tags`."""
        self._prepared = prepared
        self._run_dir = run_dir
        self._client = client
        self._watchdog = watchdog
        self._parent_id = parent_id
        self._tags = tags
        self._record = read_record(run_dir, RunRecord)
        run_id = self._record.mlflow_run_id
        if not run_id or not tracking.patiently(client, lambda: resume_run(client, run_id)):
            run_id = tracking.patiently(client, self._start_run)
        self._change(replace(self._record, status="running", mlflow_run_id=run_id))

    @property
    def run_id(self) -> str:
        """Of MLflow."""
        return self._record.mlflow_run_id

    @contextmanager
    def at_work(self, *, anew: Sequence[StageKind] = (), on_message: OnStageMessage = ignore) -> Iterator[Procedure]:
        """The stages, of which those in `anew` are done in any case; however the block ends, MLflow and record say so.

        `on_message` hears what the workers of the stages tell.
        """
        with ending(self._client, self._watchdog, self.run_id, self._run_dir, note=self._note):
            yield Procedure(
                self._prepared,
                client=self._client,
                watchdog=self._watchdog,
                record=self._record,
                anew=anew,
                on_change=self._change,
                on_message=on_message,
            )

    def keep_report(self, report: TrainReport) -> None:
        """From now on, the same command has nothing left to do."""
        self._change(replace(self._record, report=report_to_json(report)))

    def _start_run(self) -> str:
        """From its first moment on, the watchdog ends the run with this process."""
        return start_run(
            self._client,
            self._prepared.experiment,
            self._prepared.manifest,
            run_name=self._run_dir.name,
            parent_id=self._parent_id,
            tags=self._tags,
            on_created=lambda run_id: self._watchdog.watch(run_id, self._run_dir),
        )

    def _note(self, status: RunStatus, reason: str) -> None:  # noqa: ARG002 - the stage's record says why
        self._change(replace(self._record, status=status))

    def _change(self, record: RunRecord) -> None:
        self._record = record
        write_record(self._run_dir, record)
