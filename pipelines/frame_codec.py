"""Frames and label maps as bytes: what a shard holds in place of pixels."""

import io
import struct
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hdam.pipelines.errors import InputError, first_line

Pixels = NDArray[np.uint8]
"""uint8 [height, width, 3] RGB, or [height, width] for a label map."""

Codec = Literal["jpeg", "png"]
"""`jpeg`: quality 95 without chroma subsampling; `png`: lossless."""

BROKEN_IMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on damaged files (SyntaxError: a broken PNG chunk; IndexError: a GIF cut within a header)."""

JPEG_START = b"\xff\xd8"

_WHICH = "'hdam data verify' names it"


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
    """The uint8 [height, width, 3] RGB frame that `encode_frame` put into `data`; a fresh, writable array.

    Raises InputError when `data` is damaged.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except BROKEN_IMAGE as error:
        raise InputError(f"a frame cannot be decoded ({why_broken(error)}); {_WHICH}") from error


def decode_into(data: bytes, frame: Pixels) -> None:
    """Decode what `encode_frame` made into `frame`, uint8 [height, width, 3] of the same size, contiguous.

    The pixels are those of `decode_frame`; a JPEG takes little more than half the time, as nothing is copied.
    Raises InputError when `data` is damaged or of another size.
    """
    try:
        if data[:2] == JPEG_START:
            if simplejpeg.decode_jpeg_header(data)[:2] != frame.shape[:2]:
                raise ValueError(f"not the {frame.shape[1]}x{frame.shape[0]} pixels that were expected")
            simplejpeg.decode_jpeg(data, "RGB", buffer=frame)
            return
        with Image.open(io.BytesIO(data)) as image:
            frame[:] = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except BROKEN_IMAGE as error:
        raise InputError(f"a frame cannot be decoded ({why_broken(error)}); {_WHICH}") from error


def encode_mask(mask: Pixels) -> bytes:
    """A uint8 [height, width] label map as PNG, every label kept."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(mask)).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def decode_mask(data: bytes) -> Pixels:
    """The uint8 [height, width] label map that `encode_mask` put into `data`; InputError when it is damaged."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image)
    except BROKEN_IMAGE as error:
        raise InputError(f"a part mask cannot be decoded ({why_broken(error)}); {_WHICH}") from error


def why_broken(error: BaseException) -> str:
    """Why Pillow refused some bytes, in words that don't name the buffer they lay in."""
    return "no image at all" if isinstance(error, UnidentifiedImageError) else first_line(error)
