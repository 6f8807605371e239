"""Reading media: every format, its clock, its alpha, its rotation, and every way to be broken."""

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import (
    assert_one_line,
    difference,
    moving_square,
    write_animation,
    write_folder,
    write_tone,
    write_video,
)
from PIL import Image

from hdam.pipelines.errors import InputError
from hdam.pipelines.media import natural_key, open_media, read_frames, read_image
from hdam.pipelines.video_writer import open_writer


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.webm", "libvpx-vp9"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")],
)
def test_videos_are_read_whole_and_in_colour(tmp_path, name, codec):
    frames = moving_square(12)
    path = write_video(tmp_path / name, frames, fps=25, codec=codec)
    media = open_media(path)
    assert (media.fps, media.size) == (25, (48, 64))
    assert media.num_frames in (12, None)
    read = list(read_frames(path))
    assert len(read) == 12
    assert all(frame.dtype == np.uint8 and frame.shape == (48, 64, 3) for frame in read)
    assert max(difference(a, b) for a, b in zip(read, frames, strict=True)) < 6


def test_reading_a_video_does_not_darken_it(tmp_path):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (256, 192), Image.Resampling.BICUBIC
    )
    frame = np.array(smooth)
    with open_writer(tmp_path / "a.mp4", fps=25, size=(192, 256)) as writer:
        writer.write(frame)
    read = next(read_frames(tmp_path / "a.mp4"))
    assert np.abs((read.astype(int) - frame).mean((0, 1))).max() < 0.4


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_show_the_background_where_transparent(tmp_path, suffix):
    frames = np.zeros((4, 20, 30, 4), np.uint8)
    for index in range(4):
        frames[index, 5:10, 3 * index : 3 * index + 5] = (200, 30, 40, 255)
    path = write_animation(tmp_path / f"a{suffix}", frames, milliseconds=40)
    assert open_media(path).num_frames == 4
    assert open_media(path).size == (20, 30)
    for index, frame in enumerate(read_frames(path)):
        assert frame[0, 29].tolist() == [255, 255, 255]
        assert difference(frame[6, 3 * index + 1], np.array([200, 30, 40])) < 6
    green = next(read_frames(path, background=(0, 255, 0)))
    assert green[0, 29].tolist() == [0, 255, 0]


def test_half_transparent_pixels_are_mixed_with_the_background(tmp_path):
    path = write_animation(tmp_path / "a.webp", np.full((2, 8, 8, 4), (100, 0, 0, 128), np.uint8), milliseconds=50)
    assert difference(next(read_frames(path))[0, 0], np.array([177, 127, 127])) <= 1.5


@pytest.mark.parametrize(("milliseconds", "fps"), [(40, 25.0), ([40, 80, 120], 12.5), (0, 10.0), ([40, 0, 160], 10.0)])
def test_clock_of_a_gif_is_the_mean_of_its_durations(tmp_path, milliseconds, fps):
    path = write_animation(tmp_path / "a.gif", moving_square(3), milliseconds=milliseconds)
    assert open_media(path).fps == pytest.approx(fps)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_folders_are_read_in_natural_order(tmp_path, suffix):
    frames = moving_square(12)
    folder = write_folder(tmp_path / "clip", frames, suffix=suffix)
    (folder / "notes.txt").write_text("no frame")
    Image.new("RGB", (5, 5)).save(folder / "cover.png")
    media = open_media(folder)
    assert (media.num_frames, media.size, media.fps) == (12, (48, 64), 25.0)
    assert max(difference(a, b) for a, b in zip(read_frames(folder), frames, strict=True)) < 4


@given(st.lists(st.integers(0, 10**12), min_size=1, unique=True))
def test_natural_order_is_the_order_of_numbers(numbers):
    names = [f"frame{number}.png" for number in numbers]
    assert sorted(names, key=natural_key) == [f"frame{number}.png" for number in sorted(numbers)]


@given(st.lists(st.text(), min_size=2, max_size=6))
def test_any_names_can_be_ordered(names):
    keys = [natural_key(name) for name in names]
    assert min(keys) <= max(keys)


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_rotation_of_the_container_is_honoured(tmp_path, rotation, turns):
    frames = moving_square(3)
    path = write_video(tmp_path / "a.mp4", frames, rotation=rotation)
    assert open_media(path).size == ((64, 48) if turns % 2 else (48, 64))
    assert difference(next(read_frames(path)), np.rot90(frames[0], turns)) < 6


def test_image_orientation_and_alpha(tmp_path):
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn clockwise to see it upright
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "a.jpg")
    assert upright.shape == (20, 10, 3)
    assert upright[2].mean() > 250 and upright[-3].mean() < 5
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").min() == 255
    Image.new("P", (4, 4)).save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png", background=(1, 2, 3))[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.webp"])
def test_text_under_a_media_name_is_one_clear_line(tmp_path, name):
    (tmp_path / name).write_text("I am no film\n" * 50)
    for look in (open_media, lambda path: list(read_frames(path))):
        with pytest.raises(InputError) as error:
            look(tmp_path / name)
        assert_one_line(error, name)


def test_missing_and_unknown_files_are_named(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name, word in (
        ("no.mp4", "no such file"),
        ("a.txt", ".mp4"),
        ("empty", "no frames"),
        ("empty.mp4", "no video"),
    ):
        with pytest.raises(InputError) as error:
            open_media(tmp_path / name)
        assert_one_line(error, name, word)
    for name in ("a.txt", "no.png", "empty"):
        with pytest.raises(InputError) as error:
            read_image(tmp_path / name)
        assert_one_line(error, name)


def test_sound_without_picture_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        write_tone(container, container.add_stream("aac", rate=48000, layout="mono"), seconds=1)
    with pytest.raises(InputError, match="no video stream"):
        open_media(tmp_path / "a.mp4")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.8, 0.93])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("plain.mp4", "libx264"),
        ("fast.mp4", "libx264"),
        ("fast.mov", "libx264"),
        ("a.webm", "libvpx"),
        ("a.mkv", "libx264"),
        ("a.gif", None),
        ("a.webp", None),
    ],
)
def test_truncated_files_are_noticed(tmp_path, share, name, codec):
    frames = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    whole = tmp_path / name
    if codec is None:
        write_animation(whole, frames, milliseconds=40)
    else:
        write_video(whole, frames, codec=codec, faststart="fast" in name)
    assert len(list(read_frames(whole))) == 60
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(InputError) as error:
        list(read_frames(cut))
    assert_one_line(error, cut.name)


def test_a_film_of_which_only_the_sound_is_cut_is_whole(tmp_path):
    whole = write_video(tmp_path / "a.mp4", moving_square(50), audio="aac", faststart=True)
    (tmp_path / "b.mp4").write_bytes(whole.read_bytes()[:-500])  # the sound lies behind the picture
    assert len(list(read_frames(tmp_path / "b.mp4"))) == 50


def test_frames_of_another_size_are_named(tmp_path):
    folder = write_folder(tmp_path / "clip", moving_square(3))
    Image.new("RGB", (10, 10)).save(folder / "f7.png")
    with pytest.raises(InputError, match="frame 3 is 10x10 pixels, the first 64x48"):
        list(read_frames(folder))


def test_frames_are_read_as_they_are_asked_for(tmp_path):
    folder = write_folder(tmp_path / "clip", moving_square(5))
    frames = read_frames(folder)
    next(frames)
    (folder / "f4.png").write_text("broken meanwhile")
    with pytest.raises(InputError, match=r"f4\.png"):
        list(frames)


def test_real_clips_tell_their_rate(clips):
    assert open_media(clips / "cartoons/fluent_cat_1f408.webp").fps == pytest.approx(23.81, abs=0.01)
    media = open_media(clips / "faces/moore_4.mp4")
    assert (media.size, round(media.fps, 2)) == ((650, 650), 29.97)
