"""The stages of an experiment, each named by what it depends on: nothing that is known is computed twice.

    procedure: paper     dam ──► screen ──► hdam ──► evaluate
                          └───────────────────┘
    procedure: scratch   hdam ──► evaluate           (likewise dam, fomm and every other family of models)
    with model.has_avd   … ──► avd ──► evaluate

A stage's key is a digest of its own settings, of the keys of the stages that it builds on, and of the dataset's
fingerprint. What a stage does not use is set to its default first, so that it does not count: a DAM is the same
whatever δ, ε and the number of intermediate anchors are.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hdam.experiments.experiment import AvdTrainingConfig, DamConfig, Experiment, ScreenConfig
from hdam.experiments.loading import override
from hdam.models.config import AvdConfig, DetectorConfig, LossConfig
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import Manifest
from hdam.platform.weights.files import find_weights

StageKind = str
"""`screen`, `evaluate`, `avd`, or the variant of model that the stage trains: `hdam`, `dam`, `regionmm`, …."""
KEY_LENGTH = 10
UNRELATED = ("name", "question", "resources", "log")
"""Sections that do not shape the result."""
TEST_SPLIT = "test"

_LOSSES_OF_DAM = ("root_to_motion",)
_LOSSES_OF_AVD = ("avd_position", "avd_affine")
_LOSSES_OF_HDAM = ("root_to_intermediate", "intermediate_to_motion", "orthogonal", "completeness", "delta")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One step of an experiment."""

    kind: StageKind
    key: str
    experiment: Experiment
    """What this stage works with. The anchors that screening finds are not in it yet."""
    inputs: tuple[StageKind, ...] = ()
    """Earlier stages that it builds on."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.kind}-{self.key}"

    @property
    def is_training(self) -> bool:
        """Whether it makes weights."""
        return self.kind not in ("screen", "evaluate")


def plan_stages(experiment: Experiment, fingerprint: str) -> tuple[Stage, ...]:
    """The stages of `experiment` on the dataset with this fingerprint, in the order of their work.

    Raises InputError where anchors are ignored by hand that screening would find.
    """
    stages = _stages_of_model(experiment, fingerprint)
    if experiment.model.has_avd:
        built_on = tuple(stage for stage in stages if stage.kind != "dam")
        stages += (_training(experiment, "avd", fingerprint, built_on=built_on),)
    return *stages, _evaluation(stages[-1])


def _stages_of_model(experiment: Experiment, fingerprint: str) -> tuple[Stage, ...]:
    """Without those that come after the model."""
    variant = experiment.model.variant
    if variant != "hdam" or experiment.procedure == "scratch":
        return (_training(experiment, variant, fingerprint),)
    if experiment.model.ignored:
        raise InputError(
            f"model.ignored={list(experiment.model.ignored)}, but with procedure: paper the stage screen finds the "
            "abnormal anchors; leave model.ignored out, or set procedure: scratch"
        )
    dam = _training(experiment, "dam", fingerprint)
    screen = _screening(experiment, dam)
    return dam, screen, _training(experiment, "hdam", fingerprint, built_on=(dam, screen))


def check_kind(text: str, stages: tuple[Stage, ...]) -> StageKind:
    """`text` as one of `stages`. Raises InputError that names those that there are."""
    kinds = [stage.kind for stage in stages]
    for kind in kinds:
        if kind == text:
            return kind
    raise InputError(f"--from {text}: no stage of this experiment; it has {', '.join(kinds)}")


def run_name(experiment: Experiment, manifest: Manifest) -> str:
    """Name and key of an experiment on a dataset; both names count as well as the content: they are the model's."""
    content = [experiment.name, related_settings(experiment), manifest.name, manifest.fingerprint]
    return f"{experiment.name}-{digest(content)}"


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """Workers run in folders of their own. Where no file of weights is named, it is the one that was fetched."""
    perceptual = experiment.losses.perceptual
    weights = perceptual.weights or str(find_weights(perceptual.network) or "")
    changes = {}
    for name, path in (("data.path", experiment.data.path), ("losses.perceptual.weights", weights)):
        if path and "://" not in path:
            changes[name] = str(Path(path).expanduser().absolute())
    return override(experiment, changes)


def with_screening(experiment: Experiment, ignored: tuple[int, ...]) -> Experiment:
    """`experiment` as it stands in checkpoints and registered models: with the abnormal anchors that were found."""
    return override(experiment, {"model.ignored": list(ignored)})


def digest(content: Any) -> str:
    """A short name of JSON-able content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]


def related_settings(experiment: Experiment) -> dict[str, Any]:
    """The settings that shape the result, with the content of files instead of their places."""
    settings = {name: value for name, value in experiment.settings().items() if name not in UNRELATED}
    settings["data"] = {name: value for name, value in settings["data"].items() if name != "path"}
    if (weights := Path(experiment.losses.perceptual.weights)).is_file():
        with weights.open("rb") as file:
            settings["losses"]["perceptual"]["weights"] = hashlib.file_digest(file, "sha256").hexdigest()
    return settings


def _training(experiment: Experiment, kind: StageKind, fingerprint: str, *, built_on: tuple[Stage, ...] = ()) -> Stage:
    own = _own_experiment(experiment, kind)
    content = [kind, related_settings(own), [stage.key for stage in built_on], fingerprint]
    return Stage(kind=kind, key=digest(content), experiment=own, inputs=tuple(stage.kind for stage in built_on))


def _screening(experiment: Experiment, dam: Stage) -> Stage:
    own = override(dam.experiment, {"screen": experiment.screen.model_dump(mode="json")})
    content = ["screen", own.settings()["screen"], dam.key]
    return Stage(kind="screen", key=digest(content), experiment=own, inputs=("dam",))


def _evaluation(trained: Stage) -> Stage:
    content = ["evaluate", TEST_SPLIT, trained.key]
    return Stage(kind="evaluate", key=digest(content), experiment=trained.experiment, inputs=(trained.kind,))


def _own_experiment(experiment: Experiment, kind: StageKind) -> Experiment:
    """What the training of a kind uses of `experiment`; everything else is at its default."""
    changes: dict[str, Any] = {
        "procedure": Experiment.model_fields["procedure"].default,
        "dam": DamConfig().model_dump(mode="json"),
        "avd": AvdTrainingConfig().model_dump(mode="json"),
        "screen": ScreenConfig().model_dump(mode="json"),
    }
    if kind != "dam":
        changes |= _defaults_of_losses(_LOSSES_OF_DAM)
    if kind != "avd":
        changes |= _defaults_of_losses(_LOSSES_OF_AVD) | {"model.has_avd": False, "model.avd": asdict(AvdConfig())}
    if kind == "dam" or not experiment.model.anchors.num_intermediate:
        changes |= _defaults_of_losses(_LOSSES_OF_HDAM)
        changes |= {"model.anchors.num_intermediate": 0, "model.ignored": []}
        changes["model.detector.attention_width"] = DetectorConfig().attention_width
    if kind in ("dam", "avd"):
        changes |= _given(getattr(experiment, kind).model_dump(mode="json"))
    return override(experiment, changes)


def _defaults_of_losses(names: tuple[str, ...]) -> dict[str, Any]:
    default = LossConfig()
    return {f"losses.{name}": getattr(default, name) for name in names}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"optim.{name}": value for name, value in values.items() if value is not None}
