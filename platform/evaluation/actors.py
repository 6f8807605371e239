"""The actors that measure: how many there are, what they find, and what is left of it when they are done."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hdam.pipelines.errors import InputError
from hdam.platform.cluster import has_now, machine_has
from hdam.platform.evaluation.results import VIDEOS_DIR
from hdam.platform.evaluation.scoring import MODEL_DIR
from hdam.platform.evaluation.tables import FRAMES_DIR
from hdam.platform.model_folder import LoadedModel, write_model
from hdam.platform.sharing.files import share_files
from hdam.platform.sharing.store import Place, StoreError, patiently

LOG = logging.getLogger("hdam")


class Crew(NamedTuple):
    """Actors side by side, each with a CPU."""

    actors: int
    gpus_each: float

    def __str__(self) -> str:
        """As it is said to a person."""
        gpus = f" and {self.gpus_each:g} GPU{'s' * (self.gpus_each > 1)}" if self.gpus_each else ""
        return f"{self.actors} process{'es' * (self.actors > 1)} of 1 CPU{gpus} each"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """What is asked for; a cluster may have to start machines for it."""

    count: int | None = None
    """None: one for each GPU that is up now, or else each CPU."""
    gpus_each: float | None = None
    """None: 1 where a GPU is up now, else 0."""

    def check(self) -> None:
        """Raises InputError where this machine has less; a cluster may grow."""
        machine, crew = machine_has(), Crew(self.count or 1, self.gpus_each or 0.0)
        if machine is not None and (crew.actors > machine.cpus or crew.actors * crew.gpus_each > machine.gpus):
            raise InputError(f"no room for {crew}: this machine has {machine}; lower --workers or --gpus-per-worker")

    def crew(self) -> Crew:
        """By what is up now, as far as nothing else is asked for; the session is there."""
        has = has_now()
        gpus = float(has.gpus >= 1) if self.gpus_each is None else self.gpus_each
        crew = Crew(self.count or max(1, int(has.gpus / gpus if gpus else has.cpus)), gpus)
        if machine_has() is None:
            LOG.info("measuring with %s; the cluster has %s now in all", crew, has)
            if self.count is None:
                LOG.info("--workers and --gpus-per-worker ask for more, and for machines that are not up yet")
        return crew


WHAT_IS_UP = Workers()


@contextmanager
def lent_model(loaded: LoadedModel, folder: Path, place: Place | None) -> Iterator[None]:
    """The model in an evaluation's folder, and in its place in the shared store, where actors find it.

    However the block ends, the model goes, and so does what actors have put into the store; of a driver that was
    killed, the next one removes it.
    """
    path = folder / MODEL_DIR
    shutil.rmtree(path, ignore_errors=True)
    write_model(path, model=loaded.model, experiment=loaded.experiment)
    if place is not None:
        patiently(lambda: _clear(place))
        patiently(lambda: share_files(path, place.folder(MODEL_DIR), leave_out=()))
    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if place is not None:
            try:
                _clear(place)
            except StoreError as error:
                LOG.warning("%s; files of this evaluation stay there", error)


def _clear(place: Place) -> None:
    for name in (FRAMES_DIR, MODEL_DIR, VIDEOS_DIR):
        place.remove(name)
