"""The metrics on real faces and bodies with the real detectors: the truth is ideal, and what is changed is worse."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from real_clips import read_clip, shifted

from hdam.platform.detection.body_environment import body_dir
from hdam.platform.evaluation.instruments import Instruments, available_instruments
from hdam.platform.evaluation.measure import Seen, measure
from hdam.platform.evaluation.metrics import METRICS
from hdam.platform.weights.fetch import get_weights

SIZE, NUM_FRAMES = 128, 4
IDEAL = {"psnr": 100.0, "ssim": 1.0}
"""Of the truth against itself; all others are 0."""
OF_IMAGES = ("l1", "psnr", "ssim", "lpips_alex")
CPU = torch.device("cpu")


class Kind(NamedTuple):
    """What is filmed."""

    clip: str
    other: str
    metrics: tuple[str, ...]


FACE = Kind("faces/lp_d0.mp4", "faces/moore_2.mp4", (*OF_IMAGES, "akd_face", "mkr_face", "aed"))
BODY = Kind("bodies/musepose_dance.mp4", "bodies/sam2_juggle.mp4", (*OF_IMAGES, "akd_body", "mkr_body"))


@pytest.fixture(scope="module")
def instruments(faces, body_folder, lpips_package, tmp_path_factory):
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("HDAM_WEIGHTS", str(tmp_path_factory.mktemp("weights")))
        changed.setenv("HDAM_DETECTORS", str(body_folder.parent))
        get_weights("lpips-alex", on_bytes=lambda done, total: None)
        with Instruments(CPU) as opened:
            yield opened


def means(result, truth, kind, instruments):
    metrics = [METRICS[name] for name in kind.metrics]
    scores = measure(Seen(result=result, source=truth[:1], truth=truth), metrics, instruments, device=CPU)
    assert list(scores) == list(kind.metrics)
    assert all(len(found.value) == len(truth) for found in scores.values())
    return {name: found.value[found.is_measured].mean().item() for name, found in scores.items()}


def blurred(frames):
    return np.stack([np.array(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(3))) for frame in frames])


@pytest.mark.parametrize("kind", [FACE, BODY], ids=["face", "body"])
def test_the_truth_is_ideal_and_other_clips_are_worse(instruments, clips, kind):
    truth = read_clip(clips, kind.clip, size=SIZE, num_frames=NUM_FRAMES, step=4)
    other = read_clip(clips, kind.other, size=SIZE, num_frames=NUM_FRAMES, step=4)
    own = means(truth, truth, kind, instruments)
    assert own == pytest.approx({name: IDEAL.get(name, 0.0) for name in kind.metrics}, abs=1e-6)
    for changed in (shifted(truth, right=8, down=0), blurred(truth), other):
        found = means(changed, truth, kind, instruments)
        for name in OF_IMAGES:
            worse = found[name] < own[name] if METRICS[name].better == "higher" else found[name] > own[name]
            assert worse, name
    akd = next(name for name in kind.metrics if name.startswith("akd"))
    # Half of the city-block distance: 8 pixels to the right are 4.
    assert means(shifted(truth, right=8, down=0), truth, kind, instruments)[akd] == pytest.approx(4, abs=1.2)
    assert means(other, truth, kind, instruments)[akd] > 4
    if "aed" in kind.metrics:
        same = means(truth[::-1].copy(), truth, kind, instruments)["aed"]
        assert means(other, truth, kind, instruments)["aed"] > 2 * same


def test_where_nothing_is_found_there_is_no_distance(instruments, clips):
    truth = read_clip(clips, FACE.clip, size=SIZE, num_frames=NUM_FRAMES, step=4)
    result = truth.copy()
    result[1] = 0
    metrics = [METRICS[name] for name in ("akd_face", "mkr_face", "aed", "found_face")]
    scores = measure(Seen(result=result, source=truth[:1], truth=truth), metrics, instruments, device=CPU)
    assert scores["akd_face"].is_measured.tolist() == scores["aed"].is_measured.tolist() == [True, False, True, True]
    assert scores["mkr_face"].value.tolist() == [0, 1, 0, 0]
    assert scores["found_face"].value.tolist() == [1, 0, 1, 1]


def test_across_identities_the_source_is_the_truth_of_the_identity(instruments, clips):
    truth = read_clip(clips, FACE.clip, size=SIZE, num_frames=2, step=4)
    other = read_clip(clips, FACE.other, size=SIZE, num_frames=1)
    metrics = [METRICS["aed_source"]]

    def aed(source):
        seen = Seen(result=truth, source=source, truth=None)
        return measure(seen, metrics, instruments, device=CPU)["aed_source"].value

    assert aed(truth[:1])[0].item() == 0
    assert (aed(other) > 2 * aed(truth[:1])[1]).all()


def test_a_still_picture_is_steady_and_flicker_is_not(optical_flow, clips):
    truth = read_clip(clips, FACE.clip, size=64, num_frames=5, step=4)
    flicker = truth.copy()
    flicker[1::2] = (flicker[1::2] * 0.8).astype(np.uint8)
    metrics = [METRICS["warp_error"]]
    with Instruments(CPU) as instruments:
        still, own, other = (
            measure(Seen(result=result, source=truth[:1], truth=true), metrics, instruments, device=CPU)["warp_error"]
            for result, true in ((truth[[0] * 5], truth[[0] * 5]), (truth, truth), (flicker, truth))
        )
    assert still.is_measured.tolist() == own.is_measured.tolist() == [False, *[True] * 4]
    assert still.value[1:].abs().max() < 1e-6
    assert other.value[1:].mean() > 3 * own.value[1:].mean()


def test_what_is_not_here_says_how_to_get_it(results, monkeypatch):
    monkeypatch.setenv("HDAM_WEIGHTS", str(results / "none"))
    monkeypatch.setenv("HDAM_DETECTORS", str(results / "none"))
    found = available_instruments()
    assert "hdam weights get lpips-alex" in found["lpips-alex"].remedy and not found["lpips-alex"].version
    assert "hdam detectors get body" in found["body"].remedy and str(body_dir()) in found["body"].reason
