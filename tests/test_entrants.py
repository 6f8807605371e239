"""The models of a comparison and the clips that it shows: what is comparable, what is chosen, what is said of gaps."""

import pytest
from made_evaluations import make_evaluation, one_metric

from hdam.pipelines.errors import InputError
from hdam.platform.compare.clips import by_clip, choose_clips, choose_metric
from hdam.platform.compare.entrants import read_entrants, shorten, unique_labels
from hdam.platform.compare.plots import course
from hdam.platform.compare.scores import score_all
from hdam.platform.compare.table import to_markdown
from hdam.platform.evaluation.metrics import METRICS


def test_clips_are_chosen_without_repetition():
    values = {f"c{i}": (float(i), i + (5.0 if i == 3 else 0.0)) for i in range(8)}
    chosen = choose_clips(values, METRICS["l1"])
    assert [each.clip_id for each in chosen] == ["c0", "c1", "c7", "c6", "c3"]
    assert [each.reason for each in chosen] == [
        "best", "second best", "worst", "second worst", "largest difference between models",
    ]  # fmt: skip
    assert [each.clip_id for each in choose_clips(values, METRICS["psnr"])][:2] == ["c7", "c6"]
    assert [each.clip_id for each in choose_clips({"a": (1.0, 2.0)}, METRICS["l1"])] == ["a"]
    few = choose_clips({name: values[name] for name in ("c0", "c1", "c2")}, METRICS["l1"])
    assert [each.clip_id for each in few] == ["c0", "c1", "c2"]


def test_the_course_is_the_mean_over_clips_of_each_frame(tmp_path):
    clips = {"a": [1.0, 2.0, 3.0, 9.0], "b": [3.0, None, 5.0], "c": [5.0, 4.0, 4.0], "d": [7.0]}
    folders = [make_evaluation(tmp_path / v, {"reconstruction": {"l1": clips}}, version=v) for v in "12"]
    entrant, _ = read_entrants(folders)
    assert course(entrant, "reconstruction", "l1").tolist() == [4, 3, 4], "one clip of four reaches frame 3"
    assert course(entrant, "cross", "l1").size == 0
    assert course(entrant, "reconstruction", "psnr").size == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dataset": {"name": "faces", "path": "", "fingerprint": "e" * 64, "split": "test"}}, "fingerprint"),
        (
            {"dataset": {"name": "squares", "path": "", "fingerprint": "f1" * 32, "split": "train"}},
            "split test .* train of",
        ),
        ({"settings": {"split": "test", "seed": 1}}, "cross_mode"),
        ({"instruments": {"akd_face": "dlib 19, 68 landmarks"}}, "akd_face: .*dlib 20.* and .*dlib 19"),
        ({"status": "running"}, "no finished evaluation"),
    ],
)
def test_what_is_not_comparable_is_refused(tmp_path, change, told):
    numbers = one_metric([0.1, 0.2], metric="akd_face")
    folders = [
        make_evaluation(tmp_path / "a", numbers),
        make_evaluation(tmp_path / "b", numbers, version="2", **change),
    ]
    if "status" not in change and "instruments" not in change:
        told = f"{tmp_path / 'a'} and {tmp_path / 'b'}.*{told}"
    with pytest.raises(InputError, match=told):
        read_entrants(folders)


def test_one_evaluation_is_no_comparison_nor_is_the_same_twice(tmp_path):
    folder = make_evaluation(tmp_path / "a", one_metric([0.1]))
    with pytest.raises(InputError, match="two models"):
        read_entrants([folder])
    with pytest.raises(InputError, match="twice"):
        read_entrants([folder, tmp_path / "a" / ".." / "a"])
    with pytest.raises(InputError, match="no finished evaluation"):
        read_entrants([folder, tmp_path / "nothing"])


def test_evaluations_without_a_metric_in_common_are_refused(tmp_path):
    folders = [
        make_evaluation(tmp_path / metric, one_metric([0.1, 0.2], metric=metric), version=metric)
        for metric in ("l1", "psnr")
    ]
    with pytest.raises(InputError, match="no metric in common"):
        choose_metric(read_entrants(folders), None)


def test_a_metric_that_one_model_lacks_says_why(tmp_path):
    l1 = one_metric([0.1] * 8)
    both = {"reconstruction": {**l1["reconstruction"], **one_metric([20.0] * 8, metric="psnr")["reconstruction"]}}
    lacking = [("psnr", "it was switched off", "")]
    folders = [make_evaluation(tmp_path / "a", both), make_evaluation(tmp_path / "b", l1, version="2", missing=lacking)]
    entrants = read_entrants(folders)
    text = to_markdown(entrants, score_all(entrants))
    assert "| PSNR, dB ↑ | 20.00 [20.00, 20.00] | – | 8 | 32 |" in text
    assert "PSNR, hdam-squares 2: it was switched off." in text
    assert by_clip(entrants, "reconstruction", "psnr") == {}


def test_labels_are_short_and_tell_models_apart():
    uris = ["runs:/aaa/model", "runs:/bbb/model", "models:/vox/3"]
    assert unique_labels(["model", "model", "vox 3"], uris) == ["aaa/model", "bbb/model", "vox 3"]
    assert unique_labels(["a", "a"], ["x/a", "x/a"]) == ["a (1)", "a (2)"]
    assert shorten("short", 10) == "short"
    assert shorten("a-very-long-name-of-a-model 12", 12) == "a-v…model 12"
