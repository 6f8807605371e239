"""A span of frames, of every kind of media: the same frames as of the whole, and no more work than needed."""

from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import assert_one_line, difference, moving_square, write_animation, write_folder, write_strip
from PIL import Image

from hdam.pipelines import video_reader
from hdam.pipelines.errors import InputError
from hdam.pipelines.media import open_media, read_frames

KINDS = ("a.gif", "a.webp", "folder", "strip.png")


def write_kind(path, frames):
    """Frames as the one of KINDS that the path names."""
    if path.name == "folder":
        return write_folder(path, frames)
    if path.name == "strip.png":
        return write_strip(path, frames)
    return write_animation(path, frames, milliseconds=40)


def write_long_video(path, codec, **options):
    """200 frames of one shade each, with keyframes now and then."""
    frames = np.repeat(np.arange(200, dtype=np.uint8), 32 * 32 * 3).reshape(200, 32, 32, 3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "30", "bf": "3"}),
        ("open.mkv", "libx264", {"g": "30", "bf": "3", "x264-params": "open-gop=1"}),
        ("open.mp4", "libx265", {"x265-params": "open-gop=1:keyint=30:log-level=none"}),
        ("a.webm", "libvpx-vp9", {"g": "40", "deadline": "realtime"}),
        ("a.avi", "mpeg4", {"g": "12", "bf": "2"}),
    ],
)
def test_a_span_of_a_video_is_the_same_frames_as_of_the_whole(tmp_path, name, codec, options):
    path = write_long_video(tmp_path / name, codec, **options)
    whole = list(read_frames(path))
    assert len(whole) == 200
    for start, stop in ((0, 3), (20, 25), (50, 51), (77, 140), (199, None), (199, 300), (200, None), (230, 240)):
        span = list(read_frames(path, start=start, stop=stop))
        assert len(span) == len(whole[start:stop])
        assert all(np.array_equal(one, other) for one, other in zip(span, whole[start:stop], strict=True))


def test_a_late_span_is_decoded_from_the_keyframe_before(tmp_path, monkeypatch):
    path = write_long_video(tmp_path / "a.mp4", "libx264", g="30", sc_threshold="0")
    decode, decoded = video_reader._decode, []
    monkeypatch.setattr(video_reader, "_decode", lambda *args, **kwargs: map(spy, decode(*args, **kwargs)))

    def spy(frame):
        decoded.append(frame)
        return frame

    (frame,) = read_frames(path, start=160, stop=161)
    assert len(decoded) == 11  # 150 to 160
    first = decoded[0].pts
    monkeypatch.setattr(video_reader, "_times_from_keyframe", lambda *args: [first, first + 1])
    decoded.clear()
    (again,) = read_frames(path, start=160, stop=161)  # times that do not hold: from the beginning
    assert len(decoded) > 160 and np.array_equal(frame, again)


def test_a_cut_off_video_is_noticed_after_its_span_only(tmp_path):
    whole = write_long_video(tmp_path / "a.mkv", "libx264", g="30").read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole[: int(0.8 * len(whole))])
    assert len(list(read_frames(tmp_path / "b.mkv", start=100, stop=110))) == 10
    with pytest.raises(InputError, match=r"b\.mkv: cut short"):
        list(read_frames(tmp_path / "b.mkv", start=100))


@pytest.mark.parametrize("name", KINDS)
def test_spans_of_other_kinds(tmp_path, name):
    frames = moving_square(12, height=24, width=24)
    path = write_kind(tmp_path / name, frames)
    assert open_media(path).num_frames == 12 and open_media(path).size == (24, 24)
    for start, stop in ((0, None), (3, 7), (11, 99), (12, None)):
        span = list(read_frames(path, start=start, stop=stop))
        assert len(span) == len(frames[start:stop])
        assert all(difference(one, other) < 1 for one, other in zip(span, frames[start:stop], strict=True))


def test_frames_outside_a_span_are_not_read_and_those_inside_must_have_the_size(tmp_path):
    folder = write_folder(tmp_path / "clip", moving_square(6))
    (folder / "f0.png").write_text("broken")
    assert len(list(read_frames(folder, start=1, stop=4))) == 3
    Image.new("RGB", (10, 10)).save(folder / "f2.png")
    with pytest.raises(InputError, match="frame 2 is 10x10 pixels, the first 64x48"):
        list(read_frames(folder, start=1))
    with pytest.raises(InputError, match="frame 3 is 64x48 pixels, the first 10x10"):
        list(read_frames(folder, start=3, size=(10, 10)))


@pytest.mark.parametrize("size", [(20, 20), (20, 50), (50, 20), (30, 20)])
def test_an_image_that_is_no_strip_tells_its_size(tmp_path, size):
    height, width = size
    Image.new("RGB", (width, height)).save(tmp_path / "a.png")
    for look in (open_media, lambda path: list(read_frames(path))):
        with pytest.raises(InputError) as error:
            look(tmp_path / "a.png")
        assert_one_line(error, f"a.png: not a video; an image of {width}x{height} pixels is no strip")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_shows_the_chosen_colour_where_it_is_transparent(tmp_path, name):
    frames = np.zeros((3, 16, 16, 4), np.uint8)
    frames[:, 4:8, 4:8] = (200, 30, 40, 255)
    path = write_kind(tmp_path / name, frames)
    for frame in read_frames(path, background=(10, 200, 30)):
        assert frame[0, 0].tolist() == [10, 200, 30] and frame[15, 15].tolist() == [10, 200, 30]
        assert difference(frame[6, 6], np.array([200, 30, 40])) < 6
    assert next(read_frames(path))[0, 0].tolist() == [255, 255, 255]
