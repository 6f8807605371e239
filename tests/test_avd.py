"""Animation via disentanglement: the network, its training and its place in a model."""

import pytest
import torch
from narrow import PIXELS, narrow_model, random_images
from test_regions import REGIONS

from hdam.models.animation import Animator
from hdam.models.avd import AvdNetwork, PoseScales, draw_scales
from hdam.models.avd_objective import AvdObjective
from hdam.models.config import AnchorConfig, AvdConfig, LossConfig
from hdam.models.families import build_model
from hdam.models.growth import add_avd
from hdam.models.objective import build_objective
from hdam.models.optimisation import build_optimisers
from hdam.models.structures import Anchors
from hdam.models.weights import WeightsError


def region_model(**changes):
    torch.manual_seed(0)
    return build_model(narrow_model(family="regionmm", anchors=REGIONS, **changes))


def regions(*, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    affine = torch.randn(batch, 4, 2, 2, generator=generator)
    return Anchors(torch.randn(batch, 4, 2, generator=generator), affine, affine @ affine.mT)


def test_a_pose_is_stretched_as_its_image_would_be():
    stretched = PoseScales(torch.tensor([[2.0, 0.5]])).stretch(
        Anchors(torch.tensor([[[0.3, 0.4]]]), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.zeros(1, 1, 2, 2))
    )
    assert torch.equal(stretched.position, torch.tensor([[[0.6, 0.2]]]))
    assert torch.equal(stretched.affine, torch.tensor([[[[2.0, 4.0], [1.5, 2.0]]]]))
    assert torch.equal(stretched.covariance, stretched.affine @ stretched.affine.mT)


def test_scales_lie_in_their_range_and_follow_from_the_generator():
    drawn = [draw_scales(1000, AvdConfig(stretch=0.1), generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(drawn[0].scale, drawn[1].scale)
    assert drawn[0].scale.min() > 0.9 and drawn[0].scale.max() < 1.1 and drawn[0].scale.std() > 0.05
    assert torch.equal(drawn[0].of(slice(2, 5)).scale, drawn[0].scale[2:5])


def test_axes_of_the_identity_may_be_turned_around():
    torch.manual_seed(0)
    network = AvdNetwork(AvdConfig(), 4).eval()
    identity, pose = regions(), regions(seed=1)
    found, turned = (network(each, pose) for each in (identity, identity._replace(affine=-identity.affine)))
    assert torch.equal(found.affine, turned.affine) and torch.equal(found.position, turned.position)
    torch.testing.assert_close(found.covariance, found.affine @ found.affine.mT)
    points = network(identity._replace(covariance=None), pose._replace(covariance=None))
    assert points.covariance is None


def test_it_learns_with_the_rest_of_the_model_as_it_was():
    objective = build_objective(
        narrow_model(family="regionmm", anchors=REGIONS, has_avd=True), LossConfig(perceptual=PIXELS)
    )
    assert isinstance(objective, AvdObjective)
    torch.nn.init.normal_(objective.model.detector.heatmap_head.weight, std=0.1)
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    optimiser = build_optimisers(objective, lr=1e-3, betas=(0.9, 0.99)).model
    images = random_images(64, batch=4), random_images(64, batch=4, seed=1)
    history = []
    for step in range(60):
        objective.train()
        losses, transfer = objective(*images, objective.draw(4, generator=torch.Generator().manual_seed(step)))
        assert transfer is None and losses.keys() == {"avd_position", "avd_affine"}
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        history.append(sum(losses.values()).item())
    assert history[-1] < 0.5 * history[0]
    after = objective.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("avd.") for name in changed)


def test_a_preview_takes_the_pose_through_the_network():
    model = region_model(has_avd=True).eval()
    source, driving = random_images(64), random_images(64, seed=1)
    preview = AvdObjective(model, LossConfig()).eval().preview(source, driving)
    expected = model.avd(model.detect(source).motion, model.detect(driving).motion)
    torch.testing.assert_close(preview.driving.motion.position, expected.position)
    animated = Animator(model, source[:1], mode="avd").frame(driving[:1])
    torch.testing.assert_close(animated.image, preview.image[:1], rtol=0, atol=1e-4)


def test_a_model_without_the_network_says_so():
    with pytest.raises(ValueError, match=r"set model.has_avd: true"):
        AvdObjective(region_model(), LossConfig())
    with pytest.raises(ValueError, match=r"mode avd needs a model with an AVD network"):
        Animator(region_model(), random_images(64, batch=1), mode="avd")


def test_a_trained_model_gets_the_network_and_keeps_its_weights():
    small, whole = region_model(), region_model(has_avd=True)
    fresh = {name: value.clone() for name, value in whole.state_dict().items() if name.startswith("avd.")}
    growth = add_avd(whole, small.state_dict(), origin="small")
    state = whole.state_dict()
    assert all(torch.equal(state[name], value) for name, value in (small.state_dict() | fresh).items())
    assert set(growth.copied) == set(small.state_dict()) and set(growth.fresh) == set(fresh) and not growth.grown
    misspelt = {name.replace("heatmap", "heat_map"): value for name, value in small.state_dict().items()}
    with pytest.raises(WeightsError, match=r"small does not fit this model: missing detector.heatmap_head"):
        add_avd(whole, misspelt, origin="small")


def test_points_can_have_the_network_too():
    model = build_model(narrow_model(anchors=AnchorConfig(num_motion=4, num_intermediate=2), has_avd=True)).eval()
    image = random_images(64)
    assert model.repose(image, image).attention is not None
