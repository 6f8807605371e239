"""Records of sweeps whose trials have figures that a test has chosen, without any training."""

import random
from itertools import islice

from hdam.platform.runs import STAGES_DIR, RunRecord, write_record
from hdam.platform.tune.points import point_at
from hdam.platform.tune.records import Ledger, TrialRecord

STEPS = 700


def make_ledger(folder, plan, score, *, ended=None, changes=None, num_trials=None):
    """The record of a sweep in `folder`, all of whose trials are finished with `score(settings, seed)`, or not.

    `ended`: number → status of trials that are not; `changes`: number → fields of the record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trials = list(islice(_trials(plan, score, ended or {}, changes or {}), num_trials))
    ledger = Ledger(folder)
    ledger.change(trials=tuple(trials), mlflow_run_id="0123456789abcdef" * 2)
    return ledger


def _trials(plan, score, ended, changes):
    seeds, metric = plan.loaded.sweep.seeds, plan.loaded.sweep.metric
    for index in range(plan.num_trials):
        number, (point, place) = index + 1, divmod(index, len(seeds))
        settings, seed, status = point_at(plan.loaded, point), seeds[place], ended.get(number, "finished")
        value = score(settings, seed)
        history = _history(value, number, share={"stopped": 0.4, "failed": 0.25}.get(status, 1.0))
        known = {"number": number, "point": point, "settings": settings, "seed": seed, "status": status}
        known |= {"history": [] if status == "new" else history, "seconds": 60.0 * number}
        known |= {"metrics": {metric: value} if status == "finished" else {}, "mlflow_run_id": f"{number:032x}"}
        if status == "stopped":
            known["reason"] = f"by asha at step {history[-1][0]} of {STEPS}: held_out/ratio {history[-1][1]:.4g}"
        if status == "failed":
            known["reason"] = "the loss is no number for 10 steps in a row <b>"
        yield TrialRecord(**{**known, **changes.get(number, {})})


def _history(value, number, *, share):
    rng = random.Random(number)
    steps = range(50, STEPS + 1, 50)
    course = [(step, value + 0.5 * 0.7 ** (step / 60) + rng.gauss(0, 0.008)) for step in steps]
    return course[: round(share * len(course))]


def make_pictures(results, ledger, trial, painted):
    """The folders of a trial's stages, with pictures: stage → file names → pictures."""
    for kind, pictures in painted.items():
        folder = results / STAGES_DIR / f"{kind}-made"
        for name, picture in pictures.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / name)
    record = RunRecord(stages={kind: f"{kind}-made" for kind in painted})
    ledger.folder_of(trial).mkdir(exist_ok=True)
    write_record(ledger.folder_of(trial), record)
