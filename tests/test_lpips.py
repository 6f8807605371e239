"""LPIPS against a second implementation in numpy, against numbers of the published one, and on real clips."""

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from real_frames import blurred, first_frames, shifted
from safetensors.torch import save_file
from weights_files import full_content, get, write_pickle

from hdam.models.lpips import LPIPS_LAYOUTS, Lpips
from hdam.models.lpips_weights import LPIPS_BODIES, read_lpips
from hdam.models.weights import WeightsError, load_lpips

# One row a convolution, as torchvision lists them: (stride, padding, pooling before it, whether LPIPS compares it).
ALEXNET = [(4, 2, 0, True), (1, 2, 3, True), (1, 1, 3, True), (1, 1, 0, True), (1, 1, 0, True)]
VGG16 = [(1, 1, 2 * (i in (2, 4, 7, 10)), i in (1, 3, 6, 9, 12)) for i in range(13)]
NETWORKS = {"lpips-alex": ALEXNET, "lpips-vgg16": VGG16}


def windows(maps, side, stride):
    """[height, width, channel] as [height, width, side, side, channel]."""
    return sliding_window_view(maps, (side, side), axis=(0, 1))[::stride, ::stride].transpose(0, 1, 3, 4, 2)


def features(image, content, network):
    """Unit-length features of the compared layers, in float64; image [height, width, 3] in 0…1."""
    out = (2 * image - 1 - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
    for position, (stride, padding, pool, is_compared) in enumerate(NETWORKS[network]):
        layer = content[LPIPS_BODIES[network]][f"Conv_{position}"]
        if pool:
            out = windows(out, pool, 2).max(axis=(2, 3))
        out = np.pad(out, ((padding, padding), (padding, padding), (0, 0)))
        kernel = layer["kernel"].astype(np.float64)
        out = np.tensordot(windows(out, len(kernel), stride), kernel, axes=3) + layer["bias"]
        out = np.maximum(out, 0)
        if is_compared:
            yield out / (np.sqrt((out**2).sum(-1, keepdims=True)) + 1e-10)


def by_numpy(a, b, content, network):
    pairs = zip(*(features(image, content, network) for image in (a, b)), strict=True)
    return sum(
        ((p - q) ** 2 @ content[f"NetLinLayer_{position}"]["Conv_0"]["kernel"][0, 0]).mean()
        for position, (p, q) in enumerate(pairs)
    )


@pytest.fixture(scope="module", params=NETWORKS)
def made_up(request, tmp_path_factory):
    """A network with random weights, and the arrays of its pickle."""
    content = full_content(request.param)
    path = write_pickle(tmp_path_factory.mktemp("lpips") / "made_up.ckpt", content)
    save_file(read_lpips(path, request.param), path.with_name("made_up.safetensors"))
    return request.param, load_lpips(request.param, path.with_name("made_up.safetensors")), content


def test_as_computed_by_numpy(made_up):
    network, model, content = made_up
    a, b = torch.rand(2, 2, 3, 37, 44, generator=torch.Generator().manual_seed(1))
    b[1] = (a[1] + 0.1 * b[1]).clamp(0, 1)
    found = model(a, b)
    arrays = [images.double().permute(0, 2, 3, 1).numpy() for images in (a, b)]
    expected = [by_numpy(p, q, content, network) for p, q in zip(*arrays, strict=True)]
    assert found.dtype == torch.float64 and found.tolist() == pytest.approx(expected, rel=1e-5)
    assert expected[0] > expected[1] > 1e-3


def test_ideal_symmetric_and_empty(made_up):
    _, model, _ = made_up
    a, b = torch.rand(2, 1, 3, 32, 48, generator=torch.Generator().manual_seed(2))
    assert model(a, a).item() == 0 and model(a, b).item() == pytest.approx(model(b, a).item(), rel=1e-12) != 0
    assert model(a[:0], b[:0]).shape == (0,)
    black = torch.zeros(1, 3, 32, 32)
    assert torch.isfinite(model(black, 1 - black)).all()
    with pytest.raises(ValueError, match="images of 32×31 pixels; LPIPS needs at least 32×32"):
        model(black[..., 1:], black[..., 1:])
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not model.training


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(Lpips("lpips-alex").state_dict(), tmp_path / "alex.safetensors")
    with pytest.raises(WeightsError, match=r"alex\.safetensors does not fit this model: missing features\.2\.weight"):
        load_lpips("lpips-vgg16", tmp_path / "alex.safetensors")


@pytest.fixture(scope="module", params=LPIPS_LAYOUTS)
def real(request, tmp_path_factory, lpips_package):
    """The published network, where the package that brings it is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HDAM_WEIGHTS", str(tmp_path_factory.mktemp("weights")))
        return request.param, load_lpips(request.param, get(request.param)[0].path)


def pattern(phase):
    """Coloured waves, the same on every machine."""
    y, x, channel = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in (64, 64, 3)), indexing="ij")
    return (0.5 + 0.5 * torch.sin(x / 5 + channel + phase) * torch.cos(y / 7 - channel)).permute(2, 0, 1)[None].float()


PUBLISHED = {"lpips-alex": (0.06458542, 0.16195813), "lpips-vgg16": (0.29667878, 0.72140187)}
"""What the code and the heads of the package `lpips` 0.1.4 (normalize=True) say of phases 0 and 1, and of 0 and 3."""


def test_as_the_published_package(real):
    network, model = real
    found = [model(pattern(0), pattern(phase)).item() for phase in (1, 3)]
    assert found == pytest.approx(PUBLISHED[network], rel=1e-4)


def test_real_clips(real, clips):
    _, model = real
    face = first_frames(clips / "faces" / "lp_d0.mp4", count=1, size=128)
    body = first_frames(clips / "bodies" / "musepose_dance.mp4", count=1, size=128)
    for truth, other in ((face, body), (body, face)):
        near, far = (model(shifted(truth, pixels), truth).item() for pixels in (2, 8))
        soft, swapped = model(blurred(truth), truth).item(), model(other, truth).item()
        assert model(truth, truth).item() == 0 < near < far < swapped and 0 < soft < swapped
