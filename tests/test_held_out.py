"""The held-out pairs of a training: their score, worked out by hand, and their picture."""

import pytest
import torch
from narrow import narrow_objective
from PIL import Image
from small_training import NUM_FRAMES, make_dataset, moving_square

from hdam.platform.held_out import DRIVING_TIMES, NUM_PAINTED, open_held_out


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    dataset = make_dataset(tmp_path_factory.mktemp("data"), num_clips=8, num_test=3)
    return open_held_out(str(dataset), "test")


def images(clip, frame):
    return torch.from_numpy(moving_square(clip)[frame]).movedim(-1, 0).float() / 255


def test_the_pairs_are_the_first_frames_and_later_ones(held_out):
    assert held_out.source.shape == held_out.driving.shape == (len(DRIVING_TIMES) * 3, 3, 32, 32)
    for number, clip in enumerate((5, 6, 7)):
        assert torch.equal(held_out.source[number], images(clip, 0))
        assert torch.equal(held_out.driving[number], images(clip, round((NUM_FRAMES - 1) / 2)))
        assert torch.equal(held_out.driving[3 + number], images(clip, NUM_FRAMES - 1))


def test_the_score_is_the_mean_error(held_out):
    objective = narrow_objective().train()
    model = objective.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    score = held_out.score(objective)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        painted = model.eval()(held_out.source, held_out.driving).image
    assert score.l1 == pytest.approx((painted - held_out.driving).abs().mean().item(), rel=1e-5)
    assert score.repeat_l1 == pytest.approx((held_out.source - held_out.driving).abs().mean().item(), rel=1e-5)
    assert score.ratio == pytest.approx(score.l1 / score.repeat_l1)


def test_a_picture_has_a_row_for_each_of_some_pairs(held_out, tmp_path):
    objective = narrow_objective().train()
    held_out.paint(objective, tmp_path / "pictures" / "grid.png")
    picture = Image.open(tmp_path / "pictures" / "grid.png")
    assert picture.height > NUM_PAINTED * 128 and objective.training
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["grid.png"]
