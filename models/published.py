"""Weights under the published code's names, and back."""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hdam.models.discriminator import Discriminator
from hdam.models.model import MotionModel
from hdam.models.weights import WeightsError, fill

# Its name in DAM's and FOMM's code, and in RegionMM's.
_FLOW = r"generator\.(?:dense_motion_network|pixelwise_flow_predictor)"
# Published prefix, ours. The first rule that fits a name rewrites it; `\1` is a block's number.
_RULES: tuple[tuple[str, str], ...] = (
    (r"kp_detector\.predictor\.encoder\.down_blocks\.", "model.detector.hourglass.encoder.blocks."),
    (r"kp_detector\.predictor\.decoder\.up_blocks\.", "model.detector.hourglass.decoder.blocks."),
    (r"kp_detector\.kp\.", "model.detector.heatmap_head."),
    (r"kp_detector\.jacobian\.", "model.detector.affine_head."),
    (r"kp_detector\.subroot_attention_block\.", "model.detector.attention.key."),
    (r"kp_detector\.leaf_attention_block\.", "model.detector.attention.query."),
    (_FLOW + r"\.hourglass\.encoder\.down_blocks\.", "model.flow.hourglass.encoder.blocks."),
    (_FLOW + r"\.hourglass\.decoder\.up_blocks\.", "model.flow.hourglass.decoder.blocks."),
    (_FLOW + r"\.mask\.", "model.flow.mask_head."),
    (_FLOW + r"\.occlusion\.", "model.flow.occlusion_head."),
    (r"generator\.bottleneck\.r(\d+)\.", r"model.generator.bottleneck.\1."),
    (r"generator\.", "model.generator."),
    (r"region_predictor\.predictor\.encoder\.down_blocks\.", "model.detector.hourglass.encoder.blocks."),
    (r"region_predictor\.predictor\.decoder\.up_blocks\.", "model.detector.hourglass.decoder.blocks."),
    (r"region_predictor\.regions\.", "model.detector.heatmap_head."),
    (r"avd_network\.id_encoder\.", "model.avd.identity_encoder."),
    (r"avd_network\.", "model.avd."),
    (r"bg_predictor\.encoder\.down_blocks\.", "model.background.encoder.blocks."),
    (r"bg_predictor\.fc\.", "model.background.head."),
)
_DOWNSAMPLE_KERNELS = {
    "kp_detector.down.weight": "detector",
    "generator.dense_motion_network.down.weight": "flow",
    "region_predictor.down.weight": "detector",
    "generator.pixelwise_flow_predictor.down.weight": "flow",
}
LARGEST_KERNEL_DIFFERENCE = 1e-6


def load_published(
    model: MotionModel, discriminator: Discriminator | None, tensors: Mapping[str, Tensor], *, origin: str
) -> None:
    """Fill model and discriminator from tensors named `kp_detector.…`, `generator.…`, `bg_predictor.…`, ….

    Every tensor is accounted for: the fixed blur kernels are compared with ours, the discriminator's tensors are left
    out where there is no discriminator to take them, anything else missing or unknown raises WeightsError.
    """
    for name in _DOWNSAMPLE_KERNELS:
        if name in tensors:
            _check_kernel(model, name, tensors[name], origin)
    renamed = {
        rename(name, discriminator): tensor for name, tensor in tensors.items() if name not in _DOWNSAMPLE_KERNELS
    }
    fill(model, dict(_below("model.", renamed)), origin=origin)
    if discriminator is not None:
        fill(discriminator, dict(_below("discriminator.", renamed)), origin=origin)
    stray = [name for name in renamed if not name.startswith(("model.", "discriminator."))]
    if stray:
        raise WeightsError(f"{origin} holds tensors of no known part: {', '.join(stray[:3])}")


def rename(name: str, discriminator: Discriminator | None = None) -> str:
    """Our name of a published tensor, below `model.` or `discriminator.`; unknown names stay as they are."""
    for published, ours in _RULES:
        renamed, count = re.subn(f"^{published}", ours, name)
        if count:
            return renamed
    found = re.match(r"discriminator\.discs\.([^.]+)\.(down_blocks\.\d+|conv)\.(.*)$", name)
    if found and discriminator is None:
        return name
    if found and discriminator is not None:
        keys = [f"{scale:g}".replace(".", "-") for scale in discriminator.scales]
        if found[1] in keys:
            part = found[2].replace("down_blocks", "blocks") if found[2] != "conv" else "head"
            return f"discriminator.per_scale.{keys.index(found[1])}.{part}.{found[3]}"
    return name


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), tensor) for name, tensor in tensors.items() if name.startswith(prefix))


def _check_kernel(model: MotionModel, name: str, kernel: Tensor, origin: str) -> None:
    ours = model.get_buffer(f"{_DOWNSAMPLE_KERNELS[name]}.downsample.kernel")
    same_shape = ours.shape[-2:] == kernel.shape[-2:]
    if not same_shape or (torch.as_tensor(kernel).to(ours) - ours).abs().max() > LARGEST_KERNEL_DIFFERENCE:
        raise WeightsError(f"{origin}: {name} is no blur kernel of this model's scale; change model.*.scale")
