"""`prepare`: from videos to a dataset of shards with its manifest; interrupted, it goes on where it was."""

import csv
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hdam.pipelines.assemble import assemble
from hdam.pipelines.clips import Rejected
from hdam.pipelines.contact_sheet import contact_sheet
from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import arriving, locate, reason_of
from hdam.pipelines.layouts import LayoutName, Sources, find_sources
from hdam.pipelines.manifest import Manifest, load_manifest, verify_shards
from hdam.pipelines.prepare_options import PrepareOptions, dataset_name
from hdam.pipelines.splits import StoredChunk, assign_splits, given_splits
from hdam.pipelines.stored import ClipTask, clip_key, sheet_clips, store_clip
from hdam.pipelines.target import Target, dataset_there, is_disk_full, open_target
from hdam.pipelines.tasks import Lost, RunTasks, in_turn
from hdam.pipelines.workspace import WorkArea, clear_leftovers, work_area

REJECTED_NAME = "rejected.csv"
SHEET_NAME = "contact_sheet.png"


class Progress(NamedTuple):
    """How far `prepare` is: at the start, and after every clip and every shard."""

    phase: str
    """`clips`, then `shards`."""
    done: int
    total: int
    num_ready: int
    """Clips that an earlier, interrupted call had finished."""
    num_frames: int
    """Frames encoded by this call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareReport:
    """What `prepare` made and what it left out."""

    dataset: str
    """Its address, as it was asked for."""
    manifest: Manifest
    rejected: list[Rejected]
    """Also in `rejected.csv` of the dataset, which is there when this is not empty."""
    notes: list[str]
    """Which layout and table was used, what it left out."""
    seconds: float
    was_ready: bool = False
    """The same inputs were prepared with the same options before; nothing was done."""


OnProgress = Callable[[Progress], None]


class _Plan(NamedTuple):
    """What there is to do, before a frame is read."""

    options: PrepareOptions
    sources: Sources
    keys: list[str]
    """Name of each clip in the store."""
    name: str
    inputs: str
    """For the manifest."""


def prepare(
    source: str | Path,
    dataset: str | Path,
    *,
    options: PrepareOptions,
    layout: LayoutName | None = None,
    table: str | Path | None = None,
    name: str | None = None,
    overwrite: bool = False,
    run_tasks: RunTasks = in_turn,
    on_progress: OnProgress | None = None,
) -> PrepareReport:
    """Read the clips of `source` (see `find_sources`) and write them to `dataset`; both are paths or URIs.

    Clips that cannot be read are left out and named in the report. `name` goes into the names of models; None: the
    folder's. Whatever ends the call, finished clips stay beside the dataset, and the same call goes on from there; the
    bytes that come out are the same. A dataset that is there with the same inputs and options is left as it is.

    Raises InputError when there is nothing to read, no clip can be read, `dataset` is taken by other inputs, options or
    things, another process prepares it, a store does not answer, or the disk is full.
    """
    started = time.monotonic()
    target = open_target(str(dataset))
    there = dataset_there(target)
    sources = find_sources(source, layout=layout, table=table)
    plan = _plan(sources, options, dataset_name(name or target.name))
    if there is not None and not overwrite:
        manifest, rejected, was_ready = _same_dataset(target, there, plan), list[Rejected](), True
    else:
        with work_area(target) as area, _telling_failures(area):
            kept, unreadable = _store_clips(plan, area, run_tasks, on_progress or (lambda _: None))
            rejected, was_ready = [*sources.rejected, *unreadable], False
            if not kept:
                area.discard()
                raise InputError(f"{source}: none of {len(rejected)} clips can be used; first: {rejected[0].reason}")
            manifest = _make_dataset(plan, area, kept, rejected, run_tasks, on_progress or (lambda _: None))
    return PrepareReport(
        dataset=str(dataset),
        manifest=manifest,
        rejected=rejected,
        notes=sources.notes,
        seconds=time.monotonic() - started,
        was_ready=was_ready,
    )


def _plan(sources: Sources, options: PrepareOptions, name: str) -> _Plan:
    splits = given_splits(sources.clips)  # one that contradicts itself is told now, not after hours of reading
    keys = [clip_key(clip, options.encode_options()) for clip in sources.clips]
    content = [keys, [rejected.file for rejected in sources.rejected], splits, options.recorded(), name]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return _Plan(options, sources, keys, name, digest)


def _same_dataset(target: Target, there: Mapping[str, Any], plan: _Plan) -> Manifest:
    """The manifest of the dataset that is there. Raises InputError unless it is what would come out, and whole."""
    if there.get("inputs") != plan.inputs:
        raise InputError(
            f"{target.asked} is a dataset already, of other inputs or options; choose another folder or say --overwrite"
        )
    manifest = load_manifest(target.address)
    try:
        verify_shards(target.address, manifest, depth="sizes")
    except InputError as error:
        raise InputError(f"{target.asked} is a dataset already, but {error} with --overwrite") from error
    clear_leftovers(target)
    return manifest


def _store_clips(
    plan: _Plan, area: WorkArea, run_tasks: RunTasks, on_progress: OnProgress
) -> tuple[dict[int, list[StoredChunk]], list[Rejected]]:
    """Encode every clip that is not in the store; the chunks of those that can be used, and the others."""
    clips, encode_options = plan.sources.clips, plan.options.encode_options()
    tasks = [
        ClipTask(number, key, clip, area.clips, encode_options)
        for number, (key, clip) in enumerate(zip(plan.keys, clips, strict=True))
    ]
    num_ready, num_frames = len(area.stored_keys() & set(plan.keys)), 0
    kept: dict[int, list[StoredChunk]] = {}
    reasons: dict[int, str] = {}
    on_progress(Progress("clips", 0, len(tasks), num_ready, 0))
    for result in run_tasks(store_clip, tasks):
        if isinstance(result, Lost) or not result.chunks:
            reasons[result.number] = result.reason
        else:
            kept[result.number] = result.chunks
            num_frames += 0 if result.was_there else sum(chunk.num_frames for chunk in result.chunks)
        on_progress(Progress("clips", len(kept) + len(reasons), len(tasks), num_ready, num_frames))
    # The results came in any order; what is made of them must not show it.
    rejected = [Rejected(clips[number].source, reasons[number]) for number in sorted(reasons)]
    return dict(sorted(kept.items())), rejected


def _make_dataset(
    plan: _Plan,
    area: WorkArea,
    kept: Mapping[int, list[StoredChunk]],
    rejected: Sequence[Rejected],
    run_tasks: RunTasks,
    on_progress: OnProgress,
) -> Manifest:
    """Shards, lists and pictures from the store, and the manifest last."""
    given = given_splits(plan.sources.clips[number] for number in kept)
    splits = assign_splits(given, test_share=plan.options.test_share, seed=plan.options.seed)
    area.begin_dataset()
    manifest = assemble(
        area.dataset,
        [chunk for chunks in kept.values() for chunk in chunks],
        splits=splits,
        name=plan.name,
        options=plan.options.recorded(),
        seed=plan.options.seed,
        inputs=plan.inputs,
        run_tasks=run_tasks,
        on_shard=lambda done, total: on_progress(Progress("shards", done, total, 0, 0)),
    )
    filesystem, root = locate(area.dataset)
    if rejected:
        with (
            arriving(filesystem, f"{root}/{REJECTED_NAME}") as path,
            path.open("w", encoding="utf-8", newline="", errors="surrogateescape") as stream,
        ):
            writer = csv.writer(stream)
            writer.writerow(Rejected._fields)
            writer.writerows(rejected)
    with arriving(filesystem, f"{root}/{SHEET_NAME}") as path:
        contact_sheet(list(sheet_clips(list(kept.values()), splits))).save(path, "PNG")
    area.publish(manifest)
    return manifest


@contextmanager
def _telling_failures(area: WorkArea) -> Iterator[None]:
    """What ends a preparation and is nobody's mistake in the code, as an InputError that says how to go on."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            reason = "no space left on the disk (preparing a dataset takes twice its size); free space"
        elif not area.target.is_local:
            reason = f"the store failed: {reason_of(error)}"
        else:
            raise
        raise InputError(
            f"{area.target.asked}: {reason}; finished clips are kept, and the same command goes on from there"
        ) from error
