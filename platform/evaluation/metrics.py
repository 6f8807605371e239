"""The metrics that `hdam evaluate` knows: what each says, and what it needs.

Two protocols. `reconstruction`, as published: a held-out clip follows itself, its frame 0 being the source, with
absolute anchors. `cross`: frame 0 of another identity follows the clip, and so there is no truth to compare with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hdam.models.image_metrics import WINDOW
from hdam.models.lpips import SMALLEST_SIDE

Protocol = Literal["reconstruction", "cross"]
Instrument = Literal["lpips-alex", "lpips-vgg16", "face", "body", "identity", "flow"]
"""What a metric looks through: a network of LPIPS by its name in the folder of weights, a detector, or optical flow."""
Better = Literal["lower", "higher"]

RECONSTRUCTION: tuple[Protocol, ...] = ("reconstruction",)
CROSS: tuple[Protocol, ...] = ("cross",)
BOTH: tuple[Protocol, ...] = (*RECONSTRUCTION, *CROSS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One number per result frame, and how its mean over frames is read."""

    name: str
    title: str
    better: Better
    protocols: tuple[Protocol, ...]
    instrument: Instrument | None = None
    """None: it needs nothing beside the frames."""
    unit: str = ""
    decimals: int = 4
    least_side: int = 1
    """Pixels of the shorter side that frames must have."""

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↓" if self.better == "lower" else "↑"


def _lpips(network: Literal["alex", "vgg16"], title: str) -> Metric:
    return Metric(
        name=f"lpips_{network}",
        title=f"LPIPS, {title}",
        better="lower",
        protocols=RECONSTRUCTION,
        instrument="lpips-alex" if network == "alex" else "lpips-vgg16",
        least_side=SMALLEST_SIDE,
    )


def _pose(kind: Literal["face", "body"]) -> tuple[Metric, Metric]:
    akd = Metric(
        name=f"akd_{kind}",
        title=f"AKD, {kind}",
        better="lower",
        protocols=RECONSTRUCTION,
        instrument=kind,
        unit="px",
        decimals=3,
    )
    return akd, replace(akd, name=f"mkr_{kind}", title=f"MKR, {kind}", unit="", decimals=4)


_METRICS = (
    Metric(name="l1", title="L1", better="lower", protocols=RECONSTRUCTION),
    Metric(name="repeat_l1", title="L1 of repeating the source", better="lower", protocols=RECONSTRUCTION),
    Metric(name="psnr", title="PSNR", better="higher", protocols=RECONSTRUCTION, unit="dB", decimals=2),
    Metric(name="ssim", title="SSIM", better="higher", protocols=RECONSTRUCTION, least_side=WINDOW),
    _lpips("alex", "AlexNet"),
    _lpips("vgg16", "VGG-16"),
    *_pose("face"),
    *_pose("body"),
    Metric(name="aed", title="AED", better="lower", protocols=RECONSTRUCTION, instrument="identity"),
    Metric(name="aed_source", title="AED to the source", better="lower", protocols=CROSS, instrument="identity"),
    Metric(name="warp_error", title="Warp error", better="lower", protocols=BOTH, instrument="flow", decimals=5),
    Metric(name="found_face", title="Frames with a face", better="higher", protocols=BOTH, instrument="face"),
    Metric(name="found_body", title="Frames with a body", better="higher", protocols=BOTH, instrument="body"),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _METRICS}
"""By name, in the order of the tables."""
