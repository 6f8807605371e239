"""Carry the sound of one video into another while it is written: copied byte for byte where mp4 can hold it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

logger = logging.getLogger(__name__)

COPIED_CODECS = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus"})
"""What an mp4 holds and players play; anything else is encoded anew to AAC."""
PRIMING_SECONDS = 0.1
"""Packets this early are kept: decoders need them to get going, and players do not play them."""


class AudioTrack:
    """The first audio stream of `source`, muxed into `output` step by step, so that neither waits in memory."""

    def __init__(self, source: InputContainer, output: OutputContainer) -> None:
        self._output = output
        origin = source.streams.audio[0]
        # Sound is placed against the first video frame, which the new file has at 0.
        video = source.streams.video[0] if source.streams.video else None
        self._start_seconds = _seconds(video.start_time, video) if video is not None else 0.0
        if origin.codec_context.name in COPIED_CODECS:
            self._packets = self._copied(source, origin, output.add_stream_from_template(origin))
        else:
            logger.info("audio is %s, which mp4 does not hold; it is encoded to AAC", origin.codec_context.name)
            self._packets = self._encoded(source, origin)
        self._waiting = next(self._packets, None)

    def advance(self, seconds: float) -> None:
        """Mux the sound before `seconds` of the new video."""
        while self._waiting is not None:
            packet_seconds, packet = self._waiting
            if packet_seconds >= seconds:
                return
            self._output.mux(packet)
            self._waiting = next(self._packets, None)

    def _copied(
        self, source: InputContainer, origin: AudioStream, stream: AudioStream
    ) -> Iterator[tuple[float, Packet]]:
        assert origin.time_base is not None
        shift = round(self._start_seconds / origin.time_base)
        for packet in source.demux(origin):
            if packet.dts is None:  # the flushing packet at the end
                continue
            packet.dts -= shift
            packet.pts = packet.dts if packet.pts is None else packet.pts - shift
            seconds = float(packet.pts * origin.time_base)
            if seconds < -PRIMING_SECONDS:
                continue
            packet.stream = stream
            yield seconds, packet

    def _encoded(self, source: InputContainer, origin: AudioStream) -> Iterator[tuple[float, Packet]]:
        rate = origin.codec_context.sample_rate
        layout = "stereo" if origin.codec_context.layout.nb_channels >= 2 else "mono"
        stream = self._output.add_stream("aac", rate=rate, layout=layout)
        stream.codec_context.open()
        resampler = av.AudioResampler("fltp", layout, rate, stream.codec_context.frame_size)
        return self._encoding(source, origin, stream, resampler)

    def _encoding(
        self, source: InputContainer, origin: AudioStream, stream: AudioStream, resampler: av.AudioResampler
    ) -> Iterator[tuple[float, Packet]]:
        samples = 0

        def packets(frames: list[AudioFrame]) -> Iterator[tuple[float, Packet]]:
            nonlocal samples
            for frame in frames:
                frame.pts = samples
                seconds = samples / frame.sample_rate
                samples += frame.samples
                for packet in stream.encode(frame):
                    yield seconds, packet

        for decoded in source.decode(origin):
            if decoded.time is not None and decoded.time < self._start_seconds:
                continue
            yield from packets(resampler.resample(decoded))
        yield from packets(resampler.resample(None))
        for packet in stream.encode(None):
            yield samples / origin.codec_context.sample_rate, packet


def open_audio(path: Path | None, output: OutputContainer) -> tuple[InputContainer, AudioTrack] | None:
    """The sound of `path` ready to be muxed into `output`, or None (with a warning where it is lost) if there is none.

    The caller closes the container.
    """
    if path is None or not path.is_file():
        return None
    source: InputContainer | None = None
    try:
        source = av.open(str(path))
        if source.streams.audio:
            return source, AudioTrack(source, output)
    except (av.FFmpegError, ValueError) as error:
        logger.warning("%s: its audio cannot be carried over (%s); the result is silent", path, error)
    if source is not None:
        source.close()
    return None


def _seconds(timestamp: int | None, stream: av.VideoStream) -> float:
    return float((timestamp or 0) * stream.time_base) if stream.time_base is not None else 0.0
