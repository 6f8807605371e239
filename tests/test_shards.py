"""Shards and manifest: interleaving, reading back by row and by clip, and every way not to match."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdam.pipelines.assemble import STORE_SCHEMA, assemble
from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import decode_frame, decode_mask, encode_frame, encode_mask
from hdam.pipelines.manifest import SCHEMA_VERSION, load_manifest, save_manifest, verify_shards
from hdam.pipelines.shards import SCHEMA, interleave, iter_clips, read_rows, write_shard
from hdam.pipelines.splits import StoredChunk, assign_splits, chunk_ranks, plan_shards

SPLITS = {"ada": "train", "bob": "train", "eve": "test"}


def frame_of(clip, index):
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


@pytest.fixture
def dataset(tmp_path):
    """Five clips of three identities, eve in the test split, clip 4 with ground truth."""
    waiting, folder = tmp_path / "store", tmp_path / "data"
    waiting.mkdir()
    folder.mkdir()
    chunks = [
        *store(waiting, 0, "ada", 10),
        *store(waiting, 1, "ada", 4),
        *store(waiting, 2, "bob", 2),
        *store(waiting, 3, "eve", 9),
        *store(waiting, 4, "bob", 13, truth=True),
    ]
    manifest = assemble(folder, chunks, splits=SPLITS, name="five", options={"size": 8}, seed=0)
    save_manifest(manifest, folder)
    return folder


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


def test_clips_of_one_split_or_of_choice(dataset):
    assert [clip.clip_id for clip in iter_clips(dataset, "test")] == ["clip3"]
    assert [clip.clip_id for clip in iter_clips(str(dataset), only={"clip2", "clip4"})] == ["clip2", "clip4"]
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


def test_counts_add_up(dataset):
    manifest = load_manifest(dataset)
    assert (manifest.counts.clips, manifest.counts.identities, manifest.counts.frames) == (5, 3, 38)
    for name in ("clips", "identities", "rows", "frames", "num_bytes"):
        assert getattr(manifest.counts, name) == sum(getattr(counts, name) for counts in manifest.splits.values())
    assert manifest.counts.num_bytes == sum(path.stat().st_size for path in (dataset / "shards").iterdir())
    verify_shards(dataset, manifest)


def test_fingerprint_follows_the_content(tmp_path):
    def fingerprint(name, *, num_frames=3, options=None, seed=0):
        (tmp_path / name).mkdir()
        chunks = store(tmp_path, 0, "ada", num_frames)
        options = options or {"size": 8}
        return assemble(tmp_path / name, chunks, splits=SPLITS, name=name, options=options, seed=seed).fingerprint

    first = fingerprint("a")
    assert first == fingerprint("b")
    assert len({first, fingerprint("c", num_frames=4), fingerprint("d", options={"size": 8, "fit": "pad"})}) == 3


def test_a_tampered_shard_is_named(dataset):
    manifest = load_manifest(dataset)
    path = dataset / manifest.shards[1].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    verify_shards(dataset, manifest, depth="sizes")
    with pytest.raises(InputError, match=rf"{path.name} has checksum .* expects .* prepare it again"):
        verify_shards(dataset, manifest)
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"{path.name} has {len(content) - 1} bytes, .* expects {len(content)}"):
        verify_shards(dataset, manifest, depth="sizes")
    path.unlink()
    with pytest.raises(InputError, match=rf"{path.name} is missing"):
        verify_shards(dataset, manifest, depth="sizes")
    with pytest.raises(InputError, match=rf"{path.name} is missing"):
        list(read_rows(path))


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


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "is broken"),
        ("[]", "is broken"),
        ("{}", "schema_version"),
        ('{"schema_version": 1, "name": "a"}', "is broken"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}), "update hdam"),
    ],
)
def test_a_broken_manifest_is_one_clear_line(tmp_path, text, word):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=word) as error:
        load_manifest(tmp_path)
    assert "\n" not in str(error.value) and "manifest.json" in str(error.value)


def test_missing_datasets_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="no such dataset"):
        load_manifest(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no manifest\.json"):
        load_manifest(tmp_path)


def test_an_interrupted_shard_leaves_nothing(tmp_path):
    def rows():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "a.parquet", rows())
    assert list(tmp_path.iterdir()) == []


@given(
    st.dictionaries(st.text(max_size=5), st.sampled_from([None, None, "train", "test"]), max_size=30),
    st.floats(0, 0.99),
    st.integers(0, 5),
)
def test_splits_keep_what_is_given_and_hold_out_the_share(given_splits, test_share, seed):
    splits = assign_splits(given_splits, test_share=test_share, seed=seed)
    assert set(splits) == set(given_splits)
    assert all(splits[identity] == split for identity, split in given_splits.items() if split)
    assert splits == assign_splits(dict(reversed(given_splits.items())), test_share=test_share, seed=seed)
    undecided = [identity for identity, split in given_splits.items() if split is None]
    drawn = [identity for identity in undecided if splits[identity] == "test"]
    assert abs(len(drawn) - test_share * len(undecided)) <= 1
    if test_share and len(given_splits) >= 2 and undecided:
        assert set(splits.values()) == {"train", "test"}
    if not test_share:
        assert not drawn


@given(st.lists(st.integers(1, 20 << 20), min_size=1, max_size=60), st.integers(0, 3))
def test_every_chunk_lies_in_one_shard(sizes, seed):
    chunks = [StoredChunk(None, f"c{number}", "i", 0, 1, size) for number, size in enumerate(sizes)]
    plan = plan_shards(chunks, seed=seed)
    assert sorted(chunk.clip_id for shard in plan for chunk in shard) == sorted(chunk.clip_id for chunk in chunks)
    assert len(plan) >= min(8, len(chunks))
    assert all(plan)
    assert plan == plan_shards(chunks[::-1], seed=seed)


def test_ranks_count_the_chunks_of_an_identity_over_its_clips():
    chunks = [StoredChunk(None, clip, "ada", chunk, 1, 1) for clip in ("b", "a") for chunk in range(2)]
    assert chunk_ranks(chunks) == {("a", 0): (0, 4), ("a", 1): (1, 4), ("b", 0): (2, 4), ("b", 1): (3, 4)}


def test_codecs_keep_what_they_promise():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(decode_frame(encode_frame(noise, "png")), noise)
    assert np.abs(decode_frame(encode_frame(noise, "jpeg")).astype(int) - noise).mean() < 5
    labels = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    assert np.array_equal(decode_mask(encode_mask(labels)), labels)
