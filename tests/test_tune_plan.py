"""What a sweep is going to do: its trials, the stages that they share, what fits and what it costs."""

import json
import re
from pathlib import Path

import pytest
from small_sweep import STEPS, small_sweep, write_sweep
from typer.testing import CliRunner

from hdam.experiments.experiment import ResourceConfig
from hdam.pipelines.errors import InputError
from hdam.platform import cluster, locks
from hdam.platform.checkpoints import write_checkpoint
from hdam.platform.cli import app
from hdam.platform.locks import locked
from hdam.platform.runs import STAGES_DIR, StageRecord, write_json, write_record
from hdam.platform.tune.cost import estimate
from hdam.platform.tune.plan import check_fits, plan_sweep
from hdam.platform.tune.points import Told, point_at
from hdam.platform.tune.records import Ledger, TrialRecord
from hdam.platform.tune.report import best_trial, rows_of
from hdam.platform.tune.sweep import tune
from hdam.platform.tune.watch import Queue, told_of

INTERMEDIATE = "model.anchors.num_intermediate"
DELTA, EPSILON = "losses.delta", "screen.epsilon"
SEARCH = {INTERMEDIATE: {"grid": [1, 2]}, DELTA: {"grid": [0.3]}, EPSILON: {"grid": [0.3, 100.0]}}
ANY = {"algorithm": "optuna", "num_trials": 5}


def kinds_shared(plan):
    """Kinds of the stages that are done before the trials, each once."""
    return sorted({(stage.kind, stage.name) for shared in plan.shared for stage in shared.stages})


def test_the_dam_is_shared_and_a_screening_by_those_of_its_epsilon(dataset, results, tmp_path):
    plan = plan_sweep(small_sweep(tmp_path, dataset, search=SEARCH))
    assert plan.num_trials == 4 and plan.steps == STEPS
    assert [kind for kind, _ in kinds_shared(plan)] == ["dam", "screen", "screen"]
    assert len({stage.name for trial in plan.trials for stage in trial.stages}) == 3 + 4 * 2
    assert not results.exists()


def test_every_seed_has_a_dam_of_its_own(dataset, tmp_path):
    plan = plan_sweep(small_sweep(tmp_path, dataset, search={DELTA: {"grid": [0.1, 0.2]}}, seeds=[0, 1]))
    assert plan.num_trials == 4
    assert [kind for kind, _ in kinds_shared(plan)] == ["dam", "dam", "screen", "screen"]


def test_what_depends_on_the_search_is_not_shared(dataset, tmp_path):
    assert not plan_sweep(small_sweep(tmp_path, dataset, search={"optim.lr": {"grid": [1e-3, 1e-4]}})).shared


def test_members_of_a_population_share_what_comes_before_the_model(dataset, tmp_path):
    search = {"losses.orthogonal": {"choice": [1.0]}}
    population = {"search": search, "algorithm": "random", "num_trials": 2, "scheduler": "pbt"}
    plan = plan_sweep(small_sweep(tmp_path, dataset, **population))
    assert [kind for kind, _ in kinds_shared(plan)] == ["dam", "screen"]


def test_a_search_that_learns_shares_what_no_point_changes(dataset, tmp_path):
    search = {DELTA: {"uniform": [0.1, 0.5]}, EPSILON: {"choice": [0.3, 100.0]}}
    plan = plan_sweep(small_sweep(tmp_path, dataset, search=search, **ANY))
    assert plan.num_trials == 5 and plan.is_learning
    assert [kind for kind, _ in kinds_shared(plan)] == ["dam"]


def test_the_same_question_is_the_same_sweep_however_many_trials(dataset, tmp_path):
    def name(**changes):
        return plan_sweep(small_sweep(tmp_path, dataset, **{"search": SEARCH, **changes})).name

    assert name() == name(num_trials=2) == name(concurrency=1, resources={"data_cpus": 0.5})
    assert len({name(), name(seeds=[1]), name(changes={"optim.lr": 0.1}), name(mode="max")}) == 4


@pytest.mark.parametrize(
    ("cpus", "concurrency", "told"),
    [
        (8, 4, None),
        (8, 5, r"concurrency=5 trials need 2 CPUs each, together 10; this machine has 8; concurrency: 4 fits"),
        (1, 1, r"use at most"),
    ],
)
def test_a_sweep_that_does_not_fit_says_what_would(monkeypatch, cpus, concurrency, told):
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "usable_cpus", lambda: cpus)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    resources = ResourceConfig(workers=2, cpus_per_worker=0.5, data_cpus=1)
    if told is None:
        check_fits(resources, concurrency)
        return
    with pytest.raises(InputError, match=told):
        check_fits(resources, concurrency)


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ({"metric": "test/psnr"}, r"metric: test/psnr is none of the evaluation; it has test/l1"),
        ({"watched": "held_out/psnr"}, r"there are held_out/l1 and held_out/ratio"),
        ({"metric": "loss/nothing"}, r"loss/nothing: the training of squares logs no such loss; it logs loss/total, "),
        ({"watched": "loss/gan"}, r"loss/gan: the training of squares logs no such loss"),
        ({"metric": "loss/orthogonal", "watched": "loss/total"}, None),
        ({"concurrency": 400}, r"concurrency=400 trials need"),
        ({"search": {"resources.cpus_per_worker": {"grid": [0.5, 4000]}}}, r"this machine has"),
        ({"search": {"optim.batch_size": {"grid": [8, 4000]}}}, None),
    ],
)
def test_mistakes_are_told_before_anything_is_written(dataset, results, tmp_path, sweep, told):
    loaded = small_sweep(tmp_path, dataset, **{"search": SEARCH, **sweep})
    if told is None:  # a trial that will fail is a trial's matter
        assert plan_sweep(loaded).num_trials in (2, 4)
    else:
        with pytest.raises(InputError, match=told):
            tune(loaded)
    assert not results.exists()


def test_there_has_to_be_something_to_restore(dataset, results, tmp_path):
    with pytest.raises(InputError, match=r"--restore: .*sweep-\w+ is not there"):
        tune(small_sweep(tmp_path, dataset, search=SEARCH), restore=True)
    assert not results.exists()


def test_a_sweep_that_is_at_work_is_left_to_it(dataset, results, tmp_path, monkeypatch):
    loaded = small_sweep(tmp_path, dataset, search=SEARCH)
    folder = results / "sweeps" / plan_sweep(loaded).name
    monkeypatch.setattr(locks, "SECONDS_OF_PATIENCE", 0.0)
    with locked(folder), pytest.raises(InputError, match=r"is being worked on by another process; wait for it$"):
        tune(loaded)
    assert not (folder / "sweep.json").exists()


def dry_run(path, *arguments):
    done = CliRunner().invoke(app, ["tune", str(path), "--dry-run", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_a_dry_run_says_what_would_be_done(dataset, results, tmp_path):
    path = write_sweep(tmp_path, dataset, search=SEARCH)
    said = dry_run(path)
    assert "4 trials by grid search, 1 at a time" in said
    shared = re.search(r"Done before the trials, which share them: (.*) No measurement", said)[1]
    assert re.fullmatch(r"dam-\w+, screen-\w+, screen-\w+", shared)
    assert "No measurement: nothing of this kind and size was trained here yet: dam, hdam" in said
    assert not results.exists()
    assert "3 trials by grid search" in dry_run(path, "--trials", "3")


def measured(results, kind, *, speed, size=32, status="failed"):
    """The folder of a training of some speed."""
    folder = results / STAGES_DIR / f"{kind}-measured"
    folder.mkdir(parents=True)
    write_json(folder / "progress.json", {"total": 10, "step": 10, "pairs_per_second": speed})
    write_checkpoint(
        folder, {"step": 10}, step=10, keep=1, experiment={"data": {"size": size}, "resources": {"workers": 2}}
    )
    write_record(folder, StageRecord(status=status))


def test_the_cost_is_that_of_what_is_left_by_the_speed_that_was_measured(dataset, results, tmp_path):
    measured(results, "dam", speed=48.0)
    measured(results, "hdam", speed=16.0, size=64)
    path = write_sweep(tmp_path, dataset, search=SEARCH)
    plan = plan_sweep(small_sweep(tmp_path, dataset, search=SEARCH))
    cost = estimate(plan)
    assert cost.shared_seconds == pytest.approx(12 * 8 / 48) and cost.trials_seconds == 0
    assert cost.unknown == ("hdam",), "another size says nothing"
    said = dry_run(path)
    assert "by the pairs/s of dam-measured" in said and "trained here yet: hdam" in said
    dam = plan.shared[0].stages[0]
    write_record_of_finished(results, dam)
    assert estimate(plan).shared_seconds == 0
    assert f"{dam.name} (known), screen-" in dry_run(path)


def write_record_of_finished(results, stage):
    folder = results / STAGES_DIR / stage.name
    folder.mkdir()
    write_record(folder, StageRecord(status="finished", result={}))


def a_trial(number, point, value, **changes):
    metrics = {} if value is None else {"test/ratio": value}
    settings = {DELTA: [0.1, 0.2, 0.3][point]}
    known = {"number": number, "point": point, "settings": settings, "seed": number, "status": "finished"}
    return TrialRecord(**{**known, "metrics": metrics, **changes})


def test_the_best_is_that_of_the_best_mean_over_seeds(dataset, tmp_path):
    trials = [
        a_trial(1, 0, 0.4), a_trial(2, 0, 0.9), a_trial(3, 1, 0.6), a_trial(4, 1, 0.5),
        a_trial(5, 2, 0.1, status="stopped"), a_trial(6, 2, None, status="failed", reason="no memory"),
    ]  # fmt: skip
    plan = plan_sweep(small_sweep(tmp_path, dataset, search={DELTA: {"grid": [0.1, 0.2, 0.3]}}, seeds=[0, 1]))
    rows = rows_of(plan, trials)
    assert [row.settings[DELTA] for row in rows] == [0.2, 0.1, 0.3]
    assert rows[0].mean == pytest.approx(0.55) and rows[0].spread == pytest.approx(0.0707, abs=1e-4)
    assert best_trial(plan, trials).number == 4
    assert best_trial(plan, trials[4:]) is None


def test_what_was_found_is_told_to_the_search(dataset, tmp_path):
    trials = [
        a_trial(1, 0, 0.4), a_trial(2, 0, 0.6), a_trial(3, 1, None, status="stopped", history=[(4, 0.9)]),
        a_trial(4, 2, None, status="failed"),
    ]  # fmt: skip
    found = told_of(trials, "test/ratio")
    assert found == [
        Told(point={DELTA: 0.1}, value=0.5), Told(point={DELTA: 0.2}, value=None, history=((4, 0.9),))
    ]  # fmt: skip
    search = {DELTA: {"uniform": [0.0, 1.0]}}
    loaded = small_sweep(tmp_path, dataset, search=search, algorithm="optuna", num_trials=60)
    told = []
    for index in range(40):
        point = point_at(loaded, index, told)
        told.append(Told(point=point, value=(point[DELTA] - 0.7) ** 2))
    late = [abs(each.point[DELTA] - 0.7) for each in told[25:]]
    assert sorted(late)[len(late) // 2] < 0.15, "it looks where results were good"


def test_a_queue_goes_on_with_what_has_not_ended(dataset, tmp_path):
    plan = plan_sweep(small_sweep(tmp_path, dataset, search={DELTA: {"grid": [0.1, 0.2, 0.3]}}))
    ledger = Ledger(tmp_path)
    first = Queue(plan, ledger)
    assert [first.next().number for _ in range(2)] == [1, 2]
    ledger.change_trial(1, status="finished")
    ledger.change_trial(2, status="running")
    again = Queue(plan, Ledger(tmp_path))
    assert again.num_left == 2
    assert [(trial.number, trial.settings) for trial in iter(again.next, None)] == [
        (2, {DELTA: 0.2}),
        (3, {DELTA: 0.3}),
    ]
    closed = Queue(plan, Ledger(tmp_path))
    closed.is_closed = True
    assert closed.next() is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["puppets64.yaml"], "is an experiment, not a sweep: hdam train takes it"),
        (["search_structure.yaml", "--dry-run", "--restore"], "give one of them"),
        (["search_structure.yaml", "--dry-run", "--retry"], "give one of them"),
        (["search_structure.yaml", "--trials", "0"], "greater than or equal to 1"),
        (["search_structure.yaml", "--set", "losses.delta=0.2"], "search_structure.yaml searches it"),
        (["search_structure.yaml", "--dry-run"], "no dataset given; set data.path"),
        (["search_structure.yaml", "--set", "optim.lrr=1"], "the nearest known key is 'optim.lr'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(results, arguments, told):
    done = CliRunner().invoke(app, ["tune", *arguments])
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())


def test_a_broken_record_is_named(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"trials": [{"nummer": 1}]}))
    with pytest.raises(InputError, match=r"sweep.json is broken; remove"):
        Ledger(Path(tmp_path))
