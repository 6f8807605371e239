"""The metrics that `hdam evaluate` knows: what each says, and what it needs.

Two protocols. `reconstruction`, as published: a held-out clip follows itself, its frame 0 being the source, with
absolute anchors. `cross`: frame 0 of another identity follows the clip, and so there is no truth to compare with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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


_METRICS = (
    Metric(name="l1", title="L1", better="lower", protocols=RECONSTRUCTION),
    Metric(name="repeat_l1", title="L1 of repeating the source", better="lower", protocols=RECONSTRUCTION),
    Metric(name="psnr", title="PSNR", better="higher", protocols=RECONSTRUCTION, unit="dB", decimals=2),
    Metric(name="ssim", title="SSIM", better="higher", protocols=RECONSTRUCTION, least_side=WINDOW),
    Metric(
        name="lpips_alex",
        title="LPIPS, AlexNet",
        better="lower",
        protocols=RECONSTRUCTION,
        instrument="lpips-alex",
        least_side=SMALLEST_SIDE,
    ),
    Metric(
        name="lpips_vgg16",
        title="LPIPS, VGG-16",
        better="lower",
        protocols=RECONSTRUCTION,
        instrument="lpips-vgg16",
        least_side=SMALLEST_SIDE,
    ),
    Metric(
        name="akd_face",
        title="AKD, face",
        better="lower",
        protocols=RECONSTRUCTION,
        instrument="face",
        unit="px",
        decimals=3,
    ),
    Metric(name="mkr_face", title="MKR, face", better="lower", protocols=RECONSTRUCTION, instrument="face"),
    Metric(
        name="akd_body",
        title="AKD, body",
        better="lower",
        protocols=RECONSTRUCTION,
        instrument="body",
        unit="px",
        decimals=3,
    ),
    Metric(name="mkr_body", title="MKR, body", better="lower", protocols=RECONSTRUCTION, instrument="body"),
    Metric(name="aed", title="AED", better="lower", protocols=RECONSTRUCTION, instrument="identity"),
    Metric(name="aed_source", title="AED to the source", better="lower", protocols=CROSS, instrument="identity"),
    Metric(name="warp_error", title="Warp error", better="lower", protocols=BOTH, instrument="flow", decimals=5),
    Metric(name="found_face", title="Frames with a face", better="higher", protocols=BOTH, instrument="face"),
    Metric(name="found_body", title="Frames with a body", better="higher", protocols=BOTH, instrument="body"),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _METRICS}
"""By name, in the order of the tables."""
