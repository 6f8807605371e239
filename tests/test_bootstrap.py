"""Intervals over clips against SciPy's bootstrap, against the normal case in closed form, and where there are none."""

import math

import numpy as np
import pytest
from made_evaluations import make_evaluation, one_metric
from scipy import stats

from hdam.platform.compare.bootstrap import difference_interval, mean_interval, resampled_means, weighted_mean
from hdam.platform.compare.entrants import read_entrants
from hdam.platform.compare.scores import score_all, score_metric
from hdam.platform.evaluation.metrics import METRICS

RNG = np.random.default_rng(5)
HARD = RNG.gamma(4, 0.02, 40)
"""How hard each of 40 clips is."""
COUNTS = RNG.integers(20, 200, 40)


def scipys(statistic, *arrays):
    found = stats.bootstrap(
        arrays, statistic, paired=True, vectorized=True, method="percentile", n_resamples=20000, rng=1
    )
    return found.confidence_interval


def mean_over_frames(values, counts, axis=-1):
    return (values * counts).sum(axis) / counts.sum(axis)


def test_the_interval_of_a_mean_over_frames_is_scipys():
    ours = mean_interval(HARD, COUNTS)
    theirs = scipys(mean_over_frames, HARD, COUNTS.astype(float))
    width = theirs.high - theirs.low
    assert ours == pytest.approx(tuple(theirs), abs=0.04 * width)
    assert ours.low < weighted_mean(HARD, COUNTS) < ours.high
    unweighted = mean_interval(HARD, np.ones(40))
    assert unweighted != pytest.approx(tuple(theirs), abs=0.04 * width), "long clips weigh more"


def test_the_interval_of_a_difference_is_scipys_paired_one():
    other = HARD + RNG.normal(0.002, 0.004, 40)
    counts = COUNTS.astype(float)

    def difference(a, b, weights, axis=-1):
        return mean_over_frames(a, weights, axis) - mean_over_frames(b, weights, axis)

    ours = difference_interval((HARD, counts), (other, counts))
    theirs = scipys(difference, HARD, other, counts)
    assert ours == pytest.approx(tuple(theirs), abs=0.04 * (theirs.high - theirs.low))
    alone = mean_interval(HARD, counts)
    assert ours.high - ours.low < 0.2 * (alone.high - alone.low), "what clips have in common cancels"


def test_the_interval_of_many_equal_clips_is_the_normal_one():
    values = np.random.default_rng(0).normal(10, 2, 2000)
    expected = values.mean() + np.array([-1.96, 1.96]) * values.std() / math.sqrt(2000)
    assert mean_interval(values, np.full(2000, 7)) == pytest.approx(expected, abs=0.01)


def test_two_calls_draw_the_same_clips():
    assert np.array_equal(resampled_means(HARD, COUNTS), resampled_means(HARD.copy(), COUNTS.copy()))
    assert np.allclose(resampled_means(HARD + 1, COUNTS), resampled_means(HARD, COUNTS) + 1)


def compared(tmp_path, *models, metric="l1", lengths=None):
    folders = [
        make_evaluation(tmp_path / str(i), one_metric(values, metric=metric, lengths=lengths), version=str(i))
        for i, values in enumerate(models)
    ]
    (score,) = score_all(read_entrants(folders))
    return score


def test_a_model_that_is_better_on_every_clip_is_the_best(tmp_path):
    score = compared(tmp_path, HARD, HARD * 0.9, HARD * 1.1)
    assert score.best == 1
    assert [(pair.first, pair.second) for pair in score.differences] == [(0, 1), (0, 2), (1, 2)]
    assert all(pair.is_clear for pair in score.differences)
    assert score.differences[0].value == pytest.approx(HARD.mean() * 0.1)


def test_higher_is_better_for_some_metrics(tmp_path):
    assert compared(tmp_path, HARD, HARD * 0.9, metric="psnr").best == 0


def test_equal_models_are_never_told_apart(tmp_path):
    score = compared(tmp_path, HARD, HARD)
    assert score.best is None
    assert score.differences[0].value == 0
    assert score.differences[0].interval == (0, 0)


def test_the_best_has_to_be_better_than_every_other_one(tmp_path):
    score = compared(tmp_path, HARD, HARD * 0.5, HARD * 0.5 + RNG.normal(0, 0.01, 40))
    assert [pair.is_clear for pair in score.differences] == [True, True, False]
    assert score.best is None


def test_noise_is_not_a_difference(tmp_path):
    assert compared(tmp_path, HARD, np.random.default_rng(1).permutation(HARD)).best is None


def test_five_clips_are_too_few_whatever_they_say(tmp_path):
    few = compared(tmp_path / "few", HARD[:5], HARD[:5] * 0.5)
    assert few.differences[0].interval.excludes_zero
    assert few.best is None
    assert compared(tmp_path / "enough", HARD[:6], HARD[:6] * 0.5).best == 1


def test_one_clip_has_a_mean_and_no_interval(tmp_path):
    score = compared(tmp_path, [0.5], [0.1])
    assert [each.mean for each in score.models] == [0.5, 0.1]
    assert [each.interval for each in score.models] == [None, None]
    assert score.models[0].reason == "a single clip has no interval"
    assert score.best is None


def test_long_clips_weigh_more(tmp_path):
    score = compared(tmp_path, [0.1, 0.4], [0.1, 0.4], lengths=[30, 10])
    assert score.models[0].mean == pytest.approx((30 * 0.1 + 10 * 0.4) / 40)
    assert (score.models[0].num_clips, score.models[0].num_frames) == (2, 40)


def test_what_is_no_number_gives_no_mean_and_nothing_is_best(tmp_path):
    numbers = one_metric(HARD[:8])
    numbers["reconstruction"]["l1"]["clip3"] = [0.1, float("nan"), float("inf"), 0.1]
    folders = [
        make_evaluation(tmp_path / "a", numbers, version="1"),
        make_evaluation(tmp_path / "b", one_metric(HARD[:8] / 2), version="2"),
    ]
    (score,) = score_all(read_entrants(folders))
    assert score.models[0].mean is None
    assert score.models[0].reason == "2 frames hold what is no number"
    assert score.models[1].mean == pytest.approx(HARD[:8].mean() / 2)
    assert score.differences == ()
    assert score.best is None


def test_frames_without_a_finding_count_for_nobody(tmp_path):
    """Clip 0 has two measured frames in the first model and none in the second: it is in no difference."""
    ours = {"clip0": [1.0, None, 3.0, None]} | {f"clip{i}": [float(i)] * 4 for i in range(1, 8)}
    theirs = {"clip0": [None] * 4} | {f"clip{i}": [i + 1.0] * 4 for i in range(1, 8)}
    folders = [
        make_evaluation(tmp_path / "a", {"reconstruction": {"akd_face": ours}}, version="1"),
        make_evaluation(tmp_path / "b", {"reconstruction": {"akd_face": theirs}}, version="2"),
    ]
    score = score_metric(read_entrants(folders), "reconstruction", METRICS["akd_face"])
    first, second = score.models
    assert first.mean == pytest.approx((1 + 3 + 4 * sum(range(1, 8))) / 30)
    assert (first.num_clips, first.num_frames, first.num_unmeasured) == (8, 30, 2)
    assert (second.num_clips, second.num_frames, second.num_unmeasured) == (7, 28, 4)
    (pair,) = score.differences
    assert (pair.value, pair.num_clips) == (-1, 7)
    assert pair.interval == pytest.approx((-1, -1))
    assert score.best == 0


def test_nothing_found_at_all_is_told(tmp_path):
    nothing = {"reconstruction": {"akd_face": {"clip0": [None, None], "clip1": [None]}}}
    folders = [make_evaluation(tmp_path / name, nothing, version=name) for name in "ab"]
    (score,) = score_all(read_entrants(folders))
    assert {each.reason for each in score.models} == {"no frame has one"}
    assert score.differences == ()
