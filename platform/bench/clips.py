"""The clips of a benchmark: puppets or a prepared dataset, as shards of any number and as folders of PNG frames."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pyarrow import fs

from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import encode_frame
from hdam.pipelines.manifest import SCHEMA_VERSION, Counts, Manifest, Shard, fingerprint_of, save_manifest, sha256_of
from hdam.pipelines.puppets import FPS, render_puppet
from hdam.pipelines.shards import Row, interleave, iter_clips, write_shard
from hdam.platform.reports import counting

CHUNK_FRAMES = 64


class BenchClip(NamedTuple):
    """Frames as a shard keeps them."""

    name: str
    frames: Sequence[bytes]


def puppet_clips(folder: Path, *, num_clips: int, num_frames: int, size: int) -> Path:
    """The dataset of puppets in `folder`, made where it is not there yet."""
    dataset = folder / f"puppets-{size}-{num_clips}x{num_frames}"
    if not dataset.exists():
        write_dataset(dataset, _rendered(num_clips, num_frames, size), size=size)
    return dataset


def _rendered(num_clips: int, num_frames: int, size: int) -> Iterator[BenchClip]:
    with counting("puppets") as count:
        for index in range(num_clips):
            pixels, _ = render_puppet(seed=0, index=index, num_frames=num_frames, size=size)
            yield BenchClip(f"puppet{index:04d}", [encode_frame(frame, "jpeg") for frame in pixels])
            count(index + 1, num_clips)


def stored_clips(dataset: str, *, copies: int = 1) -> Iterator[BenchClip]:
    """The training clips of a dataset, each so many times under names of its own."""
    for clip in iter_clips(dataset, "train"):
        for copy in range(copies):
            yield BenchClip(f"{clip.clip_id}~{copy}", clip.frames)


def write_dataset(folder: Path, clips: Iterator[BenchClip], *, size: int, num_shards: int = 1) -> None:
    """The new dataset `folder`, its rows dealt out to shards as evenly as possible.

    Raises InputError when there are fewer rows than shards.
    """
    rows = [row for clip in clips for row in _rows(clip, size)]
    if len(rows) < num_shards:
        raise InputError(f"{len(rows)} rows cannot fill {num_shards} shards; take more clips")
    with appearing(folder) as partial:
        (partial / "shards").mkdir()
        shards = [
            _write_shard(partial, f"shards/train-{number:05d}-of-{num_shards:05d}.parquet", rows[number::num_shards])
            for number in range(num_shards)
        ]
        counts = Counts(
            clips=len({row["clip_id"] for row in rows}),
            identities=len({row["identity"] for row in rows}),
            rows=len(rows),
            frames=sum(len(row["frames"]) for row in rows),
            num_bytes=sum(shard.num_bytes for shard in shards),
        )
        options = {"size": size}
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name="benchmark",
            fingerprint=fingerprint_of(options, shards),
            options=options,
            counts=counts,
            splits={"train": counts},
            shards=tuple(shards),
        )
        save_manifest(manifest, partial)


def export_frames(dataset: str, folder: Path) -> Path:
    """The training clips of a dataset as `folder/CLIP/00000.png` and so on, written where they are not there yet."""
    if folder.exists():
        return folder
    with appearing(folder) as partial, counting("frames as PNG") as count:
        written = 0
        for clip in iter_clips(dataset, "train"):
            (partial / clip.clip_id).mkdir(parents=True)
            for index in range(clip.num_frames):
                path = partial / clip.clip_id / f"{index:05d}.png"
                path.write_bytes(encode_frame(clip.frame(index), "png"))
                written += 1
                count(written, None)
    return folder


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the name `folder` at the end of the block, and vanishes where that fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_shard(folder: Path, path: str, rows: list[Row]) -> Shard:
    write_shard(folder / path, rows)
    return Shard(
        path=path,
        split="train",
        rows=len(rows),
        num_bytes=(folder / path).stat().st_size,
        sha256=sha256_of(str(folder / path), filesystem=fs.LocalFileSystem()),
    )


def _rows(clip: BenchClip, size: int) -> Iterator[Row]:
    chunks = interleave(len(clip.frames), max_chunk_frames=CHUNK_FRAMES)
    for chunk, indices in enumerate(chunks):
        yield {
            "clip_id": clip.name,
            "identity": clip.name,
            "chunk": chunk,
            "num_chunks": len(chunks),
            "chunk_rank": chunk,
            "num_identity_chunks": len(chunks),
            "split": "train",
            "fps": float(FPS),
            "height": size,
            "width": size,
            "frame_index": list(indices),
            "frames": [clip.frames[index] for index in indices],
            "source": clip.name,
            "crop": f"0 0 {size} {size}",
        }
