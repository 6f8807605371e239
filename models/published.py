"""Weights under the published code's names, and back."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from hdam.models.attention import AnchorAttention
from hdam.models.blocks import AntiAliasDownsample
from hdam.models.discriminator import Discriminator
from hdam.models.model import MotionModel
from hdam.models.weights import WeightsError, fill

Rules = tuple[tuple[str, str], ...]
"""Published prefix, ours. The first rule whose prefix begins a name rewrites it, in either direction."""


def _hourglass(published: str, ours: str) -> Rules:
    return (
        (f"{published}.encoder.down_blocks.", f"{ours}.encoder.blocks."),
        (f"{published}.decoder.up_blocks.", f"{ours}.decoder.blocks."),
    )


def _flow(published: str) -> Rules:
    heads = ((f"{published}.mask.", "model.flow.mask_head."), (f"{published}.occlusion.", "model.flow.occlusion_head."))
    return (*_hourglass(f"{published}.hourglass", "model.flow.hourglass"), *heads)


_POINTS: Rules = (
    *_hourglass("kp_detector.predictor", "model.detector.hourglass"),
    ("kp_detector.kp.", "model.detector.heatmap_head."),
    ("kp_detector.jacobian.", "model.detector.affine_head."),
    ("kp_detector.subroot_attention_block.", "model.detector.attention.key."),
    ("kp_detector.leaf_attention_block.", "model.detector.attention.query."),
    *_flow("generator.dense_motion_network"),
)
_REGIONS: Rules = (
    *_hourglass("region_predictor.predictor", "model.detector.hourglass"),
    ("region_predictor.regions.", "model.detector.heatmap_head."),
    *_flow("generator.pixelwise_flow_predictor"),
    ("avd_network.id_encoder.", "model.avd.identity_encoder."),
    ("avd_network.", "model.avd."),
)
_COMMON: Rules = (
    ("generator.bottleneck.r", "model.generator.bottleneck."),
    ("generator.", "model.generator."),
    ("bg_predictor.encoder.down_blocks.", "model.background.encoder.blocks."),
    ("bg_predictor.fc.", "model.background.head."),
)
_KERNELS_OF_POINTS = {"kp_detector.down.weight": "detector", "generator.dense_motion_network.down.weight": "flow"}
_KERNELS_OF_REGIONS = {
    "region_predictor.down.weight": "detector",
    "generator.pixelwise_flow_predictor.down.weight": "flow",
}
_KERNELS = _KERNELS_OF_POINTS | _KERNELS_OF_REGIONS
LARGEST_KERNEL_DIFFERENCE = 1e-6


def load_published(
    model: MotionModel, discriminator: Discriminator | None, tensors: Mapping[str, Tensor], *, origin: str
) -> None:
    """Fill model and discriminator from tensors named `kp_detector.…` or `region_predictor.…`, `generator.…`, ….

    Every tensor is accounted for: the fixed blur kernels are compared with ours, the discriminator's tensors are left
    out where there is no discriminator to take them, anything else missing or unknown raises WeightsError.
    """
    for name in _KERNELS:
        if name in tensors:
            _check_kernel(model, name, tensors[name], origin)
    renamed = {rename(name, discriminator): tensor for name, tensor in tensors.items() if name not in _KERNELS}
    fill(model, dict(_below("model.", renamed)), origin=origin)
    if discriminator is not None:
        fill(discriminator, dict(_below("discriminator.", renamed)), origin=origin)
    stray = [name for name in renamed if not name.startswith(("model.", "discriminator."))]
    if stray:
        raise WeightsError(f"{origin} holds tensors of no known part: {', '.join(stray[:3])}")


def export_published(model: MotionModel, discriminator: Discriminator | None) -> dict[str, dict[str, Tensor]]:
    """State dicts of the published parts, `generator` and others, complete with the fixed blur kernels.

    Raises WeightsError for an attention of the reading `paper`, which the published code does not have.
    """
    if isinstance(model.detector.attention, AnchorAttention):
        raise WeightsError(
            "the published code has no attention of the reading paper, which is linear; "
            "it takes models that were trained with model.reading: released"
        )
    ours = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if discriminator is not None:
        ours |= {f"discriminator.{name}": tensor for name, tensor in discriminator.state_dict().items()}
    family = model.config.family
    published = {published_name(name, discriminator, family=family): tensor for name, tensor in ours.items()}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in (published | _kernels(model)).items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor.detach().cpu().contiguous()
    return parts


def rename(name: str, discriminator: Discriminator | None = None) -> str:
    """Our name of a published tensor, below `model.` or `discriminator.`; unknown names stay as they are."""
    return _exchange_prefix(name, _POINTS + _REGIONS + _COMMON + _discriminator_rules(discriminator))


def published_name(name: str, discriminator: Discriminator | None = None, *, family: str) -> str:
    """The published name of our tensor `name`, which is below `model.` or `discriminator.`: the inverse of `rename`."""
    own = _REGIONS if family == "regionmm" else _POINTS
    rules = own + _COMMON + _discriminator_rules(discriminator)
    return _exchange_prefix(name, [(ours, published) for published, ours in rules])


def _exchange_prefix(name: str, rules: Sequence[tuple[str, str]]) -> str:
    for old, new in rules:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _discriminator_rules(discriminator: Discriminator | None) -> tuple[tuple[str, str], ...]:
    """The published code names its scales, `discs.1`, `discs.0-5`; ours are numbered."""
    if discriminator is None:
        return ()
    keys = [f"{scale:g}".replace(".", "-") for scale in discriminator.scales]
    blocks = [
        (f"discriminator.discs.{key}.down_blocks.", f"discriminator.per_scale.{number}.blocks.")
        for number, key in enumerate(keys)
    ]
    heads = [
        (f"discriminator.discs.{key}.conv.", f"discriminator.per_scale.{number}.head.")
        for number, key in enumerate(keys)
    ]
    return (*blocks, *heads)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), tensor) for name, tensor in tensors.items() if name.startswith(prefix))


def _downsample(model: MotionModel, name: str) -> AntiAliasDownsample:
    downsample = model.get_submodule(f"{_KERNELS[name]}.downsample")
    assert isinstance(downsample, AntiAliasDownsample)
    return downsample


def _kernels(model: MotionModel) -> dict[str, Tensor]:
    """The blur kernels as the published code stores them: one for each colour, and none at the full resolution."""
    names = _KERNELS_OF_REGIONS if model.config.family == "regionmm" else _KERNELS_OF_POINTS
    downsamples = {name: _downsample(model, name) for name in names}
    return {name: found.kernel.expand(3, 1, -1, -1) for name, found in downsamples.items() if found.stride > 1}


def _check_kernel(model: MotionModel, name: str, kernel: Tensor, origin: str) -> None:
    ours = _downsample(model, name).kernel
    same_shape = ours.shape[-2:] == kernel.shape[-2:]
    if not same_shape or (torch.as_tensor(kernel).to(ours) - ours).abs().max() > LARGEST_KERNEL_DIFFERENCE:
        raise WeightsError(f"{origin}: {name} is no blur kernel of this model's scale; change model.*.scale")
