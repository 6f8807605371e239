"""Whatever lies in a file, reading it works or is refused in one line: nothing else is raised, and nothing hangs."""

import io
import os
import random
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from damage import damaged, random_table
from fuzzing import SOURCES, assert_tried, fuzz, holding, trying
from media_files import moving_square, write_animation, write_folder, write_video
from PIL import Image

from hdam.pipelines.encode import EncodeOptions, encode_clip
from hdam.pipelines.layouts import find_sources
from hdam.pipelines.media import open_media, read_frames, read_image
from hdam.pipelines.prepare import prepare
from hdam.pipelines.prepare_options import PrepareOptions

pytestmark = pytest.mark.filterwarnings("ignore")

OPTIONS = EncodeOptions(
    size=16, fit="crop", background=(255, 255, 255), codec="jpeg", max_chunk_frames=4, min_frames=2, max_frames=None
)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def films(here):
    """Sound films of every kind: suffix and bytes."""
    frames = moving_square(6, height=32, width=48)
    glass = np.concatenate([frames, np.full((6, 32, 48, 1), 150, np.uint8)], axis=-1)
    paths = [
        write_video(here / "plain.mp4", frames),
        write_video(here / "rich.mov", frames, audio="aac", rotation=90, faststart=True),
        write_video(here / "a.webm", frames, codec="libvpx-vp9", audio="libopus"),
        write_video(here / "a.mkv", frames),
        write_video(here / "a.avi", frames, codec="mpeg4"),
        write_animation(here / "a.gif", frames, milliseconds=40),
        write_animation(here / "glass.gif", glass, milliseconds=[10, 20, 0, 40, 50, 60]),
        write_animation(here / "a.webp", frames, milliseconds=40),
        write_animation(here / "glass.webp", glass, milliseconds=[10, 20, 0, 40, 50, 60]),
    ]
    return [(path.suffix, path.read_bytes()) for path in paths]


@fuzz("film")
def test_films(here, films, seed):
    suffix, sound = films[seed % len(films)]
    data = b"" if seed < 9 else damaged(sound, seed)
    with holding(here / f"film{suffix}", data) as path, trying("film") as refused:
        refused(lambda: open_media(path))
        refused(lambda: list(read_frames(path)))
        refused(lambda: list(read_frames(path, start=seed % 5, stop=seed % 7)))


@fuzz("image")
def test_images_and_strips(here, seed):
    rng = random.Random(seed)
    image = Image.fromarray(np.concatenate(moving_square(3, height=16, width=16), axis=1))
    suffix, modes = rng.choice(((".png", ("RGB", "RGBA", "L", "P", "1")), (".jpg", ("RGB", "L", "CMYK"))))
    buffer = io.BytesIO()
    image.convert(rng.choice(modes)).save(buffer, "PNG" if suffix == ".png" else "JPEG")
    (here / "strips").mkdir(exist_ok=True)
    with holding(here / "strips" / f"1{suffix}", damaged(buffer.getvalue(), seed)) as path, trying("image") as refused:
        refused(lambda: read_image(path))
        refused(lambda: list(read_frames(path)))
        refused(lambda: find_sources(str(path.parent)))


def look(refused, address, **told):
    """Find the clips there and encode each."""
    clips = []
    if not refused(lambda: clips.extend(find_sources(str(address), **told).clips)):
        for clip in clips:
            refused(lambda clip=clip: list(encode_clip(clip, OPTIONS)))


NAMES = (
    *("0.png", "1.png", "f2.png", "f10.PNG", "10.png", "11.png", "3.jpg", "04.jpeg", "-5.png", ".8.png", "cover.png"),
    *("f٣.png", "f²1.png", "a\nb6.png", "é7.png", f"{'9' * 200}.png", os.fsdecode(b"\xff\xfe9.png"), "truth.npz"),
    *("sub/0.png", "sub/1.png", "a#1.mp4/0.png", "a#1.mp4/1.png", "train/a/0.png", "train/a/1.png", "test/b.gif"),
    *("x.mp4", "train_list.txt", "manifest.csv"),
)


def put(path, rng):
    """Something at `path` that may be a frame, or anything else that a folder can hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = rng.randrange(14)
    if kind == 0:
        path.symlink_to(path.name)
    elif kind == 1:
        path.symlink_to(path.parent.parent)
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.mkdir()
    elif kind == 4:
        path.write_bytes(rng.choice((b"", b"text", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04")))
        path.chmod(rng.choice((0, 0o600)))
    else:
        side = rng.choice((8, 32, 32, 32))
        image = Image.fromarray(moving_square(1, height=side, width=side + rng.choice((0, 0, 16, side)))[0])
        image.convert(rng.choice(("RGB", "RGB", "RGBA", "L", "LA", "P", "1"))).save(path, "PNG")
        if kind == 5:
            path.write_bytes(damaged(path.read_bytes(), rng.randrange(2**32)))


@fuzz("folder")
def test_folders(here, seed):
    rng = random.Random(seed)
    with TemporaryDirectory(dir=here) as root, trying("folder") as refused:
        for name in rng.sample(NAMES, rng.randrange(len(NAMES))):
            path = Path(root, name)
            if not path.exists() and not (path.parent.is_symlink() or path.parent.is_file() or path.parent.is_fifo()):
                put(path, rng)
        look(refused, root)
        look(refused, root, layout=rng.choice(("videos", "frames", "published", "strips", "mgif", "fashion")))
        refused(lambda: list(read_frames(Path(root))))
        if seed % 4 == 0:
            refused(lambda: prepare(root, f"{root}.data", options=PrepareOptions(size=16, test_share=0)))


@pytest.fixture(scope="module")
def clips(here):
    """A folder of three short clips, to which tables and lists are added."""
    root = here / "clips"
    frames = moving_square(4, height=32, width=32)
    for name in ("ada#1", "bob", "x"):
        root.mkdir(exist_ok=True)
        write_animation(root / f"{name}.gif", frames, milliseconds=40)
    write_video(root / "film.mp4", frames)
    write_folder(root / "deep" / "eve", frames)
    return root


@fuzz("table")
def test_tables(clips, seed):
    columns = ("file", "identity", "split", "crop_xywh", "trim", "fps")
    data = random_table(columns, ("bob.gif", "bob", "train", "0 0 32 32", "0:3", "25"), seed)
    with holding(clips / "manifest.csv", data) as table, trying("table") as refused:
        look(refused, clips)
        look(refused, clips, layout="table", table=str(table))


@fuzz("metadata")
def test_metadata(clips, seed):
    columns = ("video_id", "start", "end", "bbox", "fps", "width", "height", "partition", "person_id")
    layout = ("voxceleb", "taichi", "ted")[seed % 3]
    data = random_table(columns, ("film#1", "0", "4", "0-0-32-32", "25", "32", "32", "train", "p"), seed)
    with holding(clips / f"{layout}-metadata.csv", data) as table, trying("metadata") as refused:
        look(refused, clips)
        look(refused, clips, layout=layout, table=str(table))


@fuzz("list")
def test_lists(clips, seed):
    rng = random.Random(seed)
    lines = ("ada#1.gif", "bob", "x.gif", "deep/eve", "eve", "none", "", "..", "/", "./x", "a\0b", "ü", "film.mp4", "#")
    with ExitStack() as stack, trying("list") as refused:
        for name in ("train_list.txt", "test_list"):
            text = rng.choice(("\n", "\r\n", "\r")).join(rng.sample(lines, rng.randrange(len(lines)))).encode()
            if rng.random() < 0.8:
                stack.enter_context(holding(clips / name, damaged(text, seed) if rng.random() < 0.3 else text))
        look(refused, clips)
        look(refused, clips, layout="published")


def test_enough_was_tried():
    assert sum(SOURCES.values()) >= 500
    assert_tried(*SOURCES)
