"""Which identity goes to which split, and which chunk into which shard at which rank."""

from hypothesis import given
from hypothesis import strategies as st

from hdam.pipelines.splits import StoredChunk, assign_splits, chunk_ranks, plan_shards


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
