"""Frames as bytes and back, alone and into a batch."""

import numpy as np
import pytest

from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import decode_frame, decode_into, encode_frame

SIZE = 48


def smooth_frame(seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
    return coarse.repeat(SIZE // 6, axis=0).repeat(SIZE // 6, axis=1)


@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_a_frame_decoded_into_a_batch_has_the_pixels_of_one_decoded_alone(codec):
    batch = np.zeros((4, SIZE, SIZE, 3), np.uint8)
    for seed, place in enumerate(batch):
        decode_into(encode_frame(smooth_frame(seed), codec), place)
    for seed, place in enumerate(batch):
        assert np.array_equal(place, decode_frame(encode_frame(smooth_frame(seed), codec)))
        assert np.abs(place.astype(int) - smooth_frame(seed)).mean() < 6


@pytest.mark.parametrize("codec", ["jpeg", "png"])
@pytest.mark.parametrize("harm", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:2] + b"x"])
def test_damaged_bytes_are_a_clear_error(codec, harm):
    data = harm(encode_frame(smooth_frame(0), codec))
    with pytest.raises(InputError, match="cannot be decoded"):
        decode_into(data, np.zeros((SIZE, SIZE, 3), np.uint8))


@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_a_frame_of_another_size_is_refused(codec):
    with pytest.raises(InputError, match="cannot be decoded"):
        decode_into(encode_frame(smooth_frame(0), codec), np.zeros((SIZE, SIZE // 2, 3), np.uint8))
