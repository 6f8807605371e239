"""RegionMM on real Ray and MLflow: regions, then their AVD network, then the model that is registered and animated."""

import json
from pathlib import Path

import pytest
import torch
from local_store import keep_results_in
from small_training import NUM_FRAMES, SIZE, small_training

from hdam.pipelines.errors import InputError
from hdam.pipelines.media import read_frames
from hdam.platform.animate import animate
from hdam.platform.checkpoints import newest_checkpoint, read_checkpoint
from hdam.platform.registry import load_model, show_model
from hdam.platform.train import train

CHANGES = {
    "model.family": "regionmm",
    "model.anchors": {"num_motion": 3, "num_intermediate": 0, "has_root": False},
    "losses.equivariance_image": "driving",
    "losses.perceptual.augmented_weight": 0.0,
    "optim.duration": "8 steps",
    "optim.detector_clip": 0.0,
    "resources.workers": 1,
    "log.checkpoint_every": 4,
}
WITH_AVD = CHANGES | {"model.has_avd": True, "avd.duration": "12 steps", "avd.milestones": ["10 steps"]}


pytestmark = pytest.mark.whole


@pytest.fixture(scope="module", autouse=True)
def results(tmp_path_factory, ray_session):
    with pytest.MonkeyPatch.context() as patch:
        yield keep_results_in(tmp_path_factory.mktemp("regionmm") / "results", patch)


@pytest.fixture(scope="module")
def regions(dataset):
    return train(small_training(dataset, CHANGES))


@pytest.fixture(scope="module")
def with_avd(dataset, regions):
    return train(small_training(dataset, WITH_AVD))


def test_regions_are_used_again_and_stay_as_they_were(regions, with_avd):
    assert [(stage.kind, stage.was_known) for stage in with_avd.stages] == [
        ("regionmm", True),
        ("avd", False),
        ("evaluate", False),
    ]
    before, after = (read_checkpoint(newest_checkpoint(report.training_dir))["model"] for report in (regions, with_avd))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    fresh = set(after) - set(before)
    assert fresh and all(name.startswith("avd.") for name in fresh)
    growth = json.loads((with_avd.training_dir / "growth.json").read_text())
    assert set(growth["fresh"]) == fresh and set(growth["copied"]) == set(before) and not growth["grown"]
    assert with_avd.num_steps == 12 and with_avd.losses.keys() == {"total", "avd_position", "avd_affine"}


def test_both_are_registered_as_what_they_are(regions, with_avd):
    for report in (regions, with_avd):
        assert show_model(report.model_name).versions[0].tags["variant"] == "regionmm"
        assert report.reconstruction.num_clips == 2
    assert regions.reconstruction == with_avd.reconstruction  # the published protocol goes without AVD
    assert load_model(with_avd.model_uri).model.avd is not None


@pytest.mark.parametrize("mode", ["relative", "absolute", "avd"])
def test_it_animates_by_the_same_command(dataset, with_avd, tmp_path, mode):
    videos, out = Path(dataset).parent / "videos", tmp_path / "out.mp4"
    source, driving = videos / "clip0" / "000.png", videos / "clip1"
    report = animate(load_model(with_avd.model_uri), source=source, driving=driving, out=out, mode=mode, structure=True)
    frames = list(read_frames(out))
    assert report.num_frames == len(frames) == NUM_FRAMES and frames[0].shape == (SIZE, SIZE, 3)
    assert all(path.exists() for path in report.structure)


def test_without_the_network_the_mode_is_refused(regions, tmp_path):
    loaded = load_model(regions.model_uri)
    with pytest.raises(
        InputError, match=r"--mode avd: models:/.* has no AVD network; train one with model.has_avd: true"
    ):
        animate(loaded, source=tmp_path / "x.png", driving=tmp_path / "y.mp4", out=tmp_path / "z.mp4", mode="avd")
