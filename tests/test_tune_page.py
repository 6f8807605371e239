"""The report of a sweep, from records with chosen figures to the page: what it answers, shows and leaves out."""

import base64
import io
import math
import re

import pytest
from made_sweeps import make_ledger, make_pictures
from page_reader import PageReader
from PIL import Image
from rich.console import Console
from small_sweep import small_sweep

from hdam.experiments.sweep import Range
from hdam.platform import tracking
from hdam.platform.tune import sweep as sweeping
from hdam.platform.tune.answer import answer
from hdam.platform.tune.differences import Difference, paired_differences, pooled_spread
from hdam.platform.tune.files import write_report
from hdam.platform.tune.importance import importances
from hdam.platform.tune.plan import plan_sweep
from hdam.platform.tune.report import best_trial, make_report
from hdam.platform.tune.scale import scale_of, wrapped
from hdam.platform.tune.show import show_sweep
from hdam.platform.tune.watch import told_of
from hdam.platform.watchdog import Watchdog

INTERMEDIATE, DELTA, EPSILON, LR = "model.anchors.num_intermediate", "losses.delta", "screen.epsilon", "optim.lr"
DELTAS = {DELTA: {"grid": [0.1, 0.3]}}
CUBE = {INTERMEDIATE: {"grid": [1, 2]}, DELTA: {"grid": [0.1, 0.3]}, EPSILON: {"grid": [0.3, 0.6]}}


@pytest.fixture
def plan_of(dataset, tmp_path):
    def plan(search=DELTAS, **sweep):
        return plan_sweep(small_sweep(tmp_path, dataset, search=search, **sweep))

    return plan


@pytest.fixture
def page_of(tmp_path, results):
    """The page of a made-up sweep, and its record."""

    def page(plan, score=lambda settings, seed: 0.5, **made):
        ledger = make_ledger(tmp_path / "sweep", plan, score, **made)
        *_, path = write_report(plan, ledger)
        return PageReader(path.read_text(encoding="utf-8"))

    return page


def report_of(plan, folder, score, **made):
    return make_report(plan, make_ledger(folder, plan, score, **made))


def by_delta(first, second):
    """The scores of two values of δ, by seed."""
    return lambda settings, seed: (first if settings[DELTA] == 0.1 else second)[seed]


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        (([0.50, 0.52], [0.60, 0.62]), r"a distance of 0\.1, larger than the spread over seeds, 0\.014 \(.*\)\."),
        (([0.50, 0.52], [0.52, 0.54]), r"0\.02, larger than the spread .*so few seeds that is a hint and no proof"),
        (([0.50, 0.56], [0.51, 0.57]), r"0\.01, no larger than .* 0\.042 .*does not tell the two apart"),
        (([0.50], [0.60]), r"a distance of 0\.1\. Every combination was finished with one seed, which tells no"),
    ],
)
def test_the_answer_holds_the_distance_against_the_seeds(plan_of, tmp_path, scores, told):
    plan = plan_of(seeds=[*range(len(scores[0]))])
    best, by_setting = answer(report_of(plan, tmp_path / "sweep", by_delta(*scores)))
    assert best.startswith("The best is delta 0.1: test/ratio 0.5") and "(low is good)" in best
    assert re.search(told, best)
    assert "no value has the 6 pairs that it takes" in by_setting


def test_high_values_may_be_good(plan_of, page_of):
    page = page_of(plan_of(mode="max"), by_delta([0.5], [0.6]))
    assert "The best is delta 0.3: test/ratio 0.6 (high is good). The next, delta 0.1, has 0.5" in page.told


def test_the_answer_is_that_of_the_markdown_too(plan_of, tmp_path):
    plan = plan_of(seeds=[0, 1])
    ledger = make_ledger(tmp_path / "sweep", plan, by_delta([0.50, 0.56], [0.51, 0.57]))
    _, markdown, page = write_report(plan, ledger)
    for sentence in answer(make_report(plan, ledger)):
        assert sentence in markdown.read_text(encoding="utf-8")
        assert sentence in PageReader(page.read_text(encoding="utf-8")).told


def by_cube(settings, seed):
    """Two intermediate anchors are better by 0.1, and so is one ε by 0.01, but for one δ; seeds differ by more."""
    epsilon = 0.01 * (settings[EPSILON] == 0.6) * (1 if settings[DELTA] == 0.1 else -1)
    return 0.9 - 0.1 * settings[INTERMEDIATE] + epsilon + 0.3 * seed


def test_settings_are_compared_in_pairs_that_agree_in_all_else(plan_of, page_of):
    page = page_of(plan_of(CUBE, seeds=[0, 1]), by_cube)
    rows = {row[0]: row[1:] for row in page.rows if len(row) == 6 and row[0] != "Setting"}
    assert rows["num_intermediate"][:3] == ["2", "1", "-0.1"] and rows["num_intermediate"][-1] == "8 of 8"
    assert rows["epsilon"][-1] == "4 of 8" and float(rows["epsilon"][2]) == pytest.approx(0, abs=1e-9)
    assert "<strong>-0.1</strong>" in page.text
    assert "num_intermediate 2 is better than 1 in 8 of 8 (by 0.1 ±" in page.told
    assert "epsilon 0.6 is" not in page.told


@pytest.mark.parametrize(("mode", "word"), [("min", "better"), ("max", "worse")])
def test_equal_pairs_speak_for_neither(plan_of, page_of, mode, word):
    page = page_of(plan_of(seeds=[*range(13)], mode=mode), by_delta([0.5] * 13, [0.4] * 6 + [0.5] * 7))
    assert f"delta 0.3 is {word} than 0.1 in 6 of 13, equal in 7 (by 0.046" in page.told


def test_a_trial_without_a_partner_is_in_no_pair(plan_of, tmp_path):
    plan = plan_of(CUBE, seeds=[0, 1])
    report = report_of(plan, tmp_path / "sweep", by_cube, ended={1: "stopped", 3: "failed"})
    pairs = {each.setting: len(each.pairs) for each in paired_differences(report)}
    assert pairs == {INTERMEDIATE: 6, DELTA: 6, EPSILON: 7}


@pytest.mark.parametrize(
    ("pairs", "is_clear"),
    [([-1.0] * 6, True), ([-1.0] * 5, False), ([-1.0] * 7 + [1.0], False), ([1.0] * 9 + [-1.0], True), ([0.0], False)],
)
def test_a_difference_is_clear_by_the_sign_test(pairs, is_clear):
    assert Difference(setting=DELTA, value=1, reference=0, pairs=tuple(pairs), mode="min").is_clear == is_clear


def test_the_spread_over_seeds_is_that_of_all_combinations(plan_of, tmp_path):
    report = report_of(plan_of(seeds=[0, 1]), tmp_path / "sweep", by_delta([0.1, 0.3], [0.5, 0.9]))
    assert pooled_spread(report.rows) == pytest.approx(math.sqrt((0.2**2 / 2 + 0.4**2 / 2) / 2))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"num_trials": 0}, "The sweep is not done (4 not begun): what follows may change. No trial was finished"),
        (
            {"ended": dict.fromkeys(range(1, 5), "failed")},
            "No trial was finished with a test/ratio: there is no answer",
        ),
        (
            {"num_trials": 3, "ended": {1: "interrupted", 2: "running", 3: "new"}},
            "not done (1 interrupted, 1 new, 1 running, 1 not begun)",
        ),
        ({"num_trials": 1}, "No other combination was finished, so that there is nothing to compare it with."),
        ({"ended": {2: "stopped", 3: "stopped", 4: "stopped"}}, "Trials that none stopped early have no test/ratio"),
    ],
)
def test_there_is_a_page_whatever_has_become_of_the_trials(plan_of, page_of, made, told):
    page = page_of(plan_of(seeds=[0, 1]), **made)
    page.check_is_whole()
    assert told in page.told
    assert "nan" not in page.told.lower().split()


def test_a_metric_that_is_no_number_is_none(plan_of, tmp_path, results):
    plan = plan_of(seeds=[0, 1])
    ledger = make_ledger(tmp_path / "sweep", plan, by_delta([math.nan, math.inf], [0.6, math.nan]))
    assert best_trial(plan, ledger.trials).number == 3
    assert [told.value for told in told_of(ledger.trials, "test/ratio")] == [None, 0.6]
    *_, path = write_report(plan, ledger)
    page = PageReader(path.read_text(encoding="utf-8"))
    page.check_is_whole()
    assert "The best is delta 0.3: test/ratio 0.6 (low is good). No other combination was finished" in page.told
    assert "finished without the metric" in page.told


def test_importance_is_told_from_chance(plan_of, page_of, tmp_path):
    plan = plan_of(CUBE, seeds=[0, 1, 2])

    def score(settings, seed):
        return 0.5 * settings[INTERMEDIATE] + 0.001 * hash((seed, *settings.values())) % 0.01

    found = importances(report_of(plan, tmp_path / "sweep", score))
    first, *others = found
    assert first == INTERMEDIATE and found[first].share > 0.8 > found[first].chance
    assert sum(each.share for each in found.values()) == pytest.approx(1)
    assert all(found[name].share < found[name].chance for name in others)
    page = page_of(plan, score)
    assert "By Optuna's PED-ANOVA, of 24 finished trials" in page.told
    assert f"Not told from chance: {', '.join(others)}." in page.told


def test_importance_of_few_trials_is_left_out(plan_of, page_of):
    few = page_of(plan_of(CUBE), ended={1: "failed"})
    assert "of 7 finished trials they would mean little; 10 are needed" in few.told
    assert "PED-ANOVA" not in few.told


def test_a_population_changes_its_settings(plan_of, page_of):
    search = {LR: {"loguniform": [1e-5, 1e-2]}, "losses.orthogonal": {"choice": [0.1, 1.0]}}
    plan = plan_of(search, algorithm="random", num_trials=12, scheduler="pbt")
    moved = {LR: 0.0123, "losses.orthogonal": 1.0}
    page = page_of(plan, changes={2: {"settings": moved, "changes": [(400, moved)]}})
    page.check_is_whole()
    assert "Trial 2 took over another one's weights at step 400, with lr 0.0123, orthogonal 1." in page.told
    assert "No importances are given: the settings have changed on the way." in page.told
    assert "sign test" not in page.told


def test_charts_tell_their_figures_and_tables_every_trial(plan_of, page_of):
    plan = plan_of({**DELTAS, "model.reading": {"grid": ["paper", "released"]}}, scheduler="asha", seeds=[0, 1])
    page = page_of(plan, by_delta([0.4, 0.6], [0.7, 0.9]), ended={2: "stopped", 5: "failed"})
    page.check_is_whole()
    assert "test/ratio by losses.delta; means: 0.1: 0.4667, 0.3: 0.8333" in page.labels
    assert any(label.startswith("test/ratio by model.reading; means: paper: 0.65") for label in page.labels)
    assert "8 trials over delta, reading, test/ratio" in page.labels
    assert {"best", "worst finished", "stopped early", "failed", "seed 0", "seed 1"} <= set(page.words)
    assert any(label.startswith("held_out/ratio of every trial") for label in page.labels)
    trials = [row for row in page.rows if len(row) == 8 and row[0] != "Trial"]
    assert [row[0] for row in trials] == [str(number) for number in range(1, 9)]
    assert trials[0] == ["1", "0.1", "paper", "0", "finished", "0.4", "1.0", f"{1:032x}"]
    assert trials[1][4].startswith("stopped by asha at step 300 of 700: held_out/ratio") and trials[1][5] == "–"
    assert trials[4][4] == "failed the loss is no number for 10 steps in a row <b>"


def test_a_single_score_is_no_course(plan_of, page_of):
    once = {number: {"history": [(150, 0.6)]} for number in (1, 2)}
    page = page_of(plan_of(), changes=once)
    assert not any(label.startswith("held_out/ratio of every trial") for label in page.labels)
    assert "No trial has told its held_out/ratio twice: a smaller log.checkpoint_every" in page.told
    assert not any(word.startswith("seed ") for word in page.words), "of one seed no colours are told"


def test_many_trials_are_folded_away(plan_of, page_of):
    search = {LR: {"loguniform": [1e-5, 1e-2]}, "losses.root_to_intermediate": {"uniform": [1, 100]}}
    search |= {INTERMEDIATE: {"int": [1, 4]}, "losses.perceptual.scales": {"choice": [[1.0], [1.0, 0.5]]}}
    plan = plan_of(search, algorithm="random", num_trials=26)
    page = page_of(plan, lambda settings, seed: settings[LR])
    page.check_is_whole()
    assert "All trials" in page.words and "All combinations" in page.words
    assert "The best 24 of 26 combinations." in page.told
    assert len(page.rows) == (1 + 24) + (1 + 26) + (1 + 26)
    assert "1e-05 … 0.01 (logarithmic)" in page.told and "[1.0], [1.0, 0.5]" in page.told


def test_the_best_trials_newest_pictures_are_in_the_page(plan_of, tmp_path, results):
    plan = plan_of()
    ledger = make_ledger(tmp_path / "sweep", plan, by_delta([0.6], [0.5]))
    shades = {name: Image.new("RGB", (40, 20), name) for name in ("red", "green", "blue", "white")}
    painted = {
        "dam": {"pictures/step-00000900.png": shades["red"]},
        "screen": {"screening.png": shades["white"]},
        "hdam": {"pictures/step-00000600.png": shades["green"], "pictures/step-00000700.png": shades["blue"]},
        "evaluate": {},
    }
    make_pictures(results, ledger, ledger.trial(2), painted)
    *_, path = write_report(plan, ledger)
    page = PageReader(path.read_text(encoding="utf-8"))
    shown = [base64.b64decode(link.partition(",")[2]) for link in page.links if link.startswith("data:image/png")]
    assert [Image.open(io.BytesIO(each)).getpixel((0, 0)) for each in shown] == [(0, 0, 255), (255, 255, 255)]
    assert "Held-out pairs at step 700 of stage hdam" in page.labels
    assert "Pictures of trial 2, the best" in page.words


def test_pictures_that_are_gone_are_told(plan_of, page_of, results):
    assert f"None are left in {results}/stages." in page_of(plan_of()).told


@pytest.mark.parametrize(
    ("values", "space", "kind", "labels"),
    [
        ([1, 2, 3], {"grid": [1, 2, 3]}, "linear", ["1", "2", "3"]),
        ([1e-5, 1e-4, 1e-2], {"grid": [1e-5, 1e-4, 1e-2]}, "log", ["1e-05", "0.0001", "0.01"]),
        ([0.0, 1e-4, 1.0], {"grid": [0.0, 1e-4, 1.0]}, "listed", ["0", "0.0001", "1"]),
        ([True, False], {"choice": [True, False]}, "listed", ["True", "False"]),
        ([None, 1], {"grid": [None, 1]}, "listed", ["None", "1"]),
        ([[1.0], [1.0, 0.5]], {"grid": [[1.0], [1.0, 0.5]]}, "listed", ["[1.0]", "[1.0, 0.5]"]),
        ([0.001, 0.7], {"uniform": [0, 1]}, "linear", ["0.2", "0.4", "0.6"]),
        ([2e-5, 3e-3], {"loguniform": [1e-5, 1e-2]}, "log", ["0.0001", "0.001"]),
        ([4, 4], {"int": [1, 5]}, "linear", ["1", "2", "3", "4", "5"]),
        ([0.5], None, "linear", ["0.5"]),
    ],
)
def test_an_axis_suits_its_values(values, space, kind, labels):
    scale = scale_of(values, None if space is None else Range.model_validate(space))
    assert scale.kind == kind
    assert [label for _, label in scale.ticks] == labels
    assert all(0 <= scale.place(value) <= 1 for value in values)


def test_names_are_broken_where_their_words_end():
    assert wrapped("intermediate_to_motion", 13) == "intermediate_\nto_motion"
    assert wrapped("losses.delta", 7) == "losses.\ndelta"
    assert wrapped("0.25", 4) == "0.25"


def test_the_screen_names_the_page(plan_of, tmp_path):
    console = Console(file=io.StringIO(), width=200)
    show_sweep(report_of(plan_of(), tmp_path / "sweep", by_delta([0.5], [0.6])), console)
    assert f"the report is {tmp_path / 'sweep' / 'report.html'}" in console.file.getvalue()


def test_a_sweep_that_is_stopped_leaves_a_report(plan_of, tmp_path, results, monkeypatch):
    plan = plan_of({LR: {"grid": [1e-3, 1e-4]}})
    ledger = make_ledger(tmp_path / "sweep", plan, lambda settings, seed: 0.5, ended={2: "new"})
    ledger.change(mlflow_run_id="")
    with Watchdog() as watchdog:
        sweep = sweeping._Sweep(plan, ledger, client=tracking.connect(), watchdog=watchdog)

        def do_trials(guard):
            ledger.change_trial(2, status="interrupted")
            raise KeyboardInterrupt

        monkeypatch.setattr(sweep, "_do_trials", do_trials)
        with pytest.raises(KeyboardInterrupt):
            sweep.finish()
    page = PageReader((ledger.folder / "report.html").read_text(encoding="utf-8"))
    assert "The sweep is not done (1 finished, 1 interrupted): what follows may change." in page.told
