"""Over many draws: pairs span whole clips, everybody has his turn, and flips and colours come as often as published."""

import numpy as np
import pytest
import torch

from hdam.experiments.experiment import DataConfig
from hdam.pipelines.pairs import draw_pairs, pair_rng
from hdam.pipelines.shards import interleave
from hdam.platform.augmentation import augment, draw
from hdam.platform.pair_plan import IndexRow, PairPlan, epoch_pairs

NUM_FRAMES = {"ada1": 300, "ada2": 64, "bob1": 900, "eve1": 20}
"""Frames of the clips; the first three letters name the identity."""
REPEATS = 40
EPOCHS = 150


def make_plan(*, is_by_identity=False, repeats=REPEATS):
    """Clips in chunks of 64 frames at most, as `hdam prepare` makes them, and the frames of each row."""
    places, frames = [], []
    for clip_id, num_frames in NUM_FRAMES.items():
        chunks = interleave(num_frames, max_chunk_frames=64)
        places.extend((clip_id, number, len(chunks)) for number in range(len(chunks)))
        frames.extend(chunks)
    identities = [clip_id[:3] for clip_id, _, _ in places]
    rows = [
        IndexRow(
            shard=number % 4,
            number=number // 4,
            num_bytes=1e5,
            clip_id=clip_id,
            identity=identities[number],
            chunk=chunk,
            num_chunks=num_chunks,
            chunk_rank=identities[:number].count(identities[number]),
            num_identity_chunks=identities.count(identities[number]),
        )
        for number, (clip_id, chunk, num_chunks) in enumerate(places)
    ]
    plan = PairPlan(
        dataset="none",
        shards=("a", "b", "c", "d"),
        rows=tuple(rows),
        size=8,
        repeats=repeats,
        is_by_identity=is_by_identity,
        batch_size=4,
        seed=3,
    )
    return plan, frames


@pytest.fixture(scope="module")
def drawn():
    """All pairs of many epochs: clip to [pair, 2] of frame numbers in the clip."""
    plan, frames = make_plan()
    pairs = {clip_id: [] for clip_id in NUM_FRAMES}
    for epoch in range(EPOCHS):
        for row, place in enumerate(plan.rows):
            rng = pair_rng(plan.seed, epoch, place.clip_id, place.chunk)
            places = draw_pairs(len(frames[row]), num_pairs=plan.num_pairs(row, epoch), rng=rng)
            pairs[place.clip_id].append(np.array(frames[row])[places])
    return {clip_id: np.concatenate(parts) for clip_id, parts in pairs.items()}


def assert_even(counts):
    """Chi-square: as even as chance would have it, within five standard deviations."""
    counts = np.asarray(counts, float)
    expected = counts.sum() / counts.size
    assert expected >= 5
    chi_square, degrees = ((counts - expected) ** 2 / expected).sum(), counts.size - 1
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees), f"chi-square {chi_square:.1f} of {degrees}"


@pytest.mark.parametrize("clip_id", NUM_FRAMES)
def test_pairs_span_the_whole_clip(drawn, clip_id):
    num_frames = NUM_FRAMES[clip_id]
    distances = np.abs(np.diff(drawn[clip_id], axis=1))[:, 0]
    assert len(distances) == REPEATS * EPOCHS
    # Two frames of a clip without chunks are d apart with probability 2 (n - d) / n², and equal with 1 / n.
    ideal = 2 * (num_frames - np.arange(num_frames)) / num_frames**2
    ideal[0] = 1 / num_frames
    found = np.bincount(distances, minlength=num_frames) / len(distances)
    # The noise of so many draws, and that a chunk of m frames draws one frame twice with 1 / m.
    num_chunks = -(-num_frames // 64)
    shortest = num_frames // num_chunks
    bound = 2 / np.sqrt(len(distances)) + (1.5 / shortest if num_chunks > 1 else 0)
    assert np.abs(found.cumsum() - ideal.cumsum()).max() < bound
    assert distances.max() > 0.9 * num_frames
    assert distances.mean() == pytest.approx(num_frames / 3, rel=0.04)


@pytest.mark.parametrize("clip_id", NUM_FRAMES)
def test_every_frame_is_drawn_as_often_as_any_other(drawn, clip_id):
    counts = np.bincount(drawn[clip_id].ravel(), minlength=NUM_FRAMES[clip_id])
    assert_even(counts)


def test_sources_are_even_over_frames_after_time_flips(drawn):
    pairs = drawn["eve1"]
    draws = draw(len(pairs), DataConfig(time_flip=0.5), generator=torch.Generator().manual_seed(1))
    sources = np.where(draws.is_swapped.numpy(), pairs[:, 1], pairs[:, 0])
    assert_even(np.bincount(sources, minlength=20))
    # As published, the source is the earlier frame where there was no time flip.
    assert (pairs[:, 0] <= pairs[:, 1]).all()


def test_every_clip_has_its_repeats_in_every_epoch():
    plan, _ = make_plan()
    clips = np.array([list(NUM_FRAMES).index(row.clip_id) for row in plan.rows])
    for epoch in range(20):
        pairs = epoch_pairs(plan, epoch)
        assert np.bincount(clips[pairs[:, 0]]).tolist() == [REPEATS] * len(NUM_FRAMES)
        assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_the_pairs_of_a_clip_are_spread_over_the_epoch():
    plan, _ = make_plan()
    clips = np.array([list(NUM_FRAMES).index(row.clip_id) for row in plan.rows])
    firsts, means = [], []
    for epoch in range(EPOCHS):
        order = clips[epoch_pairs(plan, epoch)[:, 0]]
        firsts.append(order[0])
        means.append([np.flatnonzero(order == clip).mean() / len(order) for clip in range(len(NUM_FRAMES))])
    assert_even(np.bincount(firsts, minlength=len(NUM_FRAMES)))
    assert np.mean(means, axis=0) == pytest.approx([0.5] * len(NUM_FRAMES), abs=0.02)


def test_identities_are_visited_evenly_and_all_their_chunks_in_time():
    plan, _ = make_plan(is_by_identity=True)
    visits = np.zeros(len(plan.rows), int)
    for epoch in range(600):
        rows = epoch_pairs(plan, epoch)[:, 0]
        chosen, counts = np.unique(rows, return_counts=True)
        assert sorted(plan.rows[row].identity for row in chosen) == ["ada", "bob", "eve"]
        assert counts.tolist() == [REPEATS] * 3
        visits[chosen] += 1
    for identity in ("ada", "bob"):
        own = [count for row, count in zip(plan.rows, visits, strict=True) if row.identity == identity]
        assert min(own) > 0
        assert_even(own)


NUM_PAIRS = 4000


def augmented(source, driving, **changes):
    """`NUM_PAIRS` augmentations of one pair of pictures (uint8 [height, width, 3]), [pair, 3, height, width] each."""
    many = [torch.from_numpy(picture).expand(NUM_PAIRS, -1, -1, -1) for picture in (source, driving)]
    data = DataConfig(**changes)
    return augment(*many, data, draw(NUM_PAIRS, data, generator=torch.Generator().manual_seed(7)))


def ramp(left, right):
    """Two pixels side by side."""
    return np.array([[[left] * 3, [right] * 3]], np.uint8)


@pytest.mark.parametrize(("time", "horizontal"), [(0.5, 0.5), (0.2, 0.9), (0.0, 0.3), (1.0, 1.0)])
def test_flips_come_as_often_as_published(time, horizontal):
    source, driving = augmented(ramp(10, 20), ramp(30, 40), time_flip=time, horizontal_flip=horizontal)
    first = (source[:, 0, 0] * 255).round().int().tolist()
    kinds = {(10, 20): "none", (20, 10): "mirrored", (30, 40): "swapped", (40, 30): "both"}
    found = [kinds[tuple(pixels)] for pixels in first]
    partner = {"none": [30, 40], "mirrored": [40, 30], "swapped": [10, 20]}
    second = (driving[:, 0, 0] * 255).round().int().tolist()
    assert second == [partner[kind] for kind in found]  # the same happens to both frames
    expected = {"swapped": time, "mirrored": (1 - time) * horizontal, "both": 0}
    for kind, share in expected.items():
        noise = 4.5 * np.sqrt(share * (1 - share) / NUM_PAIRS)
        assert abs(found.count(kind) / NUM_PAIRS - share) <= noise, kind


COLOURS = {
    # What is measured, and where it lies between the ends of the published range, 0…1.
    "brightness": (ramp(100, 100), lambda image: image[:, 0, 0, 0] * 255 / 100),
    "contrast": (ramp(100, 150), lambda image: (image[:, 0, 0, 1] - image[:, 0, 0, 0]) * 255 / 50),
    "saturation": (
        np.array([[[150, 100, 100]]], np.uint8),
        lambda image: (image[:, 0, 0, 0] - image[:, 1, 0, 0]) * 255 / 50,
    ),
    "hue": (
        np.array([[[200, 0, 0]]], np.uint8),
        lambda image: 1 + (image[:, 1, 0, 0] - image[:, 2, 0, 0]) * 255 / 200 / 6,
    ),
}


@pytest.mark.parametrize("name", COLOURS)
def test_colours_are_even_over_the_published_range(name):
    picture, measure = COLOURS[name]
    source, driving = augmented(picture, picture, time_flip=0, horizontal_flip=0, **{name: 0.1})
    assert torch.equal(source, driving)
    factors = np.sort(measure(source).numpy())
    assert factors[0] >= 0.9 - 1e-4 and factors[-1] <= 1.1 + 1e-4
    even = np.linspace(0.9, 1.1, NUM_PAIRS)
    assert np.abs(factors - even).max() < 0.2 * 2 / np.sqrt(NUM_PAIRS)


def test_colours_come_in_every_order():
    data = DataConfig(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1)
    order = draw(24 * 400, data, generator=torch.Generator().manual_seed(2)).order
    assert order.sort(dim=0).values.unique(dim=1).flatten().tolist() == [0, 1, 2, 3]
    assert_even(order.unique(dim=1, return_counts=True)[1])
    assert order.unique(dim=1).shape[1] == 24
