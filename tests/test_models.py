"""Whole networks: sizes, readings, options, what they return and what they refuse."""

from itertools import product
from typing import Any

import pytest
import torch
from narrow import WIDTHS, narrow_model, random_images
from torch import nn

from hdam.models.attention import AnchorAttention, ProjectedAttention
from hdam.models.background import BackgroundPredictor
from hdam.models.blocks import Hourglass
from hdam.models.config import (
    AnchorConfig,
    BackgroundConfig,
    DetectorConfig,
    DiscriminatorConfig,
    FlowConfig,
    GeneratorConfig,
    ModelConfig,
    Reading,
)
from hdam.models.discriminator import Discriminator
from hdam.models.families import build_model
from hdam.models.perceptual import VGG_LAYOUTS, VggFeatures
from hdam.models.structures import Anchors, AnchorTree, Transfer

READINGS: tuple[Reading, ...] = ("paper", "released")
FULL_SKIPS = {**WIDTHS, "num_bottleneck_blocks": 1}


def transfer_of(config: ModelConfig, *size: int) -> Transfer:
    torch.manual_seed(1)
    model = build_model(config).eval()
    with torch.no_grad():
        return model(random_images(*size), random_images(*size, seed=1))


def assert_sound(transfer: Transfer, config: ModelConfig, height: int, width: int) -> None:
    """Shapes and ranges of everything returned."""
    anchors, quarter = config.anchors, (height // 4, width // 4)
    assert transfer.image.shape == transfer.warped.shape == (2, 3, height, width)
    assert transfer.image.min() >= 0
    assert transfer.image.max() <= 1
    assert transfer.motion.flow.shape == (2, *quarter, 2)
    assert transfer.motion.occlusion.shape == (2, 1, *quarter)
    assert transfer.motion.masks.shape == (2, anchors.num_motion + 1, *quarter)
    assert torch.allclose(transfer.motion.masks.sum(1), torch.ones(2, *quarter), atol=1e-5)
    for tree in (transfer.source, transfer.driving):
        assert tree.all.position.shape == (2, anchors.total, 2)
        assert tree.all.affine.shape == (2, anchors.total, 2, 2)
        assert tree.all.position.abs().max() <= 1
    if anchors.variant == "hdam":
        assert transfer.attention.shape == (2, anchors.num_intermediate, anchors.num_motion)
        assert torch.allclose(transfer.attention.sum(-1), torch.ones(2, anchors.num_intermediate), atol=1e-5)
    else:
        assert transfer.attention is None


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", ["zero", "shift", "affine", "perspective"])
def test_options_at_64_pixels(reading: Reading, kind: str):
    for has_skips, is_shared in product((True, False), repeat=2):
        config = narrow_model(
            reading=reading,
            background=BackgroundConfig(**WIDTHS, kind=kind, num_blocks=3),
            generator=GeneratorConfig(**FULL_SKIPS, has_skips=has_skips),
            detector=DetectorConfig(**WIDTHS, num_blocks=3, has_shared_affine=is_shared),
        )
        assert_sound(transfer_of(config, 64), config, 64, 64)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("size", [(256, 256), (512, 512), (64, 96)])
def test_other_sizes(reading: Reading, size: tuple[int, int]):
    config = narrow_model(reading=reading)
    assert_sound(transfer_of(config, *size), config, *size)


@pytest.mark.parametrize("reading", READINGS)
def test_full_depth_at_256_pixels(reading: Reading):
    config = ModelConfig(
        reading=reading,
        detector=DetectorConfig(**WIDTHS),
        flow=FlowConfig(**WIDTHS),
        generator=GeneratorConfig(**WIDTHS),
        background=BackgroundConfig(**WIDTHS),
    )
    assert_sound(transfer_of(config, 256), config, 256, 256)


VARIANTS = {
    "fomm": AnchorConfig(num_motion=4, num_intermediate=0, has_root=False),
    "dam": AnchorConfig(num_motion=4, num_intermediate=0),
    "hdam": AnchorConfig(num_motion=4, num_intermediate=2),
}


def test_variants_share_flow_generator_and_background():
    states = {}
    for variant, anchors in VARIANTS.items():
        assert anchors.variant == variant
        config = narrow_model(anchors=anchors)
        assert_sound(transfer_of(config, 64), config, 64, 64)
        state = build_model(config).state_dict()
        states[variant] = {name: value.shape for name, value in state.items() if not name.startswith("detector.")}
    assert states["fomm"] == states["dam"] == states["hdam"]


def test_readings_differ_in_attention_alone_where_weights_are_concerned():
    names = {reading: set(build_model(narrow_model(reading=reading)).state_dict()) for reading in READINGS}
    assert all(name.startswith("detector.attention.") for name in names["paper"] ^ names["released"])
    forms = [build_model(narrow_model(reading=reading)).detector.attention for reading in READINGS]
    assert isinstance(forms[0], AnchorAttention)
    assert isinstance(forms[1], ProjectedAttention)


def test_a_new_model_is_unmoved():
    """Affine heads start at the identity, the background predictor too."""
    torch.manual_seed(0)
    for is_shared in (False, True):
        config = narrow_model(detector=DetectorConfig(**WIDTHS, num_blocks=3, has_shared_affine=is_shared))
        model = build_model(config)
        image = random_images(64)
        assert torch.allclose(model.detect(image).all.affine, torch.eye(2).expand(2, 7, 2, 2), atol=1e-5)
        assert torch.equal(model.background_motion(image, image), torch.eye(3).expand(2, 3, 3))


def millions(module: nn.Module) -> float:
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 2)


def test_parameters_of_the_full_width():
    """The published TaiChiHD configuration is the default."""
    with torch.device("meta"):
        model = build_model(ModelConfig(reading="released"))
        assert millions(model.detector) == 14.25
        assert millions(nn.ModuleList([model.flow, model.generator])) == 45.58
        assert millions(model.flow) == 37.73
        assert millions(model.background) == 6.28
        assert millions(Discriminator(model.config.discriminator)) == 2.76
        widths, weights = {0: 64, 2: 64, 5: 128, 7: 128} | dict.fromkeys((10, 12, 14, 16), 256), {}
        inputs = 3
        for index in (i for i in VGG_LAYOUTS["vgg19"] if i is not None):
            width = widths.get(index, 512)
            weights[f"features.{index}.weight"] = torch.empty(width, inputs, 3, 3)
            weights[f"features.{index}.bias"] = torch.empty(width)
            inputs = width
        network = VggFeatures("vgg19", weights)
        assert millions(network) == 12.94
        assert not any(p.requires_grad for p in network.parameters())


def tiny_vgg(network: str) -> VggFeatures:
    weights, inputs = {}, 3
    for index in (i for i in VGG_LAYOUTS[network] if i is not None):
        weights |= {f"features.{index}.weight": torch.randn(2, inputs, 3, 3), f"features.{index}.bias": torch.randn(2)}
        inputs = 2
    return VggFeatures(network, weights)


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_perceptual_networks_give_five_resolutions(network: str):
    features = tiny_vgg(network)(torch.rand(1, 3, 16, 16))
    assert [maps.shape[-1] for maps in features] == [16, 8, 4, 2, 1]


def test_networks_refuse_images_that_are_too_small():
    with pytest.raises(ValueError, match=r"hourglass of 5 blocks.*16×16 pixels.*fewer num_blocks"):
        build_model(ModelConfig(detector=DetectorConfig(**WIDTHS), flow=FlowConfig(**WIDTHS))).detect(random_images(64))
    with pytest.raises(ValueError, match=r"24×20 pixels"):
        Hourglass(3, width=2, max_width=4, num_blocks=3)(torch.rand(1, 3, 24, 20))
    predictor = BackgroundPredictor(BackgroundConfig(**WIDTHS), reading="paper")
    with pytest.raises(ValueError, match=r"16×16 pixels.*model\.background\.num_blocks"):
        predictor(random_images(64), random_images(64))
    with pytest.raises(ValueError, match="kind=zero"):
        BackgroundPredictor(BackgroundConfig(kind="zero"), reading="paper")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnchorConfig(num_motion=0), "num_motion=0"),
        (lambda: AnchorConfig(num_intermediate=-1), "num_intermediate=-1"),
        (lambda: AnchorConfig(num_intermediate=2, has_root=False), "has_root: true"),
        (lambda: ModelConfig(ignored=(3, 10)), r"\[10\]; there are 0…9"),
    ],
)
def test_impossible_configurations_are_refused(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_tree_is_split_and_joined():
    anchors = Anchors(torch.rand(2, 7, 2), torch.rand(2, 7, 2, 2))
    tree = AnchorTree.split(anchors, num_motion=4, has_root=True, features=None)
    assert [level.position.shape[1] for level in tree[:3]] == [4, 2, 1]
    assert torch.equal(tree.all.position, anchors.position)
    assert torch.equal(tree.all.affine, anchors.affine)
    flat = AnchorTree.split(anchors, num_motion=7, has_root=False, features=None)
    assert flat.intermediate is None
    assert flat.root is None
    assert torch.equal(flat.all.position, anchors.position)
    with pytest.raises(ValueError, match="without motion anchors"):
        AnchorTree.split(anchors, num_motion=0, has_root=True, features=None)


def test_attention_needs_detected_anchors():
    model = build_model(narrow_model())
    tree = model.detect(random_images(64))
    assert model.attend(tree).shape == (2, 2, 4)
    assert model.attend(tree._replace(features=None)) is None
    with pytest.raises(ValueError, match="this tree has none"):
        model.detector.attention(tree._replace(intermediate=None))


@pytest.mark.parametrize("has_spectral_norm", [False, True])
def test_discriminator_judges_every_scale(has_spectral_norm: bool):
    config = DiscriminatorConfig(**WIDTHS, scales=(1.0, 0.5), has_spectral_norm=has_spectral_norm)
    judgements = Discriminator(config)(random_images(128))
    assert [len(judgement.features) for judgement in judgements] == [4, 4]
    for judgement, features in ((j, j.features[-1]) for j in judgements):
        assert judgement.score.shape == (2, 1, *features.shape[-2:])
