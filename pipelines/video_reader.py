"""Decode video files by PyAV, upright and frame by frame, and notice when one ends too early."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.frame_codec import Pixels

UNSAID_FPS = 25.0
"""Frames per second of a video that does not say."""

SEEK_FRAMES = 50
"""To skip fewer frames than this, they are decoded: as quick as to find where to begin."""
HELD_BACK = 32
"""No codec holds back more packets than this to bring frames into the order of time."""

_UNBIASED = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Without these, swscale rounds down on the way to RGB: frames come out darker by a level and more."""


class VideoFacts(NamedTuple):
    """What a video's container and its first frame say."""

    fps: float
    size: tuple[int, int]
    """Height and width in pixels, after rotation."""
    num_frames: int | None


def video_facts(path: Path) -> VideoFacts:
    """Open a video and decode its first frame; InputError when that fails."""
    first = next(read_video(path), None)
    if first is None:
        raise InputError(f"{path}: holds no frame")
    with _open(path) as container:
        stream = _video_stream(path, container)
        return VideoFacts(_fps(stream), (first.shape[0], first.shape[1]), stream.frames or None)


def read_video(path: Path, *, start: int = 0, stop: int | None = None) -> Iterator[Pixels]:
    """Frames `start` to `stop` (left out; None: the end) of a video as uint8 [height, width, 3] RGB, rotated as its
    metadata asks.

    Decoding ends with the last frame asked for. It begins at the keyframe before `start` where the packets tell the
    time of every frame: the decoded frames' times are held against these, so that the same frames come as from the
    beginning; where they differ, or nothing is told, it begins there.

    Raises InputError when the file is no video, a frame cannot be decoded, or the file ends before the length that its
    container states.
    """
    num_frames = None if stop is None else max(stop - start, 0)
    frames = (_from_keyframe(path, start) if start >= SEEK_FRAMES else None) or islice(_decode(path), start, None)
    for frame in islice(frames, num_frames):
        yield _upright(frame)


def _from_keyframe(path: Path, start: int) -> Iterator[VideoFrame] | None:
    """The frames from number `start` on, decoded from the keyframe before; None where that is not sure to be right."""
    times = _times_from_keyframe(path, start)
    if times is None:
        return None
    frames = dropwhile(lambda frame: frame.pts is None or frame.pts < times[0], _decode(path, seek=times[0]))
    frame = None
    for expected, frame in zip(times, frames, strict=False):
        if frame.pts != expected:
            return None
    return None if frame is None or frame.pts != times[-1] else chain([frame], frames)


def _times_from_keyframe(path: Path, start: int) -> list[int] | None:
    """The times of the frames from the last keyframe at or before frame `start` to that frame, in order.

    They are read off the packets, which are not decoded. None where these leave a doubt: a packet without a time or
    damaged, two at one time, or frames before the first keyframe, which decoders leave out.
    """
    times: list[int] = []
    keys: list[int] = []
    with _open(path) as container:
        for packet in container.demux(_video_stream(path, container)):
            if not packet.size:
                break
            if packet.pts is None or packet.is_discard or packet.is_corrupt:
                return None
            times.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
            if len(times) > start + HELD_BACK:
                break
    first, times = times[:1], sorted(times)
    if len(times) <= start or len(set(times)) < len(times) or keys[:1] != first or times[:1] != first:
        return None
    key = max(time for time in keys if time <= times[start])
    return times[bisect_left(times, key) : start + 1]


def _decode(path: Path, *, seek: int | None = None) -> Iterator[VideoFrame]:
    """The frames of a video, or those from the keyframe at or before the time `seek` on, in the stream's units."""
    with _open(path) as container:
        stream = _video_stream(path, container)
        # One decoder thread: many readers share a machine, and each is scheduled as one CPU.
        stream.thread_count = 1
        start_seconds = (container.start_time or 0) / 1e6
        end_seconds = start_seconds
        count = 0
        try:
            if seek is not None:
                container.seek(seek, stream=stream)
            # All streams, undecoded but for the video: a film may end before its sound does.
            for packet in container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    end_seconds = max(end_seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream.index != stream.index:
                    continue
                if packet.is_corrupt:
                    raise InputError(f"{path}: cut short or damaged after {count} frames")
                for frame in packet.decode():
                    if isinstance(frame, VideoFrame):
                        count += 1
                        yield frame
        except av.FFmpegError as error:
            raise InputError(f"{path}: cut short or damaged after {count} frames ({_reason(error)})") from error
        _check_length(path, container, seconds=end_seconds - start_seconds, frame_seconds=1 / _fps(stream))


def _check_length(path: Path, container: InputContainer, *, seconds: float, frame_seconds: float) -> None:
    """Matroska and WebM end without an error where they are cut; only the stated length tells."""
    stated = (container.duration or 0) / 1e6
    # Rounding, a dropped last frame and variable frame rates cost a frame or two in sound files.
    if stated - seconds > max(2.5 * frame_seconds, 0.02 * stated):
        raise InputError(f"{path}: cut short: it states {stated:.2f} seconds and holds {seconds:.2f}")


def _open(path: Path) -> InputContainer:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: no video that can be read ({_reason(error)})") from error


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise InputError(f"{path}: holds no video stream")
    return container.streams.video[0]


def _fps(stream: VideoStream) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate and 0 < rate <= 1000 else UNSAID_FPS


def _upright(frame: VideoFrame) -> Pixels:
    pixels = np.asarray(frame.to_ndarray(format="rgb24", interpolation=_UNBIASED), np.uint8)
    quarter_turns = round(frame.rotation / 90)
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels


def _reason(error: Exception) -> str:
    """The reason without errno and file name, which the message already has."""
    return getattr(error, "strerror", None) or first_line(error)
