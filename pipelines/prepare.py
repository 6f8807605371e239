"""`prepare`: from a folder of videos to a dataset of shards with its manifest, all of it or nothing."""

import csv
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, get_args

from hdam.pipelines.assemble import assemble, store_clip
from hdam.pipelines.clips import Rejected, SourceClip
from hdam.pipelines.contact_sheet import MAX_CLIPS, NUM_FRAMES, SheetClip, contact_sheet, spread
from hdam.pipelines.encode import EncodeOptions
from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import Codec
from hdam.pipelines.manifest import Manifest, save_manifest
from hdam.pipelines.shards import iter_clips
from hdam.pipelines.sources import find_sources
from hdam.pipelines.splits import StoredChunk, assign_splits, given_splits
from hdam.pipelines.transform import Fit
from hdam.pipelines.workspace import check_target, partial_folder

REJECTED_NAME = "rejected.csv"
SHEET_NAME = "contact_sheet.png"


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareOptions:
    """How clips become rows. Raises InputError for a value that makes no sense."""

    size: int
    """Side of the square frames, in pixels."""
    fit: Fit = "crop"
    """How a rectangle becomes a square: its middle, or all of it with background beside it."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB behind transparent pixels and in the padding."""
    codec: Codec = "jpeg"
    """`jpeg`: q95 4:4:4; `png`: lossless."""
    test_share: float = 0.1
    """Share of the identities without a split in the table that is held out for testing; 0: none."""
    max_chunk_frames: int = 64
    """Frames per row at most; longer clips become interleaved chunks."""
    min_frames: int = 2
    """Shorter clips are rejected."""
    max_frames: int | None = None
    """Only this many frames of each clip, after its trim; None: all."""
    seed: int = 0
    """Decides the split and the order of the rows."""

    def __post_init__(self) -> None:
        for ok, name, expected in (
            (self.size >= 8, "size", "at least 8 pixels"),
            (self.fit in get_args(Fit), "fit", " or ".join(get_args(Fit))),
            (self.codec in get_args(Codec), "codec", " or ".join(get_args(Codec))),
            (len(self.background) == 3 and all(0 <= c <= 255 for c in self.background), "background", "0…255 each"),
            (0 <= self.test_share < 1, "test_share", "at least 0 and less than 1"),
            (self.max_chunk_frames >= 2, "max_chunk_frames", "at least 2"),
            (self.min_frames >= 1, "min_frames", "at least 1"),
            (self.max_frames is None or self.max_frames >= self.min_frames, "max_frames", "at least min_frames"),
        ):
            if not ok:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    def encode_options(self) -> EncodeOptions:
        """The part that shapes a single clip."""
        return EncodeOptions(**{name: getattr(self, name) for name in EncodeOptions._fields})


class Progress(NamedTuple):
    """How far `prepare` is: before every clip, and once at the end."""

    done: int
    total: int
    name: str
    """The clip that is read now; empty while shards are written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareReport:
    """What `prepare` made and what it left out."""

    dataset: Path
    manifest: Manifest
    rejected: list[Rejected]
    """Also in `rejected.csv` of the dataset, which is there when this is not empty."""
    notes: list[str]
    """Which table was used, what it left out."""
    seconds: float


def prepare(
    videos: Path,
    dataset: Path,
    *,
    options: PrepareOptions,
    table: Path | None = None,
    name: str | None = None,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> PrepareReport:
    """Read the clips of `videos` (see `find_sources`) and write them to the folder `dataset`.

    Clips that cannot be read are left out and named in the report. `name` goes into the names of models; None: the
    folder's. Raises InputError, and leaves nothing behind, when there is nothing to read, no clip can be read,
    `dataset` is taken, or the disk is full.
    """
    started = time.monotonic()
    check_target(dataset, overwrite=overwrite)
    sources = find_sources(videos, table=table)
    given_splits(sources.clips)  # a split that contradicts itself is told now, not after hours of reading
    with partial_folder(dataset) as folder:
        store = folder / ".store"
        store.mkdir()
        kept, chunks, unreadable = _store_clips(sources.clips, store, options.encode_options(), on_progress)
        rejected = [*sources.rejected, *unreadable]
        if not kept:
            raise InputError(f"{videos}: none of {len(rejected)} clips can be used; first: {rejected[0].reason}")
        manifest = assemble(
            folder,
            chunks,
            splits=assign_splits(given_splits(kept), test_share=options.test_share, seed=options.seed),
            name=dataset_name(name or dataset.absolute().name),
            options={**asdict(options), "background": list(options.background)},  # as it is read back from JSON
            seed=options.seed,
        )
        shutil.rmtree(store)
        save_manifest(manifest, folder)
        _save_rejected(rejected, folder)
        contact_sheet(_sheet_clips(folder, sorted(clip.clip_id for clip in kept))).save(folder / SHEET_NAME)
    return PrepareReport(
        dataset=dataset,
        manifest=manifest,
        rejected=rejected,
        notes=sources.notes,
        seconds=time.monotonic() - started,
    )


def dataset_name(text: str) -> str:
    """`text` in lower case letters, digits and hyphens: fit for the name of a registered model."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "dataset"


def _store_clips(
    clips: Sequence[SourceClip],
    store: Path,
    options: EncodeOptions,
    on_progress: Callable[[Progress], None] | None,
) -> tuple[list[SourceClip], list[StoredChunk], list[Rejected]]:
    """Encode every clip into its own file; which were kept, their chunks, and which were not."""
    kept: list[SourceClip] = []
    chunks: list[StoredChunk] = []
    rejected: list[Rejected] = []
    report = on_progress or (lambda _: None)
    for number, clip in enumerate(clips):
        report(Progress(number, len(clips), clip.source))
        try:
            chunks.extend(store_clip(clip, store / f"{number:06d}.parquet", options=options))
            kept.append(clip)
        except InputError as error:
            rejected.append(Rejected(clip.source, str(error)))
    report(Progress(len(clips), len(clips), ""))
    return kept, chunks, rejected


def _save_rejected(rejected: Sequence[Rejected], folder: Path) -> None:
    if not rejected:
        return
    with (folder / REJECTED_NAME).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(Rejected._fields)
        writer.writerows(rejected)


def _sheet_clips(folder: Path, clip_ids: Sequence[str]) -> list[SheetClip]:
    """Clips spread over the dataset, with frames spread over each."""
    shown = {clip_ids[index] for index in spread(len(clip_ids), MAX_CLIPS)}
    strips = []
    for clip in iter_clips(folder, only=shown):
        indices = spread(clip.num_frames, NUM_FRAMES)
        strips.append(
            SheetClip(
                label=f"{clip.clip_id}  [{clip.identity}]  {clip.split}  {clip.num_frames} frames  {clip.fps:.2f} fps",
                frames=[clip.frame(index) for index in indices],
                points=[] if clip.keypoints is None else [clip.keypoints[index] for index in indices],
            )
        )
    return strips
