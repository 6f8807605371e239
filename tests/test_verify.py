"""Checking a dataset: every way to be broken is found, and named by shard, row, clip and frame."""

import multiprocessing
import os
import signal
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media_files import write_dataset
from pyarrow import fs

from hdam.pipelines.examine import examine_shard
from hdam.pipelines.frame_codec import encode_frame, encode_mask
from hdam.pipelines.manifest import Counts, fingerprint_of, load_manifest, save_manifest, sha256_of
from hdam.pipelines.verify import verify
from hdam.pipelines.whole import examine_whole


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path)


def sign(dataset, **changes):
    """Make manifest and shards agree on sizes, checksums and fingerprint, with `changes` to the manifest."""
    manifest = load_manifest(dataset)
    shards = tuple(
        replace(
            shard,
            num_bytes=(dataset / shard.path).stat().st_size,
            sha256=sha256_of(str(dataset / shard.path), filesystem=fs.LocalFileSystem()),
        )
        for shard in manifest.shards
    )

    def weighed(counts, split):
        return replace(counts, num_bytes=sum(shard.num_bytes for shard in shards if split in (None, shard.split)))

    signed = {
        "shards": shards,
        "counts": weighed(manifest.counts, None),
        "splits": {split: weighed(counts, split) for split, counts in manifest.splits.items()},
        "fingerprint": fingerprint_of(manifest.options, shards),
    }
    save_manifest(replace(manifest, **(signed | changes)), dataset)


def rewrite(dataset, change, *, clip="clip4", chunk=0):
    """Let `change` alter the row of a chunk, sign the dataset again, and return name and number of that row."""
    for shard in load_manifest(dataset).shards:
        table = pq.read_table(dataset / shard.path)
        rows = table.to_pylist()
        for number, row in enumerate(rows):
            if (row["clip_id"], row["chunk"]) == (clip, chunk):
                change(row)
                loose = pa.schema([field.with_nullable(True) for field in table.schema])
                pq.write_table(pa.Table.from_pylist(rows, schema=loose), dataset / shard.path, row_group_size=1)
                sign(dataset)
                return shard.path, number
    raise AssertionError("no such chunk")


def faults(dataset):
    """What `verify` finds, without a process of its own for each shard."""
    manifest = load_manifest(dataset)
    found = [examine_shard(str(dataset), shard, size=8) for shard in manifest.shards]
    told = [*(fault for findings in found for fault in findings.faults), *examine_whole(manifest, found)]
    assert all("\n" not in str(fault) for fault in told)
    return told


def test_missing_cut_and_foreign_shards_are_named(dataset):
    missing, cut, foreign, *_ = (shard.path for shard in load_manifest(dataset).shards)
    (dataset / missing).unlink()
    (dataset / cut).write_bytes((dataset / cut).read_bytes()[:-1])
    (dataset / foreign).write_text("x" * (dataset / foreign).stat().st_size)
    found = [(fault.shard, fault.what.split(" (")[0]) for fault in faults(dataset)]
    assert [shard for shard, _ in found] == [missing, cut, foreign, foreign]
    for (_, what), start in zip(found, ("is missing", "has ", "has checksum", "no Parquet file"), strict=True):
        assert what.startswith(start)


def swap(row, column, index, value):
    row[column] = [*row[column][:index], value, *row[column][index + 1 :]]


NOISE = np.zeros((8, 9, 3), np.uint8)

ROW_FAULTS = {
    "no value in identity, frames": lambda row: row.update(identity=None, frames=None),
    "identity is empty": lambda row: row.update(identity=""),
    "split is 'test', the manifest puts its shard into 'train'": lambda row: row.update(split="test"),
    "fps is 0.0": lambda row: row.update(fps=0.0),
    "its frames are said to be 16x16, expected 8x8": lambda row: row.update(height=16, width=16),
    "chunk is 7, expected 0 to": lambda row: row.update(chunk=7),
    "num_chunks is 0": lambda row: row.update(num_chunks=0),
    "chunk_rank is 9": lambda row: row.update(chunk_rank=9),
    "holds no frame": lambda row: row.update(frame_index=[], frames=[], keypoints=None, centroid=None, part_masks=None),
    "frames has 3 entries, frame_index has 4": lambda row: row.update(frames=row["frames"][:3]),
    "keypoints has 1 entries": lambda row: row.update(keypoints=row["keypoints"][:1]),
    "frame_index is not 0, 4, 8, … as of chunk 0 of 4": lambda row: swap(row, "frame_index", 2, 5),
    "keypoints has 2 and 4 numbers": lambda row: swap(row, "keypoints", 1, [0.0, 0.0]),
}


@pytest.mark.parametrize("what", ROW_FAULTS)
def test_a_row_that_contradicts_itself_is_named(dataset, what):
    shard, number = rewrite(dataset, ROW_FAULTS[what])
    found = faults(dataset)
    assert any(what in fault.what for fault in found), found
    assert {(fault.shard, fault.row, fault.clip) for fault in found} == {(shard, number, "clip4")}


FRAME_FAULTS = {
    "cannot be decoded": lambda row: swap(row, "frames", 2, b"\xff\xd8\xff"),
    "is empty": lambda row: swap(row, "frames", 2, None),
    "has shape (8, 9, 3), expected (8, 8, 3)": lambda row: swap(row, "frames", 2, encode_frame(NOISE, "png")),
    "its part mask cannot be decoded": lambda row: swap(row, "part_masks", 2, b""),
    "its part mask has shape (8, 9)": lambda row: swap(row, "part_masks", 2, encode_mask(NOISE[..., 0])),
    "keypoints is [nan, 0.0, 0.0, 0.0], expected": lambda row: swap(row, "keypoints", 2, [np.nan, 0.0, 0.0, 0.0]),
    "keypoints is None": lambda row: swap(row, "keypoints", 2, None),
    "centroid is [0.0], expected": lambda row: swap(row, "centroid", 2, [0.0]),
}


@pytest.mark.parametrize("what", FRAME_FAULTS)
def test_a_damaged_frame_is_named(dataset, what):
    shard, number = rewrite(dataset, FRAME_FAULTS[what])
    (fault,) = faults(dataset)
    assert fault[:1] + fault[2:] == (shard, number, "clip4", 8), fault
    assert what in fault.what


def test_a_shard_of_another_schema_is_named(dataset):
    shard = load_manifest(dataset).shards[0]
    table = pq.read_table(dataset / shard.path)
    fps = table.schema.get_field_index("fps")
    table = table.drop_columns("crop").set_column(fps, "fps", table["fps"].cast(pa.string()))
    pq.write_table(table, dataset / shard.path)
    sign(dataset)
    assert [fault.what for fault in faults(dataset)] == [
        "column 'fps' is string, expected double",
        "has no column 'crop'",
    ]


def test_rows_that_contradict_each_other_are_named(dataset):
    rewrite(dataset, lambda row: row.update(fps=3.0))
    (fault,) = faults(dataset)
    assert fault.clip == "clip4" and fault.what == "fps differs among its chunks: 25.0, 3.0"
    rewrite(dataset, lambda row: row.update(fps=25.0, chunk_rank=(row["chunk_rank"] + 1) % 5))
    (fault,) = faults(dataset)
    assert fault.what == "its identity 'bob' has 5 chunks, but their ranks are not 0 to 4"


def shorten(row):
    row.update({name: values[:-1] for name, values in row.items() if isinstance(values, list)})


CHUNK_FAULTS = {
    "doubled": (lambda row: row.update(chunk=1, frame_index=[1, 4, 7, 10]), {"chunk 1 is there more than once"}),
    "missing": (
        lambda row: row.update(clip_id="new"),
        {"only chunk 1, 2 of its 3 chunks", "only chunk 0 of its 3 chunks", "states 5 clips (all), the shards have 6"},
    ),
    "short": (lambda row: row.update(num_chunks=1, frame_index=[0, 1, 2, 3]), {"num_chunks differs"}),
    "cut": (shorten, {"states 38 frames (all), the shards have 37"}),
}


@pytest.mark.parametrize("case", CHUNK_FAULTS)
def test_clips_that_are_not_whole_are_named(dataset, case):
    change, expected = CHUNK_FAULTS[case]
    rewrite(dataset, change, clip="clip0")
    told = " | ".join(fault.what for fault in faults(dataset))
    assert all(what in told for what in expected), told


def test_a_chunk_of_the_wrong_length_is_named(dataset):
    rewrite(dataset, shorten, clip="clip0", chunk=1)
    assert "chunk 0 has 4 of the clip's 9 frames, expected 3" in [fault.what for fault in faults(dataset)]


def test_an_identity_on_both_sides_is_named(dataset):
    def to_bob(row):
        row.update(identity="bob")

    for chunk in range(3):
        rewrite(dataset, to_bob, clip="clip3", chunk=chunk)
    assert "its identity 'bob' is in more than one split: test, train" in {fault.what for fault in faults(dataset)}


def test_a_manifest_that_counts_wrongly_is_told(dataset):
    manifest = load_manifest(dataset)
    sign(dataset, counts=Counts(**(asdict(manifest.counts) | {"frames": 39})), fingerprint="0" * 64)
    fingerprint, frames = faults(dataset)
    assert fingerprint.shard == frames.shard == "manifest.json"
    assert fingerprint.what.startswith("fingerprint is 000000000000…, its options and checksums give ")
    assert frames.what == "states 39 frames (all), the shards have 38"


def test_a_killed_reader_is_replaced(dataset):
    killed = []

    def kill_once(done, total):
        if not killed:
            killed.extend(child.pid for child in multiprocessing.active_children())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    report = verify(str(dataset), processes=2, on_frames=kill_once)
    assert killed and report.faults == [] and report.num_frames == 38
