"""The settings of published models, read off the shapes of their tensors."""

import dataclasses

import pytest
import torch
from published_files import FAMILIES, SMALL, flat, reference_parts
from reference import NAMES, model_config, published_settings
from small_models import small_model
from test_golden_regions import region_config

from hdam.models.config import AnchorConfig, ModelConfig
from hdam.models.discriminator import Discriminator
from hdam.models.families import build_model
from hdam.models.published import export_published
from hdam.models.published_shapes import infer_config
from hdam.models.weights import WeightsError


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_read_off_the_shapes(golden, name):
    inferred = infer_config(flat(reference_parts(golden, name)), FAMILIES[name], origin=name)
    expected = model_config(published_settings(golden, name))
    expected = dataclasses.replace(
        expected, ignored=(), generator=dataclasses.replace(expected.generator, has_skips=name != "fomm")
    )
    if expected.background.kind == "zero":
        expected = dataclasses.replace(expected, background=inferred.background)
        assert inferred.background.kind == "zero"
    assert without_maxima(inferred) == without_maxima(expected)


def without_maxima(config):
    """Widths that never reach their maximum do not tell it."""
    return {
        name: {key: value for key, value in part.items() if key != "max_width"} if isinstance(part, dict) else part
        for name, part in dataclasses.asdict(config).items()
    }


def config_of(**changes):
    """The full-width HDAM with sections changed: `detector={"width": 4}`."""
    config = ModelConfig(reading="released")
    sections = {name: dataclasses.replace(getattr(config, name), **values) for name, values in changes.items()}
    return dataclasses.replace(config, **sections)


@pytest.mark.parametrize(
    "config",
    [
        config_of(),
        config_of(anchors={"num_motion": 5, "num_intermediate": 7}, detector={"attention_width": 6, "scale": 0.5}),
        config_of(detector={"width": 6, "max_width": 20, "num_blocks": 3}, flow={"width": 8, "num_blocks": 4}),
        config_of(detector={"width": 12, "max_width": 12}, flow={"scale": 0.125}, generator={"num_down_blocks": 1}),
        config_of(detector={"scale": 1}, generator={"width": 8, "max_width": 8, "num_bottleneck_blocks": 2}),
        config_of(background={"kind": "perspective", "width": 5, "max_width": 10}),
        config_of(background={"kind": "shift", "num_blocks": 2}, detector={"has_shared_affine": True}),
        config_of(discriminator={"scales": (1.0, 0.5, 0.25), "num_blocks": 3, "width": 4, "max_width": 16}),
        config_of(discriminator={"has_spectral_norm": True, "scales": (0.125,)}),
    ],
)
def test_every_architecture_is_recognised(config):
    with torch.device("meta"):  # shapes alone
        model, discriminator = build_model(config), Discriminator(config.discriminator)
    parts = export_published(model.to_empty(device="cpu"), discriminator.to_empty(device="cpu"))
    assert infer_config(flat(parts), "hdam", origin="it") == config


@pytest.mark.parametrize(
    "anchors", [AnchorConfig(num_intermediate=0), AnchorConfig(num_intermediate=0, has_root=False)]
)
def test_dam_and_fomm_are_recognised(anchors):
    loaded = small_model({**SMALL, "model.anchors": dataclasses.asdict(anchors)})
    found = infer_config(flat(export_published(loaded.model, None)), anchors.variant, origin="it")
    assert found.anchors == anchors
    assert found.generator.has_skips == anchors.has_root


def test_regionmm_is_recognised(golden):
    parts = reference_parts(golden, "regionmm")
    expected = region_config()
    inferred = infer_config(flat(parts), "regionmm", origin="it")
    assert without_maxima(inferred) == without_maxima(expected)
    del parts["avd_network"]
    assert not infer_config(flat(parts), "regionmm", origin="it").has_avd


@pytest.mark.parametrize(
    ("family", "name", "found"),
    [
        ("fomm", "dam", r"no fomm: it has 10 motion anchors and 1 latent ones, as a dam has; say --family dam"),
        ("fomm", "hdam", "say --family hdam"),
        ("dam", "hdam", "10 motion anchors and 4 latent ones.*say --family hdam"),
        ("dam", "fomm", "say --family fomm"),
        ("hdam", "dam", "say --family dam"),
        ("regionmm", "fomm", r"region_predictor\.regions\.weight is missing"),
        ("fomm", "regionmm", r"kp_detector\.kp\.weight is missing"),
    ],
)
def test_another_family_is_told(golden, family, name, found):
    with pytest.raises(WeightsError, match=found):
        infer_config(flat(reference_parts(golden, name)), family, origin="it")
