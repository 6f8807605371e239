"""The driver of a training: checks first, then the workers, then evaluation and registration."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from rich.console import Console

from hdam.experiments.experiment import Experiment
from hdam.experiments.loading import override
from hdam.models.hdam import MotionModel
from hdam.models.objective import build_objective, draw_deformations
from hdam.models.optimisation import build_optimisers
from hdam.models.weights import WeightsError
from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.manifest import Manifest
from hdam.platform import tracking
from hdam.platform.checkpoints import newest_checkpoint, read_checkpoint, step_of
from hdam.platform.cluster import check_machine
from hdam.platform.datasets import open_dataset
from hdam.platform.evaluation import Reconstruction, reconstruct
from hdam.platform.fit import fit
from hdam.platform.pair_plan import PairPlan, make_plan
from hdam.platform.progress import Display, Measured, Message, Pictured, Started, display
from hdam.platform.registry import is_registered, register
from hdam.platform.runs import RunRecord, find_run, locked, read_record, write_record
from hdam.platform.train_report import TrainReport, report_from_json, report_to_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG = logging.getLogger("hdam")


class Prepared(NamedTuple):
    """All that is known before anything is written."""

    experiment: Experiment
    """With absolute paths, which the workers understand."""
    manifest: Manifest
    plan: PairPlan
    num_steps: int


def train(experiment: Experiment, *, fresh: bool = False) -> TrainReport:
    """Train `experiment`, evaluate and register the model; the same call goes on where an earlier one was stopped.

    A finished run is not trained again unless `fresh`. Raises InputError or WeightsError for a mistake, before
    anything is written, and TrainingError when training cannot be finished.
    """
    prepared = prepare_training(experiment)
    runs_dir = tracking.results_dir() / "runs"
    # The name counts as well as the content: it is the model's.
    dataset = f"{prepared.manifest.name} {prepared.manifest.fingerprint}"
    run_dir = find_run(runs_dir, experiment, fingerprint=dataset, fresh=fresh)
    record, client = read_record(run_dir), tracking.connect()
    if record.report is not None:
        known = report_from_json(record.report, run_dir=run_dir)
        if is_registered(known.model_name, known.model_version):
            LOG.info("this experiment is trained already, in %s; --fresh trains it anew", run_dir)
            return known
        LOG.warning("%s is finished, but its model is not registered any more; registering it again", run_dir)
    with locked(run_dir) as attempt:
        run_id = record.mlflow_run_id
        if not run_id or not tracking.resume_run(client, run_id):
            run_id = tracking.start_run(client, prepared.experiment, prepared.manifest, run_name=run_dir.name)
        write_record(run_dir, RunRecord(status="running", mlflow_run_id=run_id))
        with _ending(client, run_dir, run_id):
            report = _train_and_register(prepared, run_dir, attempt=attempt, client=client, run_id=run_id)
            write_record(run_dir, RunRecord(status="finished", mlflow_run_id=run_id, report=report_to_json(report)))
    return report


def prepare_training(experiment: Experiment) -> Prepared:
    """Every check that needs no cluster. Raises InputError or WeightsError; writes nothing."""
    check_machine(experiment.resources)
    manifest = open_dataset(experiment.data)
    experiment = _with_absolute_paths(experiment)
    _check_model(experiment)
    plan = make_plan(experiment.data, manifest, batch_size=experiment.optim.batch_size, seed=experiment.seed)
    return Prepared(experiment, manifest, plan, experiment.optim.duration.steps(plan.steps_per_epoch))


def _with_absolute_paths(experiment: Experiment) -> Experiment:
    """Workers run in folders of their own."""
    changes = {}
    for name, path in (
        ("data.path", experiment.data.path),
        ("losses.perceptual.weights", experiment.losses.perceptual.weights),
    ):
        if path and "://" not in path:
            changes[name] = str(Path(path).expanduser().absolute())
    return override(experiment, changes)


def _check_model(experiment: Experiment) -> None:
    """Build the networks and run them once, so that what does not fit is told before Ray is started."""
    size, optim = experiment.data.size, experiment.optim
    black = torch.zeros(1, 3, size, size)
    try:
        objective = build_objective(experiment.model, experiment.losses).eval()
        build_optimisers(objective, lr=optim.lr, betas=optim.betas)
        with torch.no_grad():
            objective(black, black, draw_deformations(1, experiment.losses))
    except WeightsError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"these settings of model.*, losses.* and optim.* do not work at data.size={size}: {first_line(error)}"
        ) from error


def _train_and_register(
    prepared: Prepared, run_dir: Path, *, attempt: str, client: "MlflowClient", run_id: str
) -> TrainReport:
    started, experiment = time.monotonic(), prepared.experiment
    losses = _train_rest(prepared, run_dir, attempt=attempt, client=client, run_id=run_id)
    model = _trained_model(experiment, run_dir)
    found = _evaluate(model, prepared, client=client, run_id=run_id)
    name, tags = f"hdam-{prepared.manifest.name}", _model_tags(prepared, run_dir, found)
    version = register(model=model, experiment=experiment, name=name, run_id=run_id, tags=tags)
    return TrainReport(
        run_dir=run_dir,
        mlflow_run_id=run_id,
        num_steps=prepared.num_steps,
        losses=losses,
        reconstruction=found,
        model_name=name,
        model_version=version,
        seconds=time.monotonic() - started,
    )


def _train_rest(
    prepared: Prepared, run_dir: Path, *, attempt: str, client: "MlflowClient", run_id: str
) -> dict[str, float]:
    """Train what the newest checkpoint has not seen; returns the last mean losses."""
    if step_of(newest_checkpoint(run_dir)) >= prepared.num_steps:
        return {}
    with display(prepared.num_steps, console=Console(stderr=True)) as screen:
        listener = Listener(screen, client=client, run_id=run_id)
        try:
            fit(
                prepared.experiment,
                prepared.plan,
                run_dir=run_dir,
                attempt=attempt,
                last_step=prepared.num_steps,
                pictured_split="test" if _has_test_clips(prepared.manifest) else "train",
                on_message=listener,
            )
        finally:
            listener.metrics.flush()
    return listener.losses


class Listener:
    """Takes the workers' messages to the screen and to MLflow."""

    def __init__(self, screen: Display, *, client: "MlflowClient", run_id: str) -> None:
        self._screen = screen
        self._client = client
        self._run_id = run_id
        self._has_started = False
        self.metrics = tracking.MetricBuffer(client, run_id)
        self.losses: dict[str, float] = {}
        """The newest means."""

    def __call__(self, message: Message) -> None:
        """Handle one message."""
        self._screen.show(message)
        if isinstance(message, Measured):
            self.losses = dict(message.losses)
            self.metrics.add(message.metrics(), step=message.step)
        elif isinstance(message, Pictured):
            tracking.log_picture(self._client, self._run_id, Path(message.path), step=message.step)
        elif isinstance(message, Started):
            if self._has_started:
                LOG.warning("a worker failed; all go on from step %d", message.step)
            elif message.step:
                LOG.info("going on from the checkpoint of step %d", message.step)
            self._has_started = True


@contextmanager
def _ending(client: "MlflowClient", run_dir: Path, run_id: str) -> Iterator[None]:
    """Write down how the run ends, whatever happens inside."""
    try:
        yield
    except Exception:
        write_record(run_dir, RunRecord(status="failed", mlflow_run_id=run_id))
        tracking.end_run(client, run_id, "FAILED")
        raise
    except BaseException:  # Ctrl-C, or a signal to end
        write_record(run_dir, RunRecord(status="interrupted", mlflow_run_id=run_id))
        tracking.end_run(client, run_id, "KILLED")
        step = step_of(newest_checkpoint(run_dir))
        LOG.warning("interrupted; the same command goes on from step %d", step)
        raise
    tracking.end_run(client, run_id, "FINISHED")


def _trained_model(experiment: Experiment, run_dir: Path) -> MotionModel:
    newest = newest_checkpoint(run_dir)
    if newest is None:
        raise InputError(f"{run_dir} holds no sound checkpoint; train with --fresh")
    model = MotionModel(experiment.model)
    model.load_state_dict(read_checkpoint(newest)["model"])
    return model.eval()


def _evaluate(model: MotionModel, prepared: Prepared, *, client: "MlflowClient", run_id: str) -> Reconstruction | None:
    """Score the held-out clips and log the table; None where there are none."""
    if not _has_test_clips(prepared.manifest):
        LOG.warning("%s has no test split, so the model is not evaluated", prepared.experiment.data.path)
        return None
    LOG.info("reconstructing the held-out clips")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = reconstruct(model, prepared.experiment.data.path, split="test", device=device)
    scores = {f"test/{name}": value for name, value in _scores(found).items()}
    columns = {name: [getattr(clip, name) for clip in found.clips] for name in found.clips[0]._fields}
    tracking.log_scores(client, run_id, scores, columns, step=prepared.num_steps)
    return found


def _model_tags(prepared: Prepared, run_dir: Path, found: Reconstruction | None) -> dict[str, str]:
    tags = {
        "variant": prepared.experiment.model.anchors.variant,
        "experiment": prepared.experiment.name,
        "run": run_dir.name,
        "steps": str(prepared.num_steps),
        "dataset": prepared.manifest.name,
        "dataset.fingerprint": prepared.manifest.fingerprint,
    }
    return tags | ({} if found is None else {name: f"{value:.6g}" for name, value in _scores(found).items()})


def _scores(found: Reconstruction) -> dict[str, float]:
    return {"l1": found.l1, "repeat_l1": found.repeat_l1, "ratio": found.ratio}


def _has_test_clips(manifest: Manifest) -> bool:
    return "test" in manifest.splits and manifest.splits["test"].clips > 0
