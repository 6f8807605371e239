"""L1, PSNR and SSIM against windows computed one by one, closed forms, and real clips that were made worse."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from real_frames import blurred, first_frames, shifted

from hdam.models.image_metrics import PSNR_CAP, l1, psnr, ssim

METRICS = {l1: (0.0, 1), psnr: (PSNR_CAP, -1), ssim: (1.0, -1)}
"""The ideal score of each, and the direction in which it gets worse."""


def picture(seed, height=16, width=18):
    """A smooth random picture in 0…1, as a batch of one."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(height, width), mode="bilinear")


def constant(*levels):
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 16, 16)


def ssim_by_windows(a, b):
    """Wang et al. (2004), equations 13 to 17, one window after the other; images [3, height, width]."""
    weights = np.array([[math.exp(-(x * x + y * y) / (2 * 1.5**2)) for x in range(-5, 6)] for y in range(-5, 6)])
    weights /= weights.sum()
    found = []
    for channel in range(3):
        for top in range(a.shape[1] - 10):
            for left in range(a.shape[2] - 10):
                p, q = (image[channel, top : top + 11, left : left + 11] for image in (a, b))
                mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
                variance_p, variance_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
                covariance = (weights * (p - mean_p) * (q - mean_q)).sum()
                found.append(
                    (2 * mean_p * mean_q + 0.0001) / (mean_p**2 + mean_q**2 + 0.0001)
                    * (2 * covariance + 0.0009) / (variance_p + variance_q + 0.0009)
                )  # fmt: skip
    return np.mean(found)


@pytest.mark.parametrize(("height", "width"), [(11, 11), (13, 16)])
def test_ssim_is_the_mean_over_windows(height, width):
    a, b = torch.rand(2, 4, 3, height, width, generator=torch.Generator().manual_seed(1))
    b[1], b[2], b[3] = a[1], 0.7 * a[2] + 0.2, 1 - a[3]
    expected = [ssim_by_windows(p, q) for p, q in zip(a.double().numpy(), b.double().numpy(), strict=True)]
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-12)
    assert expected[3] < expected[0] < expected[2] < expected[1] == pytest.approx(1)


def test_ssim_of_constant_images_compares_their_luminance():
    expected = [(2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4), 1e-4 / (1 + 1e-4)]
    assert ssim(constant(0.2, 0.0), constant(0.6, 1.0)).tolist() == pytest.approx(expected, rel=1e-6)


def test_l1_and_psnr_by_hand():
    truth = constant(0.25, 0.25, 0.0)
    result = truth.clone()
    result[0, 0] += 0.5
    result[1] += 0.125
    result[2] = 1.0
    assert l1(result, truth).tolist() == pytest.approx([0.5 / 3, 0.125, 1.0])
    assert psnr(result, truth).tolist() == pytest.approx([10 * math.log10(12), 20 * math.log10(8), 0.0])


def test_psnr_is_capped_where_nothing_can_be_seen():
    truth = torch.zeros(1, 3, 256, 256)
    result = truth.clone()
    result[0, 1, 100, 100] = 2 / 255
    assert psnr(result, truth).item() == pytest.approx(10 * math.log10(3 * 256**2 * (255 / 2) ** 2))
    result[0, 1, 100, 100] = 0.5 / 255
    assert psnr(result, truth).item() == psnr(truth, truth).item() == PSNR_CAP


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=25, deadline=None)
@given(seeds=st.tuples(st.integers(0, 99), st.integers(100, 199)), noise=st.floats(0.01, 0.5))
def test_the_truth_is_ideal_and_all_else_is_worse(metric, seeds, noise):
    ideal, worse = METRICS[metric]
    truth, other = (picture(seed) for seed in seeds)
    assert metric(truth, truth).item() == pytest.approx(ideal, abs=1e-9)
    noisy = truth + noise * (torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)) - 0.5)
    for result in (other, noisy, shifted(truth, 2), blurred(truth), 1 - truth):
        assert worse * metric(result, truth).item() > worse * ideal
        assert metric(result, truth).item() == pytest.approx(metric(truth, result).item(), rel=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_images_of_a_batch_are_scored_one_by_one(metric):
    a, b = torch.cat([picture(seed) for seed in range(3)]), torch.cat([picture(seed) for seed in range(10, 13)])
    found = metric(a, b)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([metric(p[None], q[None]).item() for p, q in zip(a, b, strict=True)])
    assert metric(a[:0], b[:0]).shape == (0,)


def test_images_smaller_than_a_window_are_refused():
    with pytest.raises(ValueError, match="images of 10×40 pixels; SSIM needs at least 11×11"):
        ssim(torch.zeros(1, 3, 10, 40), torch.zeros(1, 3, 10, 40))


@pytest.mark.parametrize("metric", METRICS)
def test_real_clips(metric, clips):
    ideal, worse = METRICS[metric]
    face, body = first_frames(clips / "faces" / "lp_d0.mp4"), first_frames(clips / "bodies" / "musepose_dance.mp4")
    for truth, other in ((face, body), (body, face)):
        assert metric(truth, truth).tolist() == pytest.approx([ideal] * len(truth), abs=1e-9)
        near, far, soft, swapped = (
            worse * metric(result, truth) for result in (shifted(truth, 2), shifted(truth, 8), blurred(truth), other)
        )
        assert (worse * ideal < near).all() and (near < far).all() and (far < swapped).all()
        assert (worse * ideal < soft).all() and (soft < swapped).all()
