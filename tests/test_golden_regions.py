"""RegionMM against the published code: every stored tensor, loss and gradient norm, in float64.

Axes of a region have no sign, so that covariances are compared, and affines up to the signs of their columns.
"""

import json
from pathlib import Path

import pytest
import torch
from reference import arrays, reduced, reference_deformations, reference_images
from safetensors.torch import load_file
from torch import Tensor

from hdam.models.avd import PoseScales
from hdam.models.avd_objective import AvdObjective
from hdam.models.config import (
    AnchorConfig,
    BackgroundConfig,
    DetectorConfig,
    FlowConfig,
    GeneratorConfig,
    LossConfig,
    ModelConfig,
    PerceptualConfig,
)
from hdam.models.families import build_model
from hdam.models.model import MotionModel
from hdam.models.objective import Objective
from hdam.models.optimisation import model_parts
from hdam.models.perceptual import PerceptualPyramid, VggFeatures
from hdam.models.published import load_published
from hdam.models.structures import Anchors, AnchorTree

TENSOR_TOLERANCE = {"rtol": 0, "atol": 1e-6}
OUR_LOSSES = {
    "perceptual": "perceptual",
    "equivariance_position": "equivariance_shift",
    "equivariance_affine": "equivariance_affine",
}


def region_config() -> ModelConfig:
    return ModelConfig(
        family="regionmm",
        reading="released",
        has_avd=True,
        anchors=AnchorConfig(num_motion=10, num_intermediate=0, has_root=False),
        detector=DetectorConfig(width=4, max_width=128),
        flow=FlowConfig(width=4, max_width=64),
        generator=GeneratorConfig(width=8, max_width=64),
        background=BackgroundConfig(width=4, max_width=128),
    )


@pytest.fixture
def model(golden: Path) -> MotionModel:
    model = build_model(region_config()).double()
    load_published(model, None, load_file(golden / "regionmm_state.safetensors"), origin="regionmm")
    return model


@pytest.fixture
def objective(golden: Path, model: MotionModel) -> Objective:
    losses = LossConfig(perceptual=PerceptualConfig(augmented_weight=0.0), equivariance_image="driving")
    features = VggFeatures("vgg19", load_file(golden / "vgg_tiny.safetensors"))
    return Objective(model, losses, perceptual=PerceptualPyramid(features, losses.perceptual)).double()


@pytest.fixture
def stored(golden: Path) -> dict[str, Tensor]:
    return arrays(golden / "regionmm_eval.npz")


@pytest.fixture
def scalars(golden: Path) -> dict:
    return json.loads((golden / "regionmm_scalars.json").read_text())["fp64"]


def assert_anchors(found: Anchors, stored: dict[str, Tensor], name: str) -> None:
    torch.testing.assert_close(found.position, stored[f"{name}.shift"], **TENSOR_TOLERANCE)
    affine = stored[f"{name}.affine"]
    torch.testing.assert_close(found.covariance, affine @ affine.mT, **TENSOR_TOLERANCE)
    torch.testing.assert_close(found.affine.abs(), affine.abs(), **TENSOR_TOLERANCE)


@torch.no_grad()
def test_the_whole_model_in_evaluation_mode(golden: Path, model: MotionModel, stored: dict[str, Tensor]):
    source, driving = reference_images(golden)
    transfer = model.eval()(source, driving)
    for name, tree in (("source", transfer.source), ("driving", transfer.driving)):
        assert_anchors(tree.motion, stored, name)
        torch.testing.assert_close(tree.motion.covariance, stored[f"{name}.covar"], **TENSOR_TOLERANCE)
        heatmaps = model.detector.heatmaps(tree.features)
        torch.testing.assert_close(heatmaps.amax((2, 3)), stored[f"{name}.heatmap_max"], **TENSOR_TOLERANCE)
        torch.testing.assert_close(heatmaps.square().sum((2, 3)), stored[f"{name}.heatmap_sumsq"], **TENSOR_TOLERANCE)
    tensors = {
        "bg_params": model.background_motion(source, driving),
        "occlusion_map": transfer.motion.occlusion,
        "optical_flow": transfer.motion.flow,
        "mask": transfer.motion.masks,
        "deformed": transfer.warped,
        "prediction": transfer.image,
    }
    for key in ("bg_params", "occlusion_map", "optical_flow", "mask_s2", "deformed_s4", "prediction_s2"):
        torch.testing.assert_close(reduced(tensors, key), stored[key], **TENSOR_TOLERANCE, msg=key)
    torch.testing.assert_close(transfer.image.mean((2, 3)), stored["prediction_mean"], **TENSOR_TOLERANCE)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_losses(golden: Path, objective: Objective, stored: dict[str, Tensor], scalars: dict, mode: str):
    source, driving = reference_images(golden)
    objective.train(mode == "train")
    losses, transfer = objective(source, driving, reference_deformations(golden, "regionmm"))
    expected = scalars[f"{mode}_losses"]
    for ours, published in OUR_LOSSES.items():
        assert losses[ours].item() == pytest.approx(expected[published], rel=1e-9), ours
    assert sum(losses.values()).item() == pytest.approx(scalars[f"{mode}_total"], rel=1e-9)
    if mode == "train":
        for name, tree in (("source", transfer.source), ("driving", transfer.driving)):
            assert_anchors(tree.motion, stored, f"train.{name}")
        painted = reduced({"prediction": transfer.image}, "prediction_s4")
        torch.testing.assert_close(painted, stored["train.prediction_s4"], **TENSOR_TOLERANCE)


def test_gradient_norms(golden: Path, objective: Objective, scalars: dict):
    objective.model.avd = None
    source, driving = reference_images(golden)
    losses, _ = objective.train()(source, driving, reference_deformations(golden, "regionmm"))
    sum(losses.values()).backward()
    published = {"detector": "region_predictor", "background": "bg_predictor", "generator": "generator"}
    for name, modules in model_parts(objective.model).items():
        gradients = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        assert norm == pytest.approx(scalars["grad_norm"][published[name]], rel=1e-7), name


@torch.no_grad()
def regions_with_published_signs(golden: Path, model: MotionModel, stored: dict[str, Tensor]) -> list[AnchorTree]:
    """Source and driving regions, in evaluation mode, their axes pointing where the published ones do.

    They do nearly always; the rest would make the AVD network see something else. Stored anchors themselves are too
    coarse, in float32, for a batch norm over two pairs.
    """
    trees = []
    for name, image in zip(("source", "driving"), reference_images(golden), strict=True):
        tree = model.eval().detect(image)
        signs = (tree.motion.affine * stored[f"{name}.affine"]).sign()
        trees.append(tree._replace(motion=tree.motion._replace(affine=tree.motion.affine * signs)))
    return trees


@torch.no_grad()
def test_avd_in_evaluation_mode(golden: Path, model: MotionModel, stored: dict[str, Tensor]):
    source, driving = regions_with_published_signs(golden, model, stored)
    found = model.avd(source.motion, driving.motion)
    assert_anchors(found, stored, "avd")
    torch.testing.assert_close(found.affine, stored["avd.affine"], **TENSOR_TOLERANCE)
    image, _ = reference_images(golden)
    painted = model.paint(model.generator.encode(image), source, driving._replace(motion=found)).image
    found_image = reduced({"prediction": painted}, "prediction_s4")
    torch.testing.assert_close(found_image, stored["avd_prediction_s4"], **TENSOR_TOLERANCE)


def test_avd_training_forward(golden: Path, model: MotionModel, stored: dict[str, Tensor], scalars: dict):
    trees = iter(regions_with_published_signs(golden, model, stored))
    objective = AvdObjective(model, LossConfig()).train()
    assert not model.detector.training and model.avd.training
    model.detect = lambda _image: next(trees)
    losses, _ = objective(*reference_images(golden), PoseScales(stored["avd_train.scale"]))
    expected = scalars["avd_train_losses"]
    # The stored scale is a float32 as well.
    assert losses["avd_position"].item() == pytest.approx(expected["rec_shift"], rel=1e-4)
    assert losses["avd_affine"].item() == pytest.approx(expected["rec_affine"], rel=1e-4)
    sum(losses.values()).backward()
    assert all((p.grad is not None) == name.startswith("avd.") for name, p in model.named_parameters())
