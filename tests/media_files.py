"""Small media files, tables and datasets made on the fly, and what is measured on them, for the data pipeline."""

import csv
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from hdam.pipelines.assemble import STORE_SCHEMA, assemble
from hdam.pipelines.encode import EncodeOptions, encode_clip
from hdam.pipelines.frame_codec import encode_frame, encode_mask
from hdam.pipelines.manifest import save_manifest
from hdam.pipelines.shards import interleave, write_shard
from hdam.pipelines.splits import StoredChunk

SPLITS = {"ada": "train", "bob": "train", "eve": "test"}


def moving_square(num_frames=10, *, height=48, width=64, seed=0):
    """Frames uint8 [frame, height, width, 3]: a square of 12 pixels walks over a plain ground, two pixels a frame."""
    ground, colour = np.random.default_rng(seed).integers(0, 256, (2, 3), dtype=np.uint8)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    frames[:] = ground
    for index in range(num_frames):
        left = 2 * index % (width - 12)
        frames[index, 8:20, left : left + 12] = colour
    return frames


def write_video(path: Path, frames, *, fps=25, codec="libx264", audio=None, rotation=0, faststart=False):
    """`frames` as a video file; `audio`: name of the audio codec of a tone as long as the film."""
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        sound = container.add_stream(audio, rate=48000, layout="mono") if audio else None
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index, 1 / Fraction(fps).limit_denominator(1001)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound is not None:
            write_tone(container, sound, seconds=len(frames) / fps)
    return path


def write_tone(container, sound, *, seconds):
    """A tone into the stream `sound` of an open container."""
    tone = (8000 * np.sin(np.arange(int(48000 * seconds)) / 20)).astype(np.int16)
    if not sound.codec_context.is_open:
        sound.codec_context.open()
    resampler = av.AudioResampler(sound.codec_context.format, "mono", 48000, sound.codec_context.frame_size or 1024)
    raw = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
    raw.sample_rate, raw.pts = 48000, 0
    for piece in [*resampler.resample(raw), *resampler.resample(None)]:
        container.mux(sound.encode(piece))
    container.mux(sound.encode(None))


def write_animation(path: Path, frames, *, milliseconds):
    """`frames` (RGB or RGBA) as a GIF or animated WebP; `milliseconds`: of all frames, or one number each."""
    first, *rest = [Image.fromarray(frame) for frame in frames]
    extra = {"lossless": True} if path.suffix == ".webp" else {"disposal": 2}
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, **extra)
    return path


def write_folder(path: Path, frames, *, suffix=".png"):
    """`frames` as image files without leading zeros, so that only natural order is right."""
    path.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"f{index}{suffix}")
    return path


def write_strip(path: Path, frames):
    """`frames` side by side in one image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(list(frames), axis=1)).save(path)
    return path


def write_files(folder: Path, *names):
    """Empty files, of which a listing sees the name alone."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def encoded(clip, **changes):
    """The rows of a clip in small lossless frames; `changes`: what differs from that."""
    options = EncodeOptions(
        size=16, fit="crop", background=(255, 255, 255), codec="png", max_chunk_frames=64, min_frames=2, max_frames=None
    )
    return list(encode_clip(clip, options._replace(**changes)))


def audio_packets(path: Path):
    """The bytes of every audio packet of a file."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.dts is not None]


def write_table(path: Path, *rows):
    """`rows` (dicts) as a CSV file with the columns that any of them has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_clips_of_each_kind(folder: Path):
    """One clip of each kind, in subfolders, and things that are none."""
    (folder / "deep").mkdir(parents=True)
    write_video(folder / "ada#1.mp4", moving_square(9, seed=1))
    write_video(folder / "deep" / "ada#2.mov", moving_square(6, seed=1))
    write_animation(folder / "bob.gif", moving_square(5, seed=2), milliseconds=50)
    write_animation(folder / "deep" / "cyd.webp", moving_square(4, seed=3), milliseconds=100)
    write_folder(folder / "deep" / "dan", moving_square(11, seed=4))
    (folder / "notes.txt").write_text("nothing to see")
    (folder / "._ada#1.mp4").write_text("a shadow of another system")
    Image.new("RGB", (9, 9)).save(folder / "cover1.png")
    return folder


def frame_of(clip, index):
    """Frame `index` of clip number `clip`, of one colour that tells which it is."""
    return np.full((8, 8, 3), (clip, index, 7), np.uint8)


def store(folder, clip, identity, num_frames, *, truth=False):
    """A clip in the store, frame i of clip c being plain (c, i, 7)."""
    chunks = interleave(num_frames, max_chunk_frames=4)
    path = folder / f"{clip}.parquet"
    rows = [
        {
            "clip_id": f"clip{clip}",
            "identity": identity,
            "chunk": number,
            "num_chunks": len(chunks),
            "fps": 25.0,
            "height": 8,
            "width": 8,
            "frame_index": list(indices),
            "frames": [encode_frame(frame_of(clip, index), "png") for index in indices],
            "keypoints": [[index / 100, 0.5, -index / 100, 0.25] for index in indices] if truth else None,
            "centroid": [[index / 100, 0.0] for index in indices] if truth else None,
            "part_masks": [encode_mask(np.full((8, 8), index, np.uint8)) for index in indices] if truth else None,
            "source": f"{clip}.mp4",
            "crop": "0 0 8 8",
        }
        for number, indices in enumerate(chunks)
    ]
    write_shard(path, rows, schema=STORE_SCHEMA)
    return [
        StoredChunk(path, row["clip_id"], identity, row["chunk"], len(row["frames"]), sum(map(len, row["frames"])))
        for row in rows
    ]


def write_dataset(folder: Path):
    """Five clips of three identities in `folder`/data, eve in the test split, clip 4 with ground truth."""
    waiting, data = folder / "store", folder / "data"
    waiting.mkdir()
    data.mkdir()
    chunks = [
        *store(waiting, 0, "ada", 10),
        *store(waiting, 1, "ada", 4),
        *store(waiting, 2, "bob", 2),
        *store(waiting, 3, "eve", 9),
        *store(waiting, 4, "bob", 13, truth=True),
    ]
    manifest = assemble(data, chunks, splits=SPLITS, name="five", options={"size": 8}, seed=0)
    save_manifest(manifest, data)
    return data


def difference(actual, expected):
    """Mean absolute difference of two pictures, in steps of 1/255."""
    return np.abs(actual.astype(int) - expected.astype(int)).mean()


def assert_one_line(error, *words):
    """The message of a caught error is one line with all `words` in it."""
    message = str(error.value)
    assert "\n" not in message, message
    for word in words:
        assert word in message, f"no {word!r} in: {message}"
