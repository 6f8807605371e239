"""Animation: every driving frame becomes a frame of the result, at its speed and with its sound."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media_files import moving_square, write_video
from PIL import Image
from small_models import SIZE, small_model

from hdam.pipelines.errors import InputError
from hdam.pipelines.media import open_media, read_frames, read_image
from hdam.platform.animate import NUM_PICTURES, Moment, MomentPicture, View, animate, as_image, moments, read_still
from hdam.platform.images import images_to_frames


@pytest.fixture(scope="module")
def loaded():
    return small_model()


@pytest.fixture
def still(tmp_path):
    path = tmp_path / "still.png"
    Image.fromarray(moving_square(1, height=50, width=70, seed=3)[0]).save(path)
    return path


@pytest.fixture
def driving(tmp_path):
    return write_video(tmp_path / "driving.mp4", moving_square(13, height=48, width=64), fps=12.5, audio="aac")


def test_an_mp4_keeps_frames_fps_and_sound(loaded, still, driving, tmp_path):
    heard = []
    report = animate(
        loaded,
        source=still,
        driving=driving,
        out=tmp_path / "new" / "out.mp4",
        on_frame=lambda *done: heard.append(done),
    )
    media = open_media(report.out)
    assert (media.fps, media.size, media.num_frames) == (12.5, (SIZE, SIZE), 13)
    with av.open(str(report.out)) as container:
        assert len(container.streams.audio) == 1
    assert heard == [(count, 13) for count in range(1, 14)]
    assert (report.num_frames, report.fps, report.structure, report.grid) == (13, 12.5, (), None)
    assert [path.name for path in report.out.parent.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("mode", ["relative", "absolute"])
def test_a_folder_of_pngs_holds_exactly_what_the_model_paints(loaded, still, driving, tmp_path, mode):
    report = animate(loaded, source=still, driving=driving, out=tmp_path / "frames", mode=mode)
    source = read_still(still, loaded)
    images = [as_image(frame, size=SIZE, device=source.device) for frame in read_frames(driving)]
    painted = [images_to_frames(m.transfer.image)[0] for m in moments(loaded.model, source, images, mode=mode)]
    written = [read_image(path) for path in sorted(report.out.iterdir())]
    assert np.array_equal(written, painted)


def test_relative_motion_begins_with_the_source_as_it_is(loaded, still, driving):
    source = read_still(still, loaded)
    images = (as_image(frame, size=SIZE, device=source.device) for frame in read_frames(driving))
    first = next(iter(moments(loaded.model, source, images, mode="relative"))).transfer
    assert torch.allclose(first.driving.motion.position, first.source.motion.position, atol=1e-6)
    assert torch.allclose(first.driving.motion.affine, first.source.motion.affine, atol=1e-4)


def test_structure_and_grid_stand_beside_the_result(loaded, still, driving, tmp_path):
    out = tmp_path / "out.gif"
    report = animate(loaded, source=still, driving=driving, out=out, structure=True, grid=True)
    assert [path.name for path in report.structure] == ["out_structure.gif", "out_structure.png"]
    assert report.grid == tmp_path / "out_grid.gif"
    for path in (report.structure[0], report.grid):
        media = open_media(path)
        assert media.num_frames == 13
        assert media.size[1] > 3 * 256
    picture = Image.open(report.structure[1])
    assert picture.width == media.size[1]
    assert picture.height > NUM_PICTURES * 256


def test_the_picture_keeps_few_moments_of_a_long_video(tmp_path):
    image = torch.zeros(1, 3, 8, 8)
    drawn = []

    def view(moment):
        drawn.append(moment)
        return [Image.new("RGB", (8, 8))]

    picture = MomentPicture(View(view))
    for _ in range(1000):
        picture.add(Moment(source=image, driving=image, transfer=None))
        assert len(picture._kept) <= 2 * NUM_PICTURES
    assert len(drawn) < 100, "a long video is not drawn frame by frame"
    sheet = Image.open(picture.save(tmp_path / "moments.png"))
    assert sheet.height > NUM_PICTURES * 8


def test_a_gif_and_a_folder_of_frames_can_drive(loaded, still, tmp_path):
    frames = [Image.fromarray(frame) for frame in moving_square(4)]
    frames[0].save(tmp_path / "drive.gif", save_all=True, append_images=frames[1:], duration=100)
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(frames):
        frame.save(tmp_path / "frames" / f"f{number}.png")
    for name in ("drive.gif", "frames"):
        report = animate(loaded, source=still, driving=tmp_path / name, out=tmp_path / f"{name}.mp4")
        assert report.num_frames == 4
        assert open_media(report.out).fps == report.fps


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"source": "driving.mp4"}, "no image"),
        ({"source": "absent.png"}, "no such file"),
        ({"driving": "absent.mp4"}, "no such file"),
        ({"driving": "still.png"}, "not a video"),
        ({"out": "out.avi"}, "cannot write"),
        ({"out": "driving.mp4"}, "overwrite"),
        ({"driving": "cut.mp4"}, "cut short"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_left(loaded, still, driving, tmp_path, changes, problem):
    whole = write_video(tmp_path / "whole.mp4", moving_square(40), faststart=True).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    names = {"source": "still.png", "driving": "driving.mp4", "out": "out.mp4"} | changes
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=problem):
        animate(loaded, **{key: tmp_path / name for key, name in names.items()}, structure=True, grid=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("given", "out"),
    [
        ("driving.mp4", "clips/../driving.mp4"),
        ("driving.mp4", "link/driving.mp4"),
        ("shot_structure.mp4", "shot.mp4"),
        ("shot_grid.mp4", "shot.mp4"),
        ("shot_structure.png", "shot.mp4"),
    ],
)
def test_no_output_takes_an_inputs_place(loaded, still, driving, tmp_path, given, out):
    (tmp_path / "clips").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    is_still = given.endswith(".png")
    source = still.rename(tmp_path / given) if is_still else still
    clip = driving if is_still else driving.rename(tmp_path / given)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=rf"overwrite the input .*{given}"):
        animate(loaded, source=source, driving=clip, out=tmp_path / out, structure=True, grid=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_a_name_is_no_output(loaded, still, driving):
    with pytest.raises(InputError, match="names no file"):
        animate(loaded, source=still, driving=driving, out=Path(), structure=True)
