"""Small media files made on the fly, for the tests of the data pipeline."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


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


def audio_packets(path: Path):
    """The bytes of every audio packet of a file."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.dts is not None]
