"""The numbers of one clip: for every metric one per result frame."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdam.models.image_metrics import PerImage, l1, psnr, ssim
from hdam.models.joint_metrics import (
    Embeddings,
    FrameScores,
    Joints,
    embedding_distance,
    found_share,
    keypoint_distance,
    missing_rate,
)
from hdam.models.structures import Image
from hdam.models.temporal_metrics import warp_error
from hdam.platform.detection.detector import Detections
from hdam.platform.detection.detector import Embeddings as FaceEmbeddings
from hdam.platform.evaluation.instruments import Instruments
from hdam.platform.evaluation.metrics import Metric
from hdam.platform.evaluation.painting import Frames, pieces
from hdam.platform.images import frames_to_images


class Seen(NamedTuple):
    """What is measured; frames as in files, equally many of each."""

    result: Frames
    source: Frames
    """Frame 0 of the source clip alone."""
    truth: Frames | None
    """None across identities."""


Scores = Mapping[str, FrameScores]
"""By metric; one number per result frame, float64 on the CPU."""


def measure(seen: Seen, metrics: Sequence[Metric], instruments: Instruments, *, device: torch.device) -> Scores:
    """All `metrics` of one clip. Raises InputError where an instrument is not here or stops working."""
    names = [metric.name for metric in metrics]
    found: dict[str, FrameScores] = {}
    for measured in (
        _measure_images(seen, names, instruments, device),
        _measure_joints(seen, names, "face", instruments),
        _measure_joints(seen, names, "body", instruments),
        _measure_identity(seen, names, instruments),
        _measure_steadiness(seen, names, instruments),
    ):
        found |= measured
    return {name: found[name] for name in names}


def _measure_images(
    seen: Seen, names: Sequence[str], instruments: Instruments, device: torch.device
) -> dict[str, FrameScores]:
    if seen.truth is None:
        return {}
    compare: dict[str, Callable[[Image, Image], PerImage]] = {"l1": l1, "psnr": psnr, "ssim": ssim}
    for name, network in (("lpips_alex", "lpips-alex"), ("lpips_vgg16", "lpips-vgg16")):
        if name in names:
            compare[name] = instruments.lpips(network)
    found = {name: _over_pieces(seen.result, seen.truth, compare[name], device) for name in names if name in compare}
    if "repeat_l1" in names:
        still = np.broadcast_to(seen.source, seen.truth.shape)
        found["repeat_l1"] = _over_pieces(still, seen.truth, l1, device)
    return found


@torch.no_grad()
def _over_pieces(
    result: Frames, truth: Frames, compare: Callable[[Image, Image], PerImage], device: torch.device
) -> FrameScores:
    values = [
        compare(frames_to_images(some, device), frames_to_images(true, device)).cpu()
        for some, true in zip(pieces(result), pieces(truth), strict=True)
    ]
    return _all_measured(torch.cat(values))


def _measure_joints(
    seen: Seen, names: Sequence[str], kind: Literal["face", "body"], instruments: Instruments
) -> dict[str, FrameScores]:
    wanted = {f"akd_{kind}", f"mkr_{kind}", f"found_{kind}"}.intersection(names)
    if not wanted:
        return {}
    detector = instruments.detector(kind)
    result = _joints(detector.detect(seen.result))
    found = {f"found_{kind}": _all_measured(found_share(result))}
    if seen.truth is not None and wanted != {f"found_{kind}"}:
        truth = _joints(detector.detect(seen.truth))
        found[f"akd_{kind}"] = keypoint_distance(result, truth)
        found[f"mkr_{kind}"] = _all_measured(missing_rate(result, truth))
    return found


def _measure_identity(seen: Seen, names: Sequence[str], instruments: Instruments) -> dict[str, FrameScores]:
    name = "aed_source" if seen.truth is None else "aed"
    if name not in names:
        return {}
    embedder = instruments.embedder()
    result = _embeddings(embedder.embed(seen.result))
    if seen.truth is not None:
        return {name: embedding_distance(result, _embeddings(embedder.embed(seen.truth)))}
    source = _embeddings(embedder.embed(seen.source))
    repeated = Embeddings(source.vector.expand(len(seen.result), -1), source.is_found.expand(len(seen.result)))
    return {name: embedding_distance(result, repeated)}


def _measure_steadiness(seen: Seen, names: Sequence[str], instruments: Instruments) -> dict[str, FrameScores]:
    """Across identities there is no true video, so that the flow is that of the result."""
    if "warp_error" not in names:
        return {}
    flows = instruments.flow().estimate(seen.result if seen.truth is None else seen.truth)
    images = frames_to_images(seen.result, torch.device("cpu"))
    scores = warp_error(
        images[1:],
        images[:-1],
        to_previous=torch.from_numpy(flows.to_previous),
        to_current=torch.from_numpy(flows.to_current),
    )
    first_value, first_measured = torch.full((1,), torch.nan, dtype=torch.float64), torch.zeros(1, dtype=torch.bool)
    return {
        "warp_error": FrameScores(
            torch.cat([first_value, scores.value]), torch.cat([first_measured, scores.is_measured])
        )
    }


def _joints(found: Detections) -> Joints:
    return Joints(torch.from_numpy(found.joints), torch.from_numpy(found.found))


def _embeddings(found: FaceEmbeddings) -> Embeddings:
    return Embeddings(torch.from_numpy(found.vectors), torch.from_numpy(found.found))


def _all_measured(values: Tensor) -> FrameScores:
    return FrameScores(values.double(), torch.ones(len(values), dtype=torch.bool))
