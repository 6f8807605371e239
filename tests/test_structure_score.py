"""The structure score on real puppets: a model that knows the truth has the best scores, whatever the road to them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import small_model
from small_training import make_dataset
from test_structure_view import LEVELS
from torch import nn
from typer.testing import CliRunner

from hdam.models.overlap import measure_overlap
from hdam.models.structures import Anchors, AnchorTree, DenseMotion
from hdam.pipelines.errors import InputError
from hdam.pipelines.prepare import PrepareOptions, prepare
from hdam.pipelines.puppets import JOINT_NAMES, PART_NAMES, render_looks, write_puppets
from hdam.pipelines.shards import iter_clips
from hdam.platform.cli import app
from hdam.platform.images import frames_to_images
from hdam.platform.model_folder import write_model
from hdam.platform.structure.overlap import measure_dataset
from hdam.platform.structure.report import flat_scores
from hdam.platform.structure.score import LOOK_TIMES, ScoreSettings, looks, score_structure
from hdam.platform.structure.truth import driving_frames

SIZE = 32
SETTINGS = ScoreSettings(num_frames=8, num_figures=2, num_looks=2)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Puppets, lossless, two of them held out; as many bodies as it takes to span the ways they differ."""
    folder = tmp_path_factory.mktemp("puppets")
    write_puppets(folder / "puppets", num_clips=24, num_frames=6, size=SIZE, test_share=1 / 12)
    return prepare(folder / "puppets", folder / "data", options=PrepareOptions(size=SIZE, codec="png")).dataset


def key(image):
    return (image * 255).round().byte().numpy().tobytes()


class Oracle(nn.Module):
    """Detector and flow of a model that recognises every frame, and knows its truth."""

    def __init__(self, dataset):
        super().__init__()
        self.anchors, self.parts = {}, {}
        for clip in iter_clips(dataset):
            for number in range(clip.num_frames):
                points = torch.from_numpy(np.concatenate([clip.keypoints[number], clip.centroid[number, None]]))
                self.anchors[key(frames_to_images(clip.frame(number)[None], CPU)[0])] = points
                self.parts[points[:-1].numpy().tobytes()] = torch.from_numpy(clip.part_mask(number)).long()
        images = frames_to_images(looks(SIZE, SETTINGS).reshape(-1, SIZE, SIZE, 3), CPU)
        for index in range(SETTINGS.num_figures):
            _, joints = render_looks(
                seed=SETTINGS.look_seed, index=index, frames=LOOK_TIMES, size=SIZE, num_looks=SETTINGS.num_looks
            )
            for pose, points in enumerate(torch.from_numpy(joints)):
                for look in range(SETTINGS.num_looks):
                    image = images.unflatten(0, (SETTINGS.num_figures, len(LOOK_TIMES), -1))[index, pose, look]
                    self.anchors[key(image)] = torch.cat([points, points.mean(0, keepdim=True)])

    def forward(self, *given):
        return self.detect(*given) if len(given) == 1 else self.choose(given[2])

    def detect(self, images):
        points = torch.stack([self.anchors[key(image)] for image in images])
        affine = torch.eye(2).expand(*points.shape[:2], 2, 2)
        return AnchorTree.split(Anchors(points, affine), num_motion=len(JOINT_NAMES), has_root=True, features=None)

    def choose(self, driving):
        """The parts under other names: the background last."""
        parts = torch.stack([self.parts[points.numpy().tobytes()] for points in driving.position])
        masks = nn.functional.one_hot((parts - 1) % (len(PART_NAMES) + 1), len(JOINT_NAMES) + 1).movedim(-1, 1).float()
        return DenseMotion(torch.zeros(len(parts), SIZE, SIZE, 2), masks, masks[:, :1])


def test_a_model_that_knows_the_truth_has_the_best_scores(dataset):
    changes = {"model.anchors.num_motion": len(JOINT_NAMES), "model.anchors.num_intermediate": 0}
    loaded = small_model({**changes, "model.background.kind": "zero"})
    oracle = Oracle(dataset)
    loaded.model.detector, loaded.model.flow = oracle, oracle
    score = score_structure(loaded, dataset, settings=SETTINGS)
    assert score.joints.error < 5e-3, "a sixth of a pixel: the ridge, and few bodies to learn from"
    assert score.joints_all.relative < 0.1
    assert score.root == (0, 0)
    assert 0.01 < score.anchor_mean.error < 0.1, "the mean of the joints is not quite the centroid"
    assert (score.parts_ari, score.pixels_ari, score.parts_iou) == (1, 1, 1)
    assert score.looks == (0, 0)


def test_a_model_that_knows_the_truth_of_other_frames_has_bad_scores(dataset):
    changes = {"model.anchors.num_motion": len(JOINT_NAMES), "model.anchors.num_intermediate": 0}
    loaded = small_model({**changes, "model.background.kind": "zero"})
    oracle = Oracle(dataset)
    order = torch.randperm(len(oracle.anchors), generator=torch.Generator().manual_seed(0)).tolist()
    values = list(oracle.anchors.values())
    oracle.anchors = {name: values[place] for name, place in zip(oracle.anchors, order, strict=True)}
    mixed = torch.randint(0, 11, (SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    oracle.parts = {points[:-1].numpy().tobytes(): mixed for points in values}
    loaded.model.detector, loaded.model.flow = oracle, oracle
    score = score_structure(loaded, dataset, settings=SETTINGS)
    assert score.joints.relative > 0.8
    assert score.root.relative > 0.8
    assert score.looks.relative > 0.8
    assert abs(score.parts_ari) < 0.02
    assert score.parts_iou < 0.2


@pytest.mark.parametrize("family", LEVELS)
def test_every_family_is_scored_the_same_twice(dataset, family):
    loaded = small_model(LEVELS[family])
    heard = []
    score = score_structure(loaded, dataset, settings=SETTINGS, on_clip=lambda done, total: heard.append(done))
    flat = flat_scores(score)
    assert heard == [*range(1, 23), 1, 2]
    has_root = family in ("dam", "hdam")
    assert {name for name, value in flat.items() if value is None} == (
        set() if has_root else {"root.error", "root.relative"}
    )
    assert (score.joints == score.joints_all) is not has_root
    assert 0 <= score.parts_iou <= 1
    assert score_structure(loaded, dataset, settings=SETTINGS) == score


def test_driving_frames_are_spread_and_spare_the_source(dataset):
    clip = next(iter_clips(dataset))
    assert driving_frames(clip, 3) == [1, 3, 5]
    assert driving_frames(clip, 100) == list(range(1, 6))


def test_data_that_cannot_be_scored_is_told(dataset, tmp_path):
    squares = make_dataset(tmp_path)
    with pytest.raises(InputError, match="has no true joints"):
        score_structure(small_model(), str(squares), settings=SETTINGS)
    with pytest.raises(InputError, match="32 pixels wide, the model works on 64"):
        score_structure(small_model({"data.size": 64}), dataset, settings=SETTINGS)


def test_overlap_of_a_dataset_is_that_of_its_pairs(dataset):
    loaded = small_model({"model.ignored": [1]})
    rows = measure_dataset(loaded, dataset, num_frames=8, threshold=0.2)
    found = []
    for clip in iter_clips(dataset, "test"):
        still, *driving = [frames_to_images(clip.frame(number)[None], CPU) for number in [0, *driving_frames(clip, 8)]]
        with torch.no_grad():
            for image in driving:
                tree = loaded.model.detect(image)
                attention = loaded.model.attend(tree)
                found.append(measure_overlap(loaded.model.detect(still), tree, attention, ignored=(1,), threshold=0.4))
    assert [row.intermediate for row in rows] == [0, 1]
    for row in rows:
        of = [[tensor[0, row.intermediate].item() for tensor in each] for each in found]
        nearest, distance, is_overlap, residual = zip(*of, strict=True)
        assert row.nearest == max(set(nearest), key=nearest.count) != 1
        assert row.nearest_share == pytest.approx(nearest.count(row.nearest) / len(nearest))
        assert row.distance == pytest.approx(np.mean(distance) / 2, rel=1e-4)
        assert row.overlap == pytest.approx(np.mean(is_overlap))
        assert row.residual == pytest.approx(np.mean(residual) / 2, rel=1e-3)


def test_overlap_needs_intermediate_anchors_that_are_attended(dataset):
    with pytest.raises(InputError, match="dam without intermediate anchors"):
        measure_dataset(small_model(LEVELS["dam"]), dataset)
    with pytest.raises(InputError, match="all its motion anchors are abnormal"):
        measure_dataset(small_model({"model.ignored": [0, 1, 2, 3]}), dataset)


@pytest.fixture
def hdam(tmp_path, monkeypatch):
    """Runs a command in an empty folder that holds the models `hdam` and `fomm`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HDAM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "160")
    for family in ("hdam", "fomm"):
        loaded = small_model(LEVELS[family])
        write_model(tmp_path / family, model=loaded.model, experiment=loaded.experiment)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_scores_of_two_models_are_a_table_a_json_and_a_csv(hdam, dataset, tmp_path):
    done = hdam("structure-score", "hdam", "fomm", "--data", dataset, "--frames", 4, "--figures", 2)
    assert done.exit_code == 0, done.output
    assert "hdam (hdam)" in done.stdout and "fomm (fomm)" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("root to centroid")]
    assert row.endswith("–")
    content = json.loads((tmp_path / "results" / "structure_score.json").read_text())
    assert content["dataset"]["clips"] == {"train": 22, "test": 2}
    assert content["settings"]["num_frames"] == 4
    with (tmp_path / "results" / "structure_score.csv").open() as file:
        rows = list(csv.DictReader(file))
    for model, line in zip(content["models"], rows, strict=True):
        assert model["variant"] == line["variant"] == model["model"]
        for name, value in model["scores"].items():
            assert line[name] == ("" if value is None else str(value))
    cell = f"{100 * content['models'][0]['scores']['joints.error']:.2f}"
    assert cell in done.stdout
    refused = hdam("structure-score", "hdam", "--data", dataset, "--out", "scores.txt")
    assert refused.exit_code == 2
    assert "ends in .json" in refused.stderr


def test_the_overlap_is_told_and_written(hdam, dataset, tmp_path):
    done = hdam("show", "overlap", "hdam", "--data", dataset, "--frames", 4, "--out", "overlap.json")
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "overlap.json").read_text())
    assert content["threshold"] == 0.025
    assert [row["intermediate"] for row in content["intermediate"]] == [0, 1]
    assert f"{100 * content['intermediate'][1]['distance']:.2f}" in done.stdout
    assert len((tmp_path / "overlap.csv").read_text().splitlines()) == 3
    refused = hdam("show", "overlap", "fomm", "--data", dataset)
    assert refused.exit_code == 2
    assert "fomm without intermediate anchors" in refused.stderr


def test_the_structure_of_a_video_is_drawn(hdam, dataset, tmp_path):
    folder = Path(dataset).parent / "puppets" / "clips" / "puppet_0005"
    done = hdam("show", "structure", "fomm", "--driving", folder)
    assert done.exit_code == 0, done.output
    written = tmp_path / "results" / "structure" / "puppet_0005"
    assert str(written / "structure.mp4") in done.stdout
    assert (written / "masks.png").is_file()
