"""The pickles of VGG-16 and AlexNet: their arrays are turned to torch's axes and names, and nothing in them is run."""

import os
import pickle

import numpy as np
import pytest
from weights_files import full_content, lpips_content, write_pickle

from hdam.models.lpips import LPIPS_LAYOUTS, lpips_shapes
from hdam.models.lpips_weights import LPIPS_BODIES, VGG16_CONVOLUTIONS, read_lpips, read_vgg16
from hdam.models.perceptual import vgg_shapes
from hdam.models.weights import WeightsError


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_kernels_are_turned_to_torchs_axes_and_names(tmp_path, protocol):
    content = lpips_content((4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16))
    tensors = read_vgg16(write_pickle(tmp_path / "vgg16.ckpt", content, protocol))
    assert len(tensors) == 26 and set(vgg_shapes("vgg16")) <= set(tensors)
    for position, index in enumerate(VGG16_CONVOLUTIONS):
        kernel, bias = content["VGG16_0"][f"Conv_{position}"].values()
        found = tensors[f"features.{index}.weight"]
        assert found.is_contiguous() and found.shape == kernel.shape[::-1]
        assert found[3, 2, 1, 0] == kernel[1, 0, 2, 3]
        assert np.array_equal(found.numpy(), kernel.transpose(3, 2, 0, 1))
        assert np.array_equal(tensors[f"features.{index}.bias"].numpy(), bias)


class Malicious:
    """Runs a command where it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    ("function", "named"), [(os.system, "system"), (eval, "eval"), (np.load, "load")], ids=["system", "eval", "load"]
)
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, function, named, protocol):
    payload = tmp_path / "was_run"
    command = f"touch {payload}" if function is os.system else f"open({str(payload)!r}, 'w')"
    content = lpips_content((4,) * 13) | {"more": Malicious(function, command)}
    path = write_pickle(tmp_path / "vgg16.ckpt", content, protocol)
    with pytest.raises(WeightsError, match=rf"vgg16\.ckpt: .*it names \w+\.{named}, where only numpy arrays") as told:
        read_vgg16(path)
    assert "\n" not in str(told.value)
    assert not payload.exists()
    if function is os.system:
        pickle.loads(path.read_bytes())
        assert payload.exists(), "a plain unpickler does run it"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "expected a dictionary of arrays, found list"),
        ({"VGG19_0": {}}, "at VGG16_0/Conv_0"),
        ({"VGG16_0": {"Conv_0": {"kernel": 3, "bias": 4}}}, "at VGG16_0/Conv_0"),
        ({"VGG16_0": {"Conv_0": {"kernel": np.zeros(3), "bias": np.zeros(3)}}}, "at VGG16_0/Conv_0"),
        ({"VGG16_0": {"Conv_0": {"kernel": np.array(["a"]), "bias": np.zeros(3)}}}, "at VGG16_0/Conv_0"),
        ({"VGG16_0": np.zeros(3)}, "at VGG16_0/Conv_0"),
        (lpips_content((4,) * 12), "at VGG16_0/Conv_12"),
    ],
)
def test_a_pickle_of_another_layout_is_refused(tmp_path, content, message):
    with pytest.raises(WeightsError, match=message):
        read_vgg16(write_pickle(tmp_path / "vgg16.ckpt", content))


@pytest.mark.parametrize("network", LPIPS_LAYOUTS)
def test_networks_of_lpips_come_with_their_heads(tmp_path, network):
    content = full_content(network)
    tensors = read_lpips(write_pickle(tmp_path / "some.ckpt", content), network)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == lpips_shapes(network)
    last = LPIPS_LAYOUTS[network][-1].number
    kernel = content[LPIPS_BODIES[network]][f"Conv_{len(LPIPS_LAYOUTS[network]) - 1}"]["kernel"]
    assert tensors[f"features.{last}.weight"][3, 2, 1, 0] == kernel[1, 0, 2, 3]
    assert np.array_equal(tensors["heads.4.weight"].flatten(), content["NetLinLayer_4"]["Conv_0"]["kernel"].flatten())


@pytest.mark.parametrize("network", LPIPS_LAYOUTS)
def test_networks_of_lpips_without_all_heads_are_refused(tmp_path, network):
    content = full_content(network)
    del content["NetLinLayer_3"]
    with pytest.raises(WeightsError, match=r"expected an array of numbers at NetLinLayer_3/Conv_0/kernel"):
        read_lpips(write_pickle(tmp_path / "some.ckpt", content), network)
    other = ({"lpips-alex", "lpips-vgg16"} - {network}).pop()
    with pytest.raises(WeightsError, match=f"at {LPIPS_BODIES[other]}/Conv_0/kernel"):
        read_lpips(tmp_path / "some.ckpt", other)


def test_noise_is_no_pickle(tmp_path):
    for content in (b"", b"noise", pickle.dumps(lpips_content((4,) * 13), protocol=3)[:-1000]):
        (tmp_path / "vgg16.ckpt").write_bytes(content)
        with pytest.raises(WeightsError, match=r"vgg16\.ckpt: not readable as a pickle of arrays"):
            read_vgg16(tmp_path / "vgg16.ckpt")
