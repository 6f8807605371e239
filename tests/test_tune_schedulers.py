"""What decides, while trials train, which of them go on."""

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, PopulationBasedTraining, TrialScheduler
from small_sweep import small_sweep

from hdam.platform.tune.records import TrialRecord
from hdam.platform.tune.schedulers import make_scheduler

LR, DELTA, MOTION = "optim.lr", "losses.delta", "model.anchors.num_motion"


@pytest.mark.parametrize(
    ("scheduler", "kind"),
    [
        ("none", None),
        ("asha", AsyncHyperBandScheduler),
        ("median", MedianStoppingRule),
        ("pbt", PopulationBasedTraining),
    ],
)
def test_a_scheduler_watches_what_the_sweep_says(dataset, tmp_path, scheduler, kind):
    search = {LR: {"loguniform": [1e-5, 1e-2]}, DELTA: {"uniform": [0.1, 0.5]}, MOTION: {"int": [3, 5]}}
    sweep = small_sweep(tmp_path, dataset, search=search, scheduler=scheduler, algorithm="random", num_trials=2).sweep
    made = make_scheduler(sweep, steps=100)
    assert made is None if kind is None else isinstance(made, kind) and made.metric == "held_out/ratio"


def a_trial(number, history, *, status="finished"):
    return TrialRecord(number=number, point=0, settings={}, seed=number, status=status, history=history)


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_scheduler_knows_of_trials_that_ended_in_an_earlier_start(dataset, tmp_path, scheduler):
    sweep = small_sweep(tmp_path, dataset, search={DELTA: {"grid": [0.1]}}, scheduler=scheduler).sweep

    def is_stopped(known):
        made, trial = make_scheduler(sweep, steps=100, known=known), Trial("trial", stub=True)
        made.on_trial_add(None, trial)
        results = ({"step": step, "held_out/ratio": 0.9} for step in (25, 50, 75))
        return TrialScheduler.STOP in (made.on_trial_result(None, trial, result) for result in results)

    good = [(25, 0.6), (50, 0.5), (75, 0.4)]
    known = [a_trial(number, good) for number in (1, 2)]
    assert is_stopped(known)
    assert not is_stopped([]), "nothing to compare with"
    left = [a_trial(number, good, status="interrupted") for number in (1, 2)]
    assert not is_stopped(left), "they are going to tell it again"


def test_median_stopping_bears_a_trial_that_ends_without_what_is_watched(dataset, tmp_path):
    sweep = small_sweep(tmp_path, dataset, search={DELTA: {"grid": [0.1]}}, scheduler="median").sweep
    made, trials = make_scheduler(sweep, steps=100), [Trial("trial", stub=True) for _ in range(4)]
    made.on_trial_complete(None, trials[0], {"step": 100})
    for trial in trials[1:3]:
        result = {"step": 50, "held_out/ratio": 0.5}
        assert made.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE, (
            "not paused for the next one's sake"
        )
        made.on_trial_complete(None, trial, {**result, "step": 100})
    assert made.on_trial_result(None, trials[3], {"step": 50, "held_out/ratio": 0.9}) == TrialScheduler.STOP
