"""Experiments: files lie over their bases, and every mistake is one clear line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdam.experiments.duration import Duration
from hdam.experiments.experiment import Experiment
from hdam.experiments.loading import known_keys, load_experiment, override, parse_overrides
from hdam.pipelines.errors import InputError

MINIMAL = "name: mine\nquestion: Does it load?\n"


@pytest.fixture
def written(tmp_path):
    """A function that writes an experiment file below MINIMAL and returns its path."""

    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(MINIMAL + text, encoding="utf-8")
        return path

    return write


def told(call, *arguments):
    """The message of the InputError that `call` raises, which is one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_settings_survive_the_way_to_json_and_back(written):
    experiment = load_experiment(written("optim: {duration: 900 steps, milestones: [1 epoch, 2 epochs]}\n"))
    assert Experiment.model_validate(experiment.settings()) == experiment
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment
    assert override(experiment, {}) == experiment


@pytest.mark.parametrize(
    ("text", "found", "nearest"),
    [
        ("optim: {learning_rat: 1}\n", "optim.learning_rat", "optim.l"),
        ("optim: {batchsize: 1}\n", "optim.batchsize", "optim.batch_size"),
        ("model: {anchors: {num_motions: 3}}\n", "model.anchors.num_motions", "model.anchors.num_motion"),
        ("losses: {perceptual: {netwerk: pixels}}\n", "losses.perceptual.netwerk", "losses.perceptual.network"),
        ("optm: {lr: 1}\n", "optm", "optim"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(written, text, found, nearest):
    path = written(text)
    message = told(load_experiment, path)
    assert message.startswith(f"{path}: unknown key '{found}'; the nearest known key is '{nearest}")


def test_an_unknown_override_names_the_nearest_known_key(written):
    message = told(load_experiment, written(""), {"optim.lrr": 1})
    assert message == "--set optim.lrr: unknown key 'optim.lrr'; the nearest known key is 'optim.lr'"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("optim: {lr: fast}\n", "optim.lr"),
        ("optim: {lr: -1}\n", "optim.lr"),
        ("optim: {duration: 900}\n", "'900 steps' or '100 epochs'"),
        ("model: {anchors: {num_motion: 0}}\n", "num_motion"),
        ("model: {anchors: {has_root: false}}\n", "without a root anchor"),
        ("model: {ignored: [10]}\n", "model.ignored"),
        ("model: {reading: published}\n", "reading"),
        ("data: [1, 2]\n", "data"),
        ("name: Two Words\n", "name"),
        ("optim: {lr: [}\n", "not readable as YAML"),
        ("base: absent.yaml\n", "absent.yaml: no such experiment file"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(written, text, part):
    assert part in told(load_experiment, written(text))


def test_a_file_that_is_no_experiment_is_told(tmp_path, written):
    assert "no such experiment file" in told(load_experiment, tmp_path / "absent.yaml")
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    assert "expected settings as 'key: value', found list" in told(load_experiment, path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "not readable as YAML" in told(load_experiment, path)
    path.write_text("question: Which name?\n")
    assert "name" in told(load_experiment, path)


def test_a_batch_has_to_divide_over_the_workers(written):
    path = written("optim: {batch_size: 9}\nresources: {workers: 2}\n")
    assert "optim.batch_size=9 does not divide over 2 workers; use a multiple of 2" in told(load_experiment, path)
    assert load_experiment(path, {"resources.workers": 3}).resources.workers == 3


def test_a_file_lies_over_its_base(written):
    base = "optim: {lr: 1e-3, batch_size: 8}\nmodel: {anchors: {num_motion: 5, num_intermediate: 2}}\n"
    written(base, "base.yaml")
    path = written("base: base.yaml\noptim: {batch_size: 4}\nmodel: {anchors: {num_intermediate: 0}}\n")
    experiment = load_experiment(path)
    assert (experiment.optim.lr, experiment.optim.batch_size) == (1e-3, 4)
    assert (experiment.model.anchors.num_motion, experiment.model.anchors.variant) == (5, "dam")


def test_a_file_lies_over_two_bases_in_their_order(written, tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "data.yaml").write_text(
        "optim: {lr: 1e-3, batch_size: 8}\nmodel: {anchors: {num_motion: 5}}\n"
    )
    (tmp_path / "base" / "model.yaml").write_text("optim: {batch_size: 4}\nmodel: {anchors: {num_intermediate: 0}}\n")
    path = written("base: [base/data.yaml, base/model.yaml]\nmodel: {anchors: {num_motion: 6}}\n")
    experiment = load_experiment(path)
    assert (experiment.optim.lr, experiment.optim.batch_size) == (1e-3, 4)
    assert (experiment.model.anchors.num_motion, experiment.model.anchors.variant) == (6, "dam")
    path = written("base: [base/model.yaml, base/data.yaml]\n")
    assert load_experiment(path).optim.batch_size == 8


def test_a_base_has_no_base(written):
    written("base: mine.yaml\n", "base.yaml")
    message = told(load_experiment, written("base: base.yaml\n"))
    assert "base.yaml: is a base of" in message and message.endswith(
        "names a base itself, 'mine.yaml'; a base has no base"
    )
    assert "a base has no base" in told(load_experiment, written("base: own.yaml\n", "own.yaml"))
    written("", "good.yaml")
    assert "a base has no base" in told(load_experiment, written("base: [good.yaml, base.yaml]\n"))


def test_a_base_that_is_not_there_is_named_with_the_file_that_names_it(written):
    written("", "good.yaml")
    for bases in ("absent.yaml", "[good.yaml, absent.yaml]"):
        path = written(f"base: {bases}\n")
        missing = path.parent / "absent.yaml"
        assert told(load_experiment, path) == f"{missing}: no such experiment file; {path} names it as its base"


@pytest.mark.parametrize("bases", ["3", "[good.yaml, 3]", "[[good.yaml]]", "[]", "{data: good.yaml}", "''"])
def test_bases_are_one_file_or_a_list(written, bases):
    written("", "good.yaml")
    path = written(f"base: {bases}\n")
    message = told(load_experiment, path)
    assert message.startswith(f"{path}: base: ")
    assert message.endswith("; expected a file or a list of files")


def test_an_empty_section_can_be_filled_and_a_value_cannot(written):
    assert load_experiment(written("data:\n"), {"data.path": "here"}).data.path == "here"
    assert "'data' holds 3" in told(load_experiment, written("data: 3\n"), {"data.path": "here"})


def test_a_training_of_no_length_is_refused(written):
    assert "expected at least 1 step" in told(load_experiment, written("optim: {duration: 0 epochs}\n"))


def test_overrides_are_read_as_yaml():
    pairs = ["optim.lr=1e-4", "data.identity=true", "model.ignored=[1, 2]", "data.path=s3://bucket/x=y", "seed=7"]
    assert parse_overrides(pairs) == {
        "optim.lr": 1e-4,
        "data.identity": True,
        "model.ignored": [1, 2],
        "data.path": "s3://bucket/x=y",
        "seed": 7,
    }
    assert "expected a dotted name and a value" in told(parse_overrides, ["optim.lr"])
    assert "expected a dotted name and a value" in told(parse_overrides, ["=3"])
    assert "not readable as YAML" in told(parse_overrides, ["optim.lr=[1"])


def test_an_override_changes_only_what_it_names(written):
    before = load_experiment(written("optim: {lr: 1e-3}\n"))
    after = override(before, {"optim.duration": "12 steps", "model.anchors.num_intermediate": 0})
    assert after.optim.duration == Duration(12, "steps")
    assert override(after, {"optim.duration": "100 epochs", "model.anchors.num_intermediate": 3}) == before


def test_every_section_has_known_keys():
    keys = set(known_keys(Experiment))
    assert {"optim", "optim.lr", "model.anchors.num_motion", "losses.perceptual.network"} <= keys


@given(count=st.integers(0, 10**6), per_epoch=st.integers(1, 10**4), plural=st.booleans())
def test_durations_count_steps_and_epochs(count, per_epoch, plural):
    ending = "s" if plural else ""
    assert Duration.parse(f"{count} step{ending}").steps(per_epoch) == count
    assert Duration.parse(f" {count} epoch{ending} ").steps(per_epoch) == count * per_epoch
    assert Duration.parse(str(Duration.parse(f"{count} epoch"))) == Duration(count, "epochs")


@pytest.mark.parametrize("text", ["900", 900, "-1 steps", "1.5 epochs", "", "2 hours", "3 steps more", None])
def test_a_length_without_its_unit_is_refused(text):
    with pytest.raises(ValueError, match="write it with its unit"):
        Duration.parse(text)
