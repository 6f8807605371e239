"""One experiment: the question, the data, the model, the losses, the recipe and the machines."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from hdam.experiments.duration import Duration
from hdam.models.config import LossConfig, ModelConfig

Length = Annotated[Duration, BeforeValidator(Duration.parse), PlainSerializer(str, return_type=str)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A strict, immutable part of an experiment: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    """What is trained on."""

    path: str = ""
    """Folder or URI of a prepared dataset (`hdam prepare`)."""
    size: PositiveInt = 256
    """Height and width of the frames in pixels; the dataset must have been prepared at this size."""
    repeats: PositiveInt = 150
    """Pairs drawn from each clip, or from each identity with `identity: true`, in an epoch."""
    identity: bool = False
    """Visit one chunk per identity and epoch, chosen by a seeded hash, instead of every clip."""
    time_flip: Share = 0.5
    """Probability that source and driving change places."""
    horizontal_flip: Share = 0.5
    """Probability of a mirror image where there was no time flip."""
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Half-widths of the colour jitter, as in the published recipe."""


class OptimConfig(Section):
    """Adam with a stepwise schedule (supplementary, section 1)."""

    duration: Length = Duration(100, "epochs")
    batch_size: PositiveInt = 32
    """Global batch: pairs over all workers."""
    lr: PositiveFloat = 2e-4
    betas: tuple[Share, Share] = (0.5, 0.999)
    milestones: tuple[Length, ...] = (Duration(60, "epochs"), Duration(90, "epochs"))
    """When the learning rate is multiplied by `decay`."""
    decay: PositiveFloat = 0.1
    detector_clip: NonNegativeFloat = 1.0
    """Largest gradient norm of the detector; 0 does not clip."""


class DamConfig(Section):
    """What the training of DAM does differently from `optim`; absent values are as there."""

    duration: Length | None = None
    milestones: tuple[Length, ...] | None = None
    lr: PositiveFloat | None = None


class AvdTrainingConfig(Section):
    """What the training of the AVD network does differently from `optim` (RegionMM); None is as there."""

    duration: Length | None = Duration(30, "epochs")
    milestones: tuple[Length, ...] | None = (Duration(20, "epochs"), Duration(25, "epochs"))
    lr: PositiveFloat | None = 1e-3


class ScreenConfig(Section):
    """Which motion anchors of a trained DAM are abnormal (supplementary, p. 2)."""

    epsilon: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    """ε: the largest equivariance loss of a normal motion anchor, on the scale of `hdam.models.screening`: ten times
    the mean absolute error of its coordinates, so that 0.3 allows 1.5 % of the image's side."""
    num_batches: PositiveInt = 100
    """Batches of `optim.batch_size` training images that the loss is measured on."""
    seed: NonNegativeInt = 0
    """Decides which images, and how they are deformed."""


class ResourceConfig(Section):
    """What the run takes of the cluster."""

    workers: PositiveInt = 2
    """Training processes, one GPU each where GPUs are used. Every batch has as many parts, the micro-batches."""
    min_workers: PositiveInt | None = None
    """Fewest workers to train with while machines are missing, each of them taking several micro-batches one after
    the other, so that batches stay what they are; for the same reason it and all numbers between the two that are used
    divide `workers`. None is all of them."""
    wait_seconds: PositiveFloat = 600.0
    """How long to wait for machines while there is room for fewer workers than that."""
    cpus_per_worker: PositiveFloat = 0.5
    threads_per_worker: PositiveInt = 1
    """Threads that torch uses inside one worker."""
    gpus_per_worker: NonNegativeFloat = 0.0
    data_cpus: PositiveFloat = 1.0
    """CPUs for the tasks that read and decode shards; no more than these are used."""
    prefetch_batches: NonNegativeInt = 4
    """Batches that each worker holds ready; whole bundles of 32 MiB are fetched, so that there may be more."""
    data_memory_mib: Annotated[int, Field(ge=64)] = 1024
    """Decoded frames, in MiB, that may wait between tasks and workers. 256 for every CPU of `data_cpus` and 256 more
    let all tasks work at once; of the object store, Ray takes at most half for this."""
    object_store_mib: Annotated[int, Field(ge=128)] = 2048
    """Shared memory, in MiB, of a Ray that is started for this run; never more than a quarter of the machine's."""
    max_failures: NonNegativeInt = 3
    """Worker failures survived by going on from the last checkpoint."""
    max_skipped: PositiveInt = 10
    """Steps in a row whose loss or gradient is no number: so many are skipped before the training is ended."""

    @property
    def worker_counts(self) -> tuple[int, ...]:
        """Numbers of workers that training may go on with, in rising order: each takes as many micro-batches."""
        return tuple(count for count in range(self.fewest_workers, self.workers + 1) if self.workers % count == 0)

    @property
    def fewest_workers(self) -> int:
        """The least of `worker_counts`."""
        return self.min_workers or self.workers

    @model_validator(mode="after")
    def _has_fewer(self) -> "ResourceConfig":
        if self.workers % self.fewest_workers:
            divisors = [str(count) for count in range(1, self.workers + 1) if self.workers % count == 0]
            raise ValueError(
                f"resources.min_workers={self.min_workers} does not divide resources.workers={self.workers}, whose "
                f"micro-batches could not be shared; use {', '.join(divisors)}, or leave it out to train with all"
            )
        return self


class LogConfig(Section):
    """What is written down, and how often, in steps."""

    metrics_every: PositiveInt = 10
    pictures_every: PositiveInt = 200
    checkpoint_every: PositiveInt = 200
    keep_checkpoints: PositiveInt = 2
    """The newest ones; the one with the best score on held-out pairs is kept besides."""


class Experiment(Section):
    """One question, one YAML file, one set of runs."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    question: str
    seed: NonNegativeInt = 0
    procedure: Literal["paper", "scratch"] = "paper"
    """How HDAM comes about: `paper` trains a DAM, screens its motion anchors and lets it grow into HDAM; `scratch`
    trains HDAM from random weights. All other models have a single training either way."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    losses: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    dam: DamConfig = DamConfig()
    avd: AvdTrainingConfig = AvdTrainingConfig()
    screen: ScreenConfig = ScreenConfig()
    resources: ResourceConfig = ResourceConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _batch_divides(self) -> "Experiment":
        batch, workers = self.optim.batch_size, self.resources.workers
        if batch % workers:
            raise ValueError(
                f"optim.batch_size={batch} does not divide over {workers} workers; "
                f"use a multiple of {workers} or change resources.workers"
            )
        return self

    @model_validator(mode="after")
    def _lasts_at_all(self) -> "Experiment":
        for name, section in (("optim", self.optim), ("dam", self.dam), ("avd", self.avd)):
            if section.duration is not None and section.duration.count < 1:
                raise ValueError(f"{name}.duration is {section.duration}; expected at least 1 step")
        return self

    def settings(self) -> dict[str, Any]:
        """The resolved experiment as plain JSON-able values."""
        return self.model_dump(mode="json")
