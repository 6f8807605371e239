"""Frames and label maps as bytes: what a shard holds in place of pixels."""

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""uint8 [height, width, 3] RGB, or [height, width] for a label map."""

Codec = Literal["jpeg", "png"]
"""`jpeg`: quality 95 without chroma subsampling; `png`: lossless."""


def encode_frame(frame: Pixels, codec: Codec) -> bytes:
    """`frame` (uint8 [height, width, 3] RGB) as JPEG q95 4:4:4 or as PNG."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(frame))
    if codec == "jpeg":
        # Chroma at full resolution: at 64 pixels, 4:2:0 would leave 32 pixels of colour.
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def decode_frame(data: bytes) -> Pixels:
    """The uint8 [height, width, 3] RGB frame that `encode_frame` put into `data`; a fresh, writable array."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def encode_mask(mask: Pixels) -> bytes:
    """A uint8 [height, width] label map as PNG, every label kept."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(mask)).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def decode_mask(data: bytes) -> Pixels:
    """The uint8 [height, width] label map that `encode_mask` put into `data`."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)
