"""What the user of `prepare` decides, checked."""

import re
from dataclasses import asdict, dataclass
from typing import get_args

from PIL import ImageColor

from hdam.pipelines.encode import EncodeOptions
from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import Codec
from hdam.pipelines.transform import Fit


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareOptions:
    """How clips become rows. Raises InputError for a value that makes no sense."""

    size: int
    """Side of the square frames, in pixels."""
    fit: Fit = "crop"
    """How a rectangle becomes a square: its middle, or all of it with background beside it."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB behind transparent pixels and in the padding."""
    codec: Codec = "jpeg"
    """`jpeg`: q95 4:4:4; `png`: lossless."""
    test_share: float = 0.1
    """Share of the identities without a split in the table that is held out for testing; 0: none."""
    max_chunk_frames: int = 64
    """Frames per row at most; longer clips become interleaved chunks."""
    min_frames: int = 2
    """Shorter clips are rejected."""
    max_frames: int | None = None
    """Only this many frames of each clip, after its trim; None: all."""
    seed: int = 0
    """Decides the split and the order of the rows."""

    def __post_init__(self) -> None:
        for ok, name, expected in (
            (self.size >= 8, "size", "at least 8 pixels"),
            (self.fit in get_args(Fit), "fit", " or ".join(get_args(Fit))),
            (self.codec in get_args(Codec), "codec", " or ".join(get_args(Codec))),
            (len(self.background) == 3 and all(0 <= c <= 255 for c in self.background), "background", "0…255 each"),
            (0 <= self.test_share < 1, "test_share", "at least 0 and less than 1"),
            (self.max_chunk_frames >= 2, "max_chunk_frames", "at least 2"),
            (self.min_frames >= 1, "min_frames", "at least 1"),
            (self.max_frames is None or self.max_frames >= self.min_frames, "max_frames", "at least min_frames"),
        ):
            if not ok:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    def encode_options(self) -> EncodeOptions:
        """The part that shapes a single clip."""
        return EncodeOptions(**{name: getattr(self, name) for name in EncodeOptions._fields})

    def recorded(self) -> dict[str, object]:
        """As the manifest has it, and as it is read back from JSON."""
        return {**asdict(self), "background": list(self.background)}


def parse_colour(text: str) -> tuple[int, int, int]:
    """RGB of '#rrggbb' or of a colour's name in CSS. Raises InputError for anything else."""
    try:
        colour = ImageColor.getrgb(text.strip())
    except ValueError:
        colour = (0, 0, 0, 0)
    if len(colour) == 3:
        return colour
    raise InputError(f"background is {text!r}; expected '#rrggbb' or a colour's name, such as white")


def dataset_name(text: str) -> str:
    """`text` in lower case letters, digits and hyphens: fit for the name of a registered model."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "dataset"
