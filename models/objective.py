"""What is minimised: one training forward of all networks, and every loss with its weight."""

from dataclasses import dataclass

import torch
from torch import nn

from hdam.models import losses
from hdam.models.avd_objective import AvdObjective
from hdam.models.config import LossConfig, ModelConfig
from hdam.models.deformation import Deformations, draw_affine, draw_thin_plate
from hdam.models.discriminator import Discriminator
from hdam.models.families import build_model
from hdam.models.losses import Losses
from hdam.models.model import MotionModel
from hdam.models.perceptual import PerceptualPyramid
from hdam.models.structures import AnchorTree, Image, Transfer
from hdam.models.weights import load_perceptual_features


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingForward:
    """Everything that one training forward makes, before any loss."""

    transfer: Transfer
    augmented: Transfer | None
    """The same source driven by the affinely augmented driving image."""
    augmented_driving: Image | None
    deformed: AnchorTree
    """Anchors of the deformed image of the equivariance losses."""


class Objective(nn.Module):
    """The losses of all families; which of them apply follows from the model's anchors and the weights."""

    def __init__(
        self,
        model: MotionModel,
        config: LossConfig,
        *,
        perceptual: PerceptualPyramid,
        discriminator: Discriminator | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.perceptual = perceptual
        self.discriminator = discriminator

    def forward(self, source: Image, driving: Image, deformations: Deformations) -> tuple[Losses, Transfer]:
        """Weighted losses by name, their plain sum being the total, and the transfer."""
        made = self.run(source, driving, deformations)
        terms = self._appearance(made, driving) | self._equivariance(made, deformations)
        terms |= self._structure(made.transfer)
        return terms, made.transfer

    def draw(self, batch: int, *, generator: torch.Generator | None = None) -> Deformations:
        """The random maps of one step."""
        return draw_deformations(batch, self.config, generator=generator)

    def preview(self, source: Image, driving: Image) -> Transfer:
        """The source moved like the driving image; for pictures and scores."""
        transfer: Transfer = self.model(source, driving)
        return transfer

    def run(self, source: Image, driving: Image, deformations: Deformations) -> TrainingForward:
        """All passes in the published order, which running statistics depend on."""
        model, reading = self.model, self.model.config.reading
        deformations = deformations.to(source)
        source_tree, driving_tree = model.detect(source), model.detect(driving)
        background = model.background_motion(source, driving)
        encoded = model.generator.encode(source)
        transfer = model.paint(encoded, source_tree, driving_tree, background=background)
        augmented, augmented_driving = None, None
        if deformations.augmentation is not None:
            augmented_driving = deformations.augmentation.image(driving, reading=reading)
            augmented_tree = model.detect(augmented_driving)._replace(features=None)
            augmented_background = model.background_motion(source, augmented_driving)
            again = model.generator.encode(source)
            augmented = model.paint(again, source_tree, augmented_tree, background=augmented_background)
        still = source if self.config.equivariance_image == "source" else driving
        deformed = model.detect(deformations.equivariance.image(still, reading=reading))
        return TrainingForward(
            transfer=transfer, augmented=augmented, augmented_driving=augmented_driving, deformed=deformed
        )

    def discriminator_losses(self, driving: Image, painted: Image) -> Losses:
        """Losses of the discriminator itself on a result of the generator, which gets no gradient."""
        if self.discriminator is None:
            raise ValueError("losses.gan=0 has no discriminator to train; set losses.gan above 0")
        judged_painted = self.discriminator(painted.detach())
        return {"discriminator": losses.gan_discriminator(self.discriminator(driving), judged_painted)}

    def _appearance(self, made: TrainingForward, driving: Image) -> Losses:
        terms: Losses = {"perceptual": self.perceptual(made.transfer.image, driving)}
        if made.augmented is not None and made.augmented_driving is not None:
            again = self.perceptual(made.augmented.image, made.augmented_driving)
            terms["perceptual_augmented"] = self.config.perceptual.augmented_weight * again
        if self.discriminator is not None:
            painted, real = self.discriminator(made.transfer.image), self.discriminator(driving)
            terms["gan"] = self.config.gan * losses.gan_generator(painted)
            terms["feature_matching"] = self.config.feature_matching * losses.feature_matching(real, painted)
        return terms

    def _equivariance(self, made: TrainingForward, deformations: Deformations) -> Losses:
        config = self.config
        still = made.transfer.source if config.equivariance_image == "source" else made.transfer.driving
        detected, deformed = still.all, made.deformed.all
        deformation = deformations.equivariance.to(detected.position)
        terms: Losses = {}
        if config.equivariance_position:
            restored = deformation.points(deformed.position)
            terms["equivariance_position"] = config.equivariance_position * losses.equivariance_position(
                detected.position, restored
            )
        if config.equivariance_affine:
            jacobian = deformation.jacobian(deformed.position)
            terms["equivariance_affine"] = config.equivariance_affine * losses.equivariance_affine(
                detected, deformed, jacobian
            )
        return terms

    def _structure(self, transfer: Transfer) -> Losses:
        source, driving, config = transfer.source, transfer.driving, self.config
        if source.root is None or driving.root is None:
            return {}
        if source.intermediate is None or driving.intermediate is None or transfer.attention is None:
            distance = losses.structure_distance(
                source.root, driving.root, source.motion.position, driving.motion.position
            )
            return {"structure": config.root_to_motion * losses.structure(distance)}
        by_root = losses.structure_distance(
            source.root, driving.root, source.intermediate.position, driving.intermediate.position
        )
        by_intermediate = losses.structure_distance(
            source.intermediate, driving.intermediate, source.motion.position, driving.motion.position
        )
        attention, reading, ignored = transfer.attention, self.model.config.reading, self.model.config.ignored
        owned = losses.completeness(attention, delta=config.delta, reading=reading, ignored=ignored)
        return {
            "structure_intermediate": config.root_to_intermediate * losses.structure(by_root),
            "structure": config.intermediate_to_motion * losses.attended_structure(by_intermediate, attention),
            "orthogonal": config.orthogonal * losses.orthogonal(attention, reading=reading, ignored=ignored),
            "completeness": config.completeness * owned,
        }


def draw_deformations(batch: int, config: LossConfig, *, generator: torch.Generator | None = None) -> Deformations:
    """Random maps of one step, drawn on the CPU in the published order: augmentation, then equivariance."""
    augmentation = None
    if config.perceptual.augmented_weight:
        augmentation = draw_affine(batch, config.deformation, generator=generator)
    return Deformations(augmentation, draw_thin_plate(batch, config.deformation, generator=generator))


def build_objective(model: ModelConfig, config: LossConfig) -> Objective | AvdObjective:
    """Model, perceptual network and discriminator from their settings; for a model with AVD network, its training.

    Raises WeightsError where the perceptual network's weights are missing or unfit, ValueError where settings of the
    model do not fit together.
    """
    if model.has_avd:
        return AvdObjective(build_model(model), config)
    return Objective(
        build_model(model),
        config,
        perceptual=PerceptualPyramid(load_perceptual_features(config.perceptual), config.perceptual),
        discriminator=Discriminator(model.discriminator) if config.gan else None,
    )
