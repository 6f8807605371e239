"""Building the reference models of ../shared/golden with our own networks, and naming their results as it does."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hdam.models.config import (
    AnchorConfig,
    BackgroundConfig,
    DeformationConfig,
    DetectorConfig,
    DiscriminatorConfig,
    FlowConfig,
    GeneratorConfig,
    LossConfig,
    ModelConfig,
    PerceptualConfig,
)
from hdam.models.deformation import Deformation, Deformations
from hdam.models.discriminator import Discriminator
from hdam.models.families import build_model
from hdam.models.flow import candidate_flows, warp_candidates
from hdam.models.losses import Losses
from hdam.models.model import MotionModel
from hdam.models.objective import Objective, TrainingForward
from hdam.models.perceptual import PerceptualPyramid, VggFeatures
from hdam.models.published import load_published
from hdam.models.structures import AnchorTree, Transfer

NAMES = ("dam", "hdam", "fomm", "hdam_mgif")
OUR_LOSSES = {
    "perceptual": "perceptual",
    "perceptual_augmented": "perceptual_aug",
    "equivariance_position": "equivariance_value",
    "equivariance_affine": "equivariance_jacobian",
    "orthogonal": "sub_attetion_distance",
    "completeness": "complete_sub_leaf_attention",
    "gan": "gen_gan",
    "feature_matching": "feature_matching",
    # The published code adds up both levels of the hierarchy.
    "structure": "root_motion_kp_distance",
    "structure_intermediate": "root_motion_kp_distance",
}


def published_settings(golden: Path, name: str) -> dict[str, Any]:
    """The published configuration of a reference model."""
    return json.loads((golden / f"{name}_config.json").read_text())


def scalars(golden: Path, name: str, *, precision: str = "fp64") -> dict[str, Any]:
    """Reference scalars of the run in float64, or `fp32`."""
    return json.loads((golden / f"{name}_scalars.json").read_text())[precision]


def arrays(path: Path) -> dict[str, Tensor]:
    """All arrays of an .npz file; floating ones in float64."""
    stored = {key: torch.from_numpy(value) for key, value in np.load(path).items()}
    return {key: value.double() if value.is_floating_point() else value for key, value in stored.items()}


def model_config(settings: dict[str, Any]) -> ModelConfig:
    """Our configuration of the same network."""
    params = settings["model_params"]
    common, detector, generator = params["common_params"], params["kp_detector_params"], params["generator_params"]
    latent = generator["num_root_kp"]
    dense = generator["dense_motion_params"]
    background = params.get("bg_predictor_params", {})
    return ModelConfig(
        reading="released",
        anchors=AnchorConfig(
            num_motion=common["num_kp"] - latent, num_intermediate=max(latent - 1, 0), has_root=latent > 0
        ),
        ignored=tuple(detector["ignore_kp_list"]),
        detector=DetectorConfig(
            width=detector["block_expansion"],
            max_width=detector["max_features"],
            has_shared_affine=detector["single_jacobian_map"],
        ),
        flow=FlowConfig(width=dense["block_expansion"], max_width=dense["max_features"]),
        generator=GeneratorConfig(
            width=generator["block_expansion"], max_width=generator["max_features"], has_skips=generator["skips"]
        ),
        background=BackgroundConfig(
            kind=background["bg_type"] if params["use_bg_predictor"] else "zero",
            width=background.get("block_expansion", 32),
            max_width=background.get("max_features", 1024),
        ),
        discriminator=DiscriminatorConfig(
            width=params["discriminator_params"]["block_expansion"],
            max_width=params["discriminator_params"]["max_features"],
            has_spectral_norm=params["discriminator_params"].get("sn", False),
        ),
    )


def loss_config(settings: dict[str, Any], *, equivariance_image: str = "source") -> LossConfig:
    """Our weights of the same losses."""
    weights = settings["train_params"]["loss_weights"]
    noise = settings["train_params"]["transform_params"]
    return LossConfig(
        perceptual=PerceptualConfig(augmented_weight=float(weights["perceptual_aug"][0] > 0)),
        equivariance_image=equivariance_image,
        deformation=DeformationConfig(sigma_affine=noise["sigma_affine"], sigma_thin_plate=noise["sigma_tps"]),
        orthogonal=weights.get("orthognal_sub_leaf", 0),
        completeness=weights.get("complete_sub_leaf_attention", 0),
        delta=weights.get("sub_leaf_attention_value", 0.3),
        gan=weights["generator_gan"],
    )


def reference_objective(
    golden: Path, name: str, *, equivariance_image: str = "source", dtype: torch.dtype = torch.float64
) -> Objective:
    """The reference model under our names, with its perceptual network, filled by the project's own converter."""
    settings = published_settings(golden, name)
    model = build_model(model_config(settings))
    losses = loss_config(settings, equivariance_image=equivariance_image)
    discriminator = Discriminator(model.config.discriminator)
    features = VggFeatures("vgg19", load_file(golden / "vgg_tiny.safetensors"))
    objective = Objective(
        model,
        losses,
        perceptual=PerceptualPyramid(features, losses.perceptual),
        discriminator=discriminator if losses.gan else None,
    ).to(dtype)
    discriminator.to(dtype)
    load_published(model, discriminator, load_file(golden / f"{name}_state.safetensors"), origin=name)
    return objective


def reference_images(golden: Path, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Source and driving images, [2, 3, 256, 256] in 0…1, divided in float32 as the reference did."""
    stored = np.load(golden / "inputs.npz")
    return tuple(torch.from_numpy(stored[f"{which}_u8"]).float().div(255).to(dtype) for which in ("source", "driving"))


def reference_deformations(golden: Path, name: str) -> Deformations:
    """The random maps that the reference drew, as it drew them: in float32."""
    stored = {key: torch.from_numpy(value) for key, value in np.load(golden / f"{name}_transforms.npz").items()}
    augmentation = Deformation(stored["aug.theta"], None) if "aug.theta" in stored else None
    return Deformations(augmentation, Deformation(stored["equi.theta"], stored["equi.control_params"][:, 0]))


class Recorded(NamedTuple):
    """One forward of an objective: its losses, the result, and every tensor that the reference stored of it."""

    losses: Losses
    transfer: Transfer
    tensors: dict[str, Tensor]
    """By published name, at full resolution."""


def record(objective: Objective, source: Tensor, driving: Tensor, deformations: Deformations) -> Recorded:
    """Run `objective` once and keep what passes through it."""
    model, run = objective.model, objective.run
    made: list[TrainingForward] = []
    images: list[Tensor] = []
    trees: list[AnchorTree] = []
    backgrounds: list[Tensor] = []

    def keep(*arguments: Any) -> TrainingForward:
        made.append(run(*arguments))
        return made[-1]

    def keep_detection(_module: nn.Module, inputs: tuple[Tensor], tree: AnchorTree) -> None:
        images.append(inputs[0])
        trees.append(tree)

    hooks = [model.detector.register_forward_hook(keep_detection)]
    if model.background is not None:
        hooks.append(model.background.register_forward_hook(lambda _m, _i, matrix: backgrounds.append(matrix)))
    objective.run = keep
    losses, transfer = objective(source, driving, deformations)
    del objective.run
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        passes = ["source", "driving", "driving_aug", "transformed"]
        if made[0].augmented is None:
            passes.remove("driving_aug")
        tensors = transfer_tensors(model, transfer, images[0], backgrounds[:1])
        if made[0].augmented is not None:
            again = transfer_tensors(model, made[0].augmented, images[0], backgrounds[1:])
            tensors |= {f"aug.{key}": value for key, value in again.items()}
        for which, image, tree in zip(passes, images, trees, strict=True):
            tensors |= {f"kp_{which}.{key}": value for key, value in anchor_tensors(model, tree).items()}
            tensors[f"frame_{which}"] = image
    return Recorded(losses, transfer, {key: value.detach() for key, value in tensors.items()})


def anchor_tensors(model: MotionModel, tree: AnchorTree) -> dict[str, Tensor]:
    """What the published code's detector returns."""
    heatmap = model.detector.heatmaps(tree.features)
    return {
        "value": tree.all.position,
        "jacobian": tree.all.affine,
        "feature_map": tree.features,
        "heatmap": heatmap,
        "heatmap_sum": heatmap.sum((2, 3)),
        "heatmap_sumsq": heatmap.square().sum((2, 3)),
        "heatmap_max": heatmap.amax((2, 3)),
        "heatmap_shape": torch.tensor(heatmap.shape),
    }


def transfer_tensors(
    model: MotionModel, transfer: Transfer, source: Tensor, backgrounds: list[Tensor]
) -> dict[str, Tensor]:
    """What the published code's generator returns."""
    small = model.flow.downsample(source)
    background = backgrounds[0] if backgrounds else None
    flows = candidate_flows(transfer.source.motion, transfer.driving.motion, small.shape[-2:], background=background)
    tensors = {
        "mask": transfer.motion.masks,
        "occlusion_map": transfer.motion.occlusion,
        "deformation": transfer.motion.flow,
        "sparse_deformed": warp_candidates(small, flows, reading=model.config.reading),
        "deformed": transfer.warped,
        "prediction": transfer.image,
    }
    if background is not None:
        tensors["bg_params"] = background
    if transfer.attention is not None:
        tensors["attention"] = transfer.attention
    return tensors


def reduced(tensors: dict[str, Tensor], key: str) -> Tensor:
    """The tensor `key`; `_s2` and `_s4` keep every 2nd and 4th pixel, `_mean` is the mean over space."""
    if key in tensors:
        return tensors[key]
    name, _, reduction = key.rpartition("_")
    if reduction == "mean":
        return tensors[name].mean((-2, -1))
    step = {"s2": 2, "s4": 4}[reduction]
    return tensors[name][:, ::step, ::step] if name.endswith("deformation") else tensors[name][..., ::step, ::step]


def published_losses(losses: Losses) -> dict[str, float]:
    """Losses under the published names."""
    renamed: dict[str, float] = {}
    for ours, value in losses.items():
        name = OUR_LOSSES[ours]
        renamed[name] = renamed.get(name, 0.0) + value.item()
    return renamed
