"""Writing films, animations and folders of frames: rate, colours, sound, and nothing left behind by an error."""

import av
import numpy as np
import pytest
from media_files import assert_one_line, audio_packets, difference, moving_square, write_animation, write_video

from hdam.pipelines.errors import InputError
from hdam.pipelines.media import open_media, read_frames
from hdam.pipelines.video_writer import open_writer


@pytest.mark.parametrize("fps", [25, 23.81, 29.97, 30000 / 1001, 5.0])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_mp4_keeps_rate_and_frames(tmp_path, fps, size):
    frames = moving_square(9, height=size[0], width=size[1])
    path = tmp_path / "new" / "a.mp4"
    with open_writer(path, fps=fps, size=size) as writer:
        for frame in frames:
            writer.write(frame)
    media = open_media(path)
    assert media.fps == pytest.approx(fps, rel=1e-4)
    assert media.size == (48, 64)
    for read, frame in zip(read_frames(path), frames, strict=True):
        assert difference(read[: size[0], : size[1]], frame) < 5
    assert [entry.name for entry in path.parent.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("driving", ["d.mp4", "d.mov"])
def test_aac_is_copied_byte_for_byte(tmp_path, driving):
    frames = moving_square(50)
    source = write_video(tmp_path / driving, frames, audio="aac")
    with open_writer(tmp_path / "a.mp4", fps=25, size=(48, 64), audio_from=source) as writer:
        for frame in frames:
            writer.write(frame)
    before, after = audio_packets(source), audio_packets(tmp_path / "a.mp4")
    assert len(after) >= len(before) - 3
    assert after == before[: len(after)]


def test_sound_ends_with_the_last_frame(tmp_path):
    frames = moving_square(50)
    source = write_video(tmp_path / "d.mp4", frames, audio="aac")
    with open_writer(tmp_path / "a.mp4", fps=25, size=(48, 64), audio_from=source) as writer:
        for frame in frames[:20]:
            writer.write(frame)
    kept, packets = len(audio_packets(tmp_path / "a.mp4")), len(audio_packets(source))
    assert 0.35 * packets < kept < 0.48 * packets
    assert len(list(read_frames(tmp_path / "a.mp4"))) == 20


def test_other_sound_is_encoded_to_aac(tmp_path):
    frames = moving_square(50)
    source = write_video(tmp_path / "d.mkv", frames, audio="pcm_s16le")
    with open_writer(tmp_path / "a.mp4", fps=25, size=(48, 64), audio_from=source) as writer:
        for frame in frames:
            writer.write(frame)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(heard) == pytest.approx(48000 * 2, rel=0.03)
    assert np.abs(heard).max() > 0.1


@pytest.mark.parametrize("silent", ["d.gif", "d.mp4", "none"])
def test_driving_without_sound_makes_a_silent_film(tmp_path, silent):
    frames = moving_square(5)
    source = tmp_path / silent
    if silent == "d.gif":
        write_animation(source, frames, milliseconds=40)
    elif silent == "d.mp4":
        write_video(source, frames)
    with open_writer(tmp_path / "a.mp4", fps=25, size=(48, 64), audio_from=source) as writer:
        writer.write(frames[0])
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("fps", [25, 23.81, 30, 12.5])
def test_gif_keeps_colours_and_the_mean_rate(tmp_path, fps):
    frames = moving_square(24)
    with open_writer(tmp_path / "a.gif", fps=fps, size=(48, 64)) as writer:
        for frame in frames:
            writer.write(frame)
    assert open_media(tmp_path / "a.gif").fps == pytest.approx(fps, rel=0.02)
    for read, frame in zip(read_frames(tmp_path / "a.gif"), frames, strict=True):
        assert difference(read, frame) < 1


def test_folder_of_frames_is_lossless(tmp_path):
    frames = moving_square(3)
    with open_writer(tmp_path / "out", fps=25, size=(48, 64)) as writer:
        for frame in frames:
            writer.write(frame)
    assert (tmp_path / "out" / "frame_00000.png").is_file()
    for read, frame in zip(read_frames(tmp_path / "out"), frames, strict=True):
        assert np.array_equal(read, frame)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "folder"])
def test_an_error_leaves_nothing_behind(tmp_path, name):
    with pytest.raises(KeyboardInterrupt), open_writer(tmp_path / name, fps=25, size=(48, 64)) as writer:
        writer.write(moving_square(1)[0])
        raise KeyboardInterrupt
    with pytest.raises(InputError, match="no frame"), open_writer(tmp_path / name, fps=25, size=(48, 64)):
        pass
    with (
        pytest.raises(ValueError, match=r"frame 0 is uint8 \(3, 3, 3\)"),
        open_writer(tmp_path / name, fps=25, size=(48, 64)) as writer,
    ):
        writer.write(np.zeros((3, 3, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_an_older_result_survives_an_error(tmp_path):
    (tmp_path / "a.mp4").write_text("older")
    with pytest.raises(RuntimeError), open_writer(tmp_path / "a.mp4", fps=25, size=(48, 64)) as writer:
        writer.write(moving_square(1)[0])
        raise RuntimeError
    assert (tmp_path / "a.mp4").read_text() == "older"


def test_targets_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "b.mp4").mkdir()
    for name, word in (("a.txt", ".mp4, .gif"), ("full", "not an empty folder"), ("b.mp4", "is a folder")):
        with pytest.raises(InputError) as error, open_writer(tmp_path / name, fps=25, size=(48, 64)):
            pass
        assert_one_line(error, name, word)
