"""How near result images are to the true ones: L1, PSNR and SSIM, one number per image.

Everything is computed in float64, so that a score does not depend on how its sums round. Empty batches give no numbers.
What a frame's number is worth in the score of a clip or a dataset is for the caller to say (see metric_state.py).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hdam.models.structures import Image

PerImage = Float[Tensor, " batch"]
"""One number per image or frame, float64."""

PSNR_CAP = 100.0
"""dB, for images that are identical or nearly so. scikit-image, torchmetrics and FFmpeg say infinity, which would be
the mean of every clip with a single identical frame. One value of a 256² frame that is off by one of 256 levels gives
101 dB, so that no difference which can be seen is capped."""

WINDOW = 11
SIGMA = 1.5
STABILITY = (0.01**2, 0.03**2)
"""C1 = (K1 L)² and C2 = (K2 L)² for images in 0…L = 1 (Wang et al., 2004, section III-B)."""


def l1(result: Image, truth: Image) -> PerImage:
    """Mean absolute difference of images in 0…1, over pixels and colours; 0 is ideal."""
    return (result.double() - truth.double()).abs().mean(dim=(1, 2, 3))


def psnr(result: Image, truth: Image) -> PerImage:
    """Peak signal-to-noise ratio, −10 log₁₀ of the mean squared difference of images in 0…1, in dB, at most PSNR_CAP.

    The mean runs over pixels and colours. The mean over frames of this is not the PSNR of the mean error.
    """
    error = (result.double() - truth.double()).square().mean(dim=(1, 2, 3))
    return (-10 * error.log10()).clamp(max=PSNR_CAP)


def ssim(result: Image, truth: Image) -> PerImage:
    """Structural similarity of images in 0…1 (Wang et al., 2004), the mean of that of the three colours; 1 is ideal.

    Gaussian windows of 11×11 pixels, σ = 1.5, only where they lie within the image, and variances without Bessel's
    correction: as the authors' ssim.m, and as scikit-image with gaussian_weights=True, sigma=1.5, data_range=1,
    use_sample_covariance=False. Raises ValueError for images smaller than the window.
    """
    if min(result.shape[-2:]) < WINDOW:
        height, width = result.shape[-2:]
        raise ValueError(f"images of {height}×{width} pixels; SSIM needs at least {WINDOW}×{WINDOW}")
    a, b = result.double(), truth.double()
    mean_a, mean_b = _window_means(a), _window_means(b)
    variance_a = _window_means(a * a) - mean_a**2
    variance_b = _window_means(b * b) - mean_b**2
    covariance = _window_means(a * b) - mean_a * mean_b
    c1, c2 = STABILITY
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _window_means(image: Image) -> Float[Tensor, "batch 3 valid_height valid_width"]:
    """Gaussian-weighted mean of every window within the image: down the columns, then along the rows.

    Sums of shifted images, because convolutions in float64 take six times as long on a CPU.
    """
    means = image
    for axis in (2, 3):
        whole, length = means, means.shape[axis] - WINDOW + 1
        means = torch.zeros_like(whole.narrow(axis, 0, length))
        for start, weight in enumerate(_gaussian()):
            means.add_(whole.narrow(axis, start, length), alpha=weight)
    return means


def _gaussian() -> list[float]:
    """Weights of a window's rows, and of its columns; their sum is 1."""
    weights = [math.exp(-0.5 * ((position - WINDOW // 2) / SIGMA) ** 2) for position in range(WINDOW)]
    return [weight / sum(weights) for weight in weights]
