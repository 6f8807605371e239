"""The quickstart, shrunk to a few steps: every part is made, and made once."""

import io

import pytest
from PIL import Image
from rich.console import Console

from hdam.pipelines.media import open_media
from hdam.platform.quickstart import PuppetSettings, run_quickstart, show_quickstart
from hdam.platform.registry import load_model
from hdam.platform.showcase import NUM_CLIPS, cast_scenes

PUPPETS = PuppetSettings(num_clips=10, num_frames=8, test_share=0.3)
SHRUNK = {
    "optim.duration": "4 steps",
    "optim.milestones": [],
    "optim.batch_size": 4,
    "data.repeats": 4,
    "log.metrics_every": 2,
    "log.pictures_every": 4,
    "log.checkpoint_every": 4,
}


@pytest.mark.usefixtures("ray_session", "results")
def test_the_whole_road_once_and_then_from_memory(tmp_path):
    out, console = tmp_path / "out", Console(file=io.StringIO(), width=120)
    first = run_quickstart(out, console=console, settings=PUPPETS, changes=SHRUNK)
    assert first.trained.num_steps == 4
    assert first.trained.reconstruction.num_clips == 3
    assert load_model("models:/hdam-puppets@candidate").version == first.trained.model_version
    assert open_media(first.showcase.video).num_frames == PUPPETS.num_frames
    assert open_media(first.animation.out).num_frames == PUPPETS.num_frames
    sheet = Image.open(first.showcase.sheet)
    assert sheet.width > sheet.height > (2 * NUM_CLIPS - 1) * 64
    assert list(first.seconds) == ["puppets", "dataset", "training", "pictures"]

    made = {path: path.stat().st_mtime_ns for path in [*first.puppets.rglob("*"), *first.dataset.rglob("*")]}
    second = run_quickstart(out, console=console, settings=PUPPETS, changes=SHRUNK)
    assert second.trained.was_known
    assert second.trained.model_version == first.trained.model_version
    assert {path: path.stat().st_mtime_ns for path in made} == made

    show_quickstart(second, console)
    printed = console.file.getvalue()
    for path in (second.showcase.sheet, second.showcase.video, second.animation.structure[-1]):
        assert str(path) in printed
    check_scenes(str(first.dataset))


def check_scenes(dataset):
    scenes = cast_scenes(dataset, device="cpu")
    assert len(scenes) == 2 * NUM_CLIPS - 1
    own, crossed = scenes[:NUM_CLIPS], scenes[NUM_CLIPS:]
    for still, other in zip(own, crossed, strict=False):
        assert still.source is other.source
        assert still.driving.identity != other.driving.identity
