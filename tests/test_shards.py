"""Shards: interleaving, reading back by row and by clip, and every way to be incomplete."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import SPLITS, frame_of, write_dataset

from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import decode_frame, decode_mask, encode_frame, encode_mask
from hdam.pipelines.manifest import load_manifest, save_manifest, verify_shards
from hdam.pipelines.shards import SCHEMA, find_clips, interleave, iter_clips, read_clip, read_rows, write_shard


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path)


@given(st.integers(1, 2000), st.integers(2, 100))
def test_interleaved_chunks_share_out_all_frames(num_frames, max_chunk_frames):
    chunks = interleave(num_frames, max_chunk_frames=max_chunk_frames)
    assert sorted(index for chunk in chunks for index in chunk) == list(range(num_frames))
    assert len(chunks) == -(-num_frames // max_chunk_frames)
    lengths = [len(chunk) for chunk in chunks]
    assert max(lengths) <= max_chunk_frames and max(lengths) - min(lengths) <= 1
    # A pair drawn from a chunk can still span the clip.
    assert all(chunk[0] < len(chunks) and chunk[-1] >= num_frames - len(chunks) for chunk in chunks)


def test_clips_come_back_whole_and_in_the_order_of_time(dataset):
    found = list(iter_clips(dataset))
    assert [(clip.clip_id, clip.identity, clip.split, clip.num_frames) for clip in found] == [
        ("clip0", "ada", "train", 10),
        ("clip1", "ada", "train", 4),
        ("clip2", "bob", "train", 2),
        ("clip3", "eve", "test", 9),
        ("clip4", "bob", "train", 13),
    ]
    for number, clip in enumerate(found):
        for index in range(clip.num_frames):
            assert np.array_equal(clip.frame(index), frame_of(number, index))
    truth = found[4]
    assert truth.keypoints.shape == (13, 2, 2)
    assert truth.keypoints[7] == pytest.approx(np.array([[0.07, 0.5], [-0.07, 0.25]]))
    assert truth.centroid[12] == pytest.approx([0.12, 0])
    assert [truth.part_mask(index)[0, 0] for index in range(13)] == list(range(13))
    assert found[0].keypoints is None and found[0].centroid is None
    with pytest.raises(ValueError, match="no part masks"):
        found[0].part_mask(0)


def test_clips_are_found_without_their_frames_and_read_one_by_one(dataset):
    assert [clip.clip_id for clip in iter_clips(dataset, "test")] == ["clip3"]
    places = find_clips(str(dataset))
    assert [(place.clip_id, place.num_frames) for place in places] == [
        (clip.clip_id, clip.num_frames) for clip in iter_clips(dataset)
    ]
    assert read_clip(dataset, places[4]).frames == list(iter_clips(dataset))[4].frames
    with pytest.raises(InputError, match="no split 'val'; it has test, train"):
        list(iter_clips(dataset, "val"))


def test_a_dataset_is_read_by_uri(dataset):
    assert len(list(iter_clips(dataset.as_uri()))) == 5
    verify_shards(dataset.as_uri(), load_manifest(dataset.as_uri()))
    with pytest.raises(InputError, match="no filesystem opens this address"):
        load_manifest("nonsense://bucket/data")


def test_rows_carry_the_columns_of_identity_sampling(dataset):
    manifest = load_manifest(dataset)
    rows = [row for shard in manifest.shards for row in read_rows(dataset / shard.path)]
    assert manifest.counts.rows == len(rows) == 12
    by_identity = {}
    for row in rows:
        assert set(row) == set(SCHEMA.names)
        assert row["split"] == SPLITS[row["identity"]]
        by_identity.setdefault(row["identity"], []).append((row["chunk_rank"], row["num_identity_chunks"]))
    assert {name: sorted(ranks) for name, ranks in by_identity.items()} == {
        "ada": [(rank, 4) for rank in range(4)],
        "bob": [(rank, 5) for rank in range(5)],
        "eve": [(rank, 3) for rank in range(3)],
    }


def test_rows_are_read_by_number_and_column(dataset):
    shard = load_manifest(dataset).shards_of("train")[0]
    rows = list(read_rows(dataset / shard.path, columns=["clip_id", "chunk"]))
    assert all(set(row) == {"clip_id", "chunk"} for row in rows)
    last = len(rows) - 1
    assert [row["clip_id"] for row in read_rows(dataset / shard.path, rows=[last])] == [rows[last]["clip_id"]]
    assert pq.ParquetFile(dataset / shard.path).num_row_groups == len(rows)


def test_a_file_that_is_no_shard_is_named(tmp_path):
    (tmp_path / "x.parquet").write_text("no parquet at all")
    with pytest.raises(InputError, match=r"x\.parquet is damaged"):
        list(read_rows(tmp_path / "x.parquet"))


def test_a_clip_without_all_its_chunks_is_named(dataset):
    manifest = load_manifest(dataset)
    kept = [shard for shard in manifest.shards if shard.split == "test"][1:]
    save_manifest(replace(manifest, shards=tuple(kept)), dataset)
    with pytest.raises(InputError, match="clip clip3: 2 of its 3 chunks found"):
        list(iter_clips(dataset))


def test_an_interrupted_shard_leaves_nothing(tmp_path):
    def rows():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "a.parquet", rows())
    assert list(tmp_path.iterdir()) == []


def test_codecs_keep_what_they_promise():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(decode_frame(encode_frame(noise, "png")), noise)
    assert np.abs(decode_frame(encode_frame(noise, "jpeg")).astype(int) - noise).mean() < 5
    labels = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    assert np.array_equal(decode_mask(encode_mask(labels)), labels)
