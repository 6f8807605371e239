"""Drawing pairs: seeded, sorted, and spread over chunks and identities."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdam.pipelines.pairs import draw_pairs, is_chosen, num_pairs_of_chunk, pair_rng


@given(st.integers(1, 50), st.integers(0, 40), st.integers(0, 2**32))
def test_pairs_are_sorted_and_within_the_row(num_frames, num_pairs, seed):
    drawn = draw_pairs(num_frames, num_pairs=num_pairs, rng=np.random.default_rng(seed))
    assert drawn.shape == (num_pairs, 2)
    assert (drawn[:, 0] <= drawn[:, 1]).all()
    assert ((drawn >= 0) & (drawn < num_frames)).all()


def test_pairs_are_drawn_with_replacement():
    drawn = draw_pairs(4, num_pairs=4000, rng=np.random.default_rng(0))
    assert (drawn[:, 0] == drawn[:, 1]).mean() == pytest.approx(1 / 4, abs=0.03)
    assert np.bincount(drawn.ravel()) / 8000 == pytest.approx([0.25] * 4, abs=0.02)


def test_no_frames_is_an_error():
    with pytest.raises(ValueError, match="at least one frame"):
        draw_pairs(0, num_pairs=1, rng=np.random.default_rng(0))


def test_draws_are_the_same_in_another_process():
    code = (
        "from hdam.pipelines.pairs import *;"
        "print(draw_pairs(100, num_pairs=3, rng=pair_rng(1, 2, 'clip', 3)).tolist(),"
        "[is_chosen('ada', epoch, 0, 1, 3) for epoch in range(20)])"
    )
    here = f"{draw_pairs(100, num_pairs=3, rng=pair_rng(1, 2, 'clip', 3)).tolist()} " + str(
        [is_chosen("ada", epoch, 0, 1, 3) for epoch in range(20)]
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_draws_differ_by_seed_epoch_clip_and_chunk():
    keys = [(0, 0, "a", 0), (1, 0, "a", 0), (0, 1, "a", 0), (0, 0, "b", 0), (0, 0, "a", 1), (0, 0, "a0", 0)]
    draws = {tuple(draw_pairs(1000, num_pairs=4, rng=pair_rng(*key)).ravel()) for key in keys}
    assert len(draws) == len(keys)


@given(st.integers(0, 200), st.integers(1, 30), st.integers(0, 50))
def test_repeats_are_spread_over_the_chunks(repeats, num_chunks, epoch):
    counts = [num_pairs_of_chunk(repeats, chunk, num_chunks, epoch=epoch) for chunk in range(num_chunks)]
    assert sum(counts) == repeats
    assert max(counts) - min(counts) <= 1


@given(st.integers(1, 10), st.integers(1, 12))
def test_no_chunk_is_passed_over_for_ever(repeats, num_chunks):
    seen = [
        sum(num_pairs_of_chunk(repeats, chunk, num_chunks, epoch=epoch) for epoch in range(num_chunks))
        for chunk in range(num_chunks)
    ]
    assert set(seen) == {repeats}


@given(st.text(), st.integers(0, 100), st.integers(0, 100), st.integers(1, 20))
def test_one_chunk_per_identity_and_epoch(identity, epoch, seed, num_chunks):
    chosen = [is_chosen(identity, epoch, seed, rank, num_chunks) for rank in range(num_chunks)]
    assert sum(chosen) == 1


def test_identity_sampling_visits_all_chunks_in_time():
    visits = np.array([[is_chosen("ada", epoch, 0, rank, 4) for rank in range(4)] for epoch in range(2000)])
    assert visits.mean(0) == pytest.approx([0.25] * 4, abs=0.04)
