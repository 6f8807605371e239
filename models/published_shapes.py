"""A published model's settings, read off the shapes of its tensors: no configuration file is needed."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor

from hdam.models.config import (
    AnchorConfig,
    AvdConfig,
    BackgroundConfig,
    DetectorConfig,
    DiscriminatorConfig,
    FlowConfig,
    GeneratorConfig,
    ModelConfig,
)
from hdam.models.published_file import Family
from hdam.models.weights import WeightsError

NOT_IN_SHAPES = (
    "model.generator.has_skips",
    "model.detector.heatmap_padding",
    "model.detector.temperature",
    "model.flow.heatmap_variance",
    "model.ignored",
)
"""Settings that change what a model paints and cannot be read off its tensors."""

_SCALES = {5: 0.5, 13: 0.25, 29: 0.125}
"""By the side of the blur kernel."""
_BACKGROUNDS: dict[int, Literal["shift", "affine", "perspective"]] = {2: "shift", 6: "affine", 8: "perspective"}
"""By the numbers that the predictor returns."""


def infer_config(tensors: Mapping[str, Tensor], family: Family, *, origin: str) -> ModelConfig:
    """Settings, in the reading `released`, of the published model that has `tensors`, named as in `load_published`.

    What is `NOT_IN_SHAPES` has the published default: no padding, nothing ignored, skips in all families but FOMM.
    Raises WeightsError, which names the tensors `origin`, where they are of another family or of no model at all.
    """
    shapes = _Shapes(tensors, origin)
    names = _REGIONS if family == "regionmm" else _POINTS
    anchors = _anchors(shapes, family, names)
    has_avd = bool(shapes.names("avd_network."))
    return ModelConfig(
        family="regionmm" if family == "regionmm" else "hdam",
        reading="released",
        anchors=anchors,
        detector=_detector(shapes, anchors, names),
        flow=_flow(shapes, names.flow),
        has_avd=has_avd,
        avd=_avd(shapes) if has_avd else AvdConfig(),
        generator=_generator(shapes, has_skips=family != "fomm"),
        background=_background(shapes),
        discriminator=_discriminator(shapes),
    )


class _Names(NamedTuple):
    """What the published code calls the parts that its families do not have in common."""

    detector: str
    heatmap_head: str
    flow: str


_POINTS = _Names("kp_detector", "kp_detector.kp.weight", "generator.dense_motion_network")
_REGIONS = _Names("region_predictor", "region_predictor.regions.weight", "generator.pixelwise_flow_predictor")


class _Shapes:
    """Shapes by name, and the error for those that are not there."""

    def __init__(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.origin = origin

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def names(self, prefix: str) -> list[str]:
        """Names that begin with `prefix`."""
        return [name for name in self._shapes if name.startswith(prefix)]

    def rows(self, name: str) -> int:
        """The first number of a shape: a layer's output channels."""
        shape = self._shapes.get(name, ())
        if not shape or not shape[0]:
            raise WeightsError(f"{self.origin}: {name} is {'empty' if name in self else 'missing'}")
        return shape[0]

    def side(self, name: str) -> int:
        """The last number of a shape."""
        self.rows(name)
        return self._shapes[name][-1]

    def blocks(self, prefix: str, layer: str = ".conv.weight") -> list[int]:
        """Output channels of the blocks `prefix` 0, 1, …, at least one."""
        found = [self.rows(f"{prefix}0{layer}")]
        while (name := f"{prefix}{len(found)}{layer}") in self:
            found.append(self.rows(name))
        return found


class _Chain(NamedTuple):
    """Blocks that double their channels up to a maximum."""

    width: int
    max_width: int
    num_blocks: int


def _chain(width: int, outputs: list[int], *, default_max: int) -> _Chain:
    """`width` doubles from block to block; where the maximum is never reached, the default is as good as any."""
    largest = max(outputs)
    is_capped = largest < width * 2 ** len(outputs)
    return _Chain(width, largest if is_capped else max(largest, default_max), len(outputs))


def _encoder(outputs: list[int], *, default_max: int) -> _Chain:
    """An encoder alone shows twice its width first, or its maximum."""
    return _chain((outputs[0] + 1) // 2, outputs, default_max=default_max)


def _hourglass(shapes: _Shapes, prefix: str, *, default_max: int) -> _Chain:
    """The last block of the decoder shows the width."""
    outputs = shapes.blocks(f"{prefix}.encoder.down_blocks.")
    width = shapes.rows(f"{prefix}.decoder.up_blocks.{len(outputs) - 1}.conv.weight")
    return _chain(width, outputs, default_max=default_max)


def _anchors(shapes: _Shapes, family: Family, names: _Names) -> AnchorConfig:
    """Motion anchors have flow masks, of which the background's is one more; all anchors have heat maps."""
    total, num_motion = shapes.rows(names.heatmap_head), shapes.rows(f"{names.flow}.mask.weight") - 1
    if not 1 <= num_motion <= total:
        raise WeightsError(f"{shapes.origin}: {total} anchors and {num_motion} flow masks for them do not go together")
    num_latent = total - num_motion
    without_latent = "regionmm" if family == "regionmm" else "fomm"
    found = without_latent if num_latent == 0 else "dam" if num_latent == 1 else "hdam"
    if found != family:
        raise WeightsError(
            f"{shapes.origin} is no {family}: it has {num_motion} motion anchors and {num_latent} latent ones, "
            f"as a {found} has; say --family {found}"
        )
    return AnchorConfig(num_motion=num_motion, num_intermediate=max(num_latent - 1, 0), has_root=num_latent > 0)


def _detector(shapes: _Shapes, anchors: AnchorConfig, names: _Names) -> DetectorConfig:
    default = DetectorConfig()
    chain = _hourglass(shapes, f"{names.detector}.predictor", default_max=default.max_width)
    query = f"{names.detector}.leaf_attention_block.0.weight"
    has_shared_affine = default.has_shared_affine  # regions have no affine head
    if names is _POINTS:
        has_shared_affine = shapes.rows(f"{names.detector}.jacobian.weight") == 4 and anchors.total > 1
    return DetectorConfig(
        width=chain.width,
        max_width=chain.max_width,
        num_blocks=chain.num_blocks,
        scale=_scale(shapes, f"{names.detector}.down.weight"),
        has_shared_affine=has_shared_affine,
        attention_width=shapes.rows(query) if anchors.num_intermediate else default.attention_width,
    )


def _flow(shapes: _Shapes, name: str) -> FlowConfig:
    chain = _hourglass(shapes, f"{name}.hourglass", default_max=FlowConfig().max_width)
    scale = _scale(shapes, f"{name}.down.weight")
    return FlowConfig(width=chain.width, max_width=chain.max_width, num_blocks=chain.num_blocks, scale=scale)


def _scale(shapes: _Shapes, kernel: str) -> float:
    """Without a blur kernel nothing is downsampled."""
    if kernel not in shapes:
        return 1.0
    side = shapes.side(kernel)
    if side not in _SCALES:
        raise WeightsError(f"{shapes.origin}: {kernel} has {side} pixels a side; blur kernels have 5, 13 or 29")
    return _SCALES[side]


def _generator(shapes: _Shapes, *, has_skips: bool) -> GeneratorConfig:
    width = shapes.rows("generator.first.conv.weight")
    chain = _chain(width, shapes.blocks("generator.down_blocks."), default_max=GeneratorConfig().max_width)
    return GeneratorConfig(
        width=width,
        max_width=chain.max_width,
        num_down_blocks=chain.num_blocks,
        num_bottleneck_blocks=len(shapes.blocks("generator.bottleneck.r", ".conv1.weight")),
        has_skips=has_skips,
    )


def _background(shapes: _Shapes) -> BackgroundConfig:
    if not shapes.names("bg_predictor."):
        return BackgroundConfig(kind="zero")
    numbers = shapes.rows("bg_predictor.fc.weight")
    if numbers not in _BACKGROUNDS:
        raise WeightsError(f"{shapes.origin}: bg_predictor.fc returns {numbers} numbers; expected 2, 6 or 8")
    chain = _encoder(shapes.blocks("bg_predictor.encoder.down_blocks."), default_max=BackgroundConfig().max_width)
    return BackgroundConfig(
        kind=_BACKGROUNDS[numbers], width=chain.width, max_width=chain.max_width, num_blocks=chain.num_blocks
    )


def _avd(shapes: _Shapes) -> AvdConfig:
    """The last layers of the two encoders."""
    return AvdConfig(
        identity_width=shapes.rows("avd_network.id_encoder.9.weight"),
        pose_width=shapes.rows("avd_network.pose_encoder.9.weight"),
    )


def _discriminator(shapes: _Shapes) -> DiscriminatorConfig:
    """All scales are alike, so that the first tells of all."""
    keys = list(dict.fromkeys(name.split(".")[2] for name in shapes.names("discriminator.discs.")))
    if not keys:
        return DiscriminatorConfig()
    unknown = [key for key in keys if key not in ("1", "0-5", "0-25", "0-125")]
    if unknown:
        raise WeightsError(
            f"{shapes.origin}: discriminator.discs.{unknown[0]} has a scale that is none of 1, 1/2, 1/4, 1/8"
        )
    first = f"discriminator.discs.{keys[0]}"
    has_spectral_norm = f"{first}.conv.weight_orig" in shapes
    layer = ".conv.weight_orig" if has_spectral_norm else ".conv.weight"
    chain = _encoder(shapes.blocks(f"{first}.down_blocks.", layer), default_max=DiscriminatorConfig().max_width)
    return DiscriminatorConfig(
        scales=tuple(float(key.replace("-", ".")) for key in keys),
        width=chain.width,
        max_width=chain.max_width,
        num_blocks=chain.num_blocks,
        has_spectral_norm=has_spectral_norm,
    )
