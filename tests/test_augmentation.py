"""The published augmentation: shares, orders and factors as drawn, and each adjustment by its definition."""

import colorsys

import pytest
import torch

from hdam.experiments.experiment import DataConfig
from hdam.platform import augmentation
from hdam.platform.augmentation import (
    Draws,
    adjustments_of,
    augment,
    brightness,
    contrast,
    draw,
    flip,
    hue,
    jitter,
    saturation,
)

ALL = DataConfig(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.2)


def jittered(pairs, data, draws=None):
    """`pairs` after the colour jitter of `data`, and what was drawn for it."""
    draws = draws or draw(len(pairs), data, generator=torch.Generator().manual_seed(0))
    return jitter(pairs, draws, [adjust for adjust, _, _ in adjustments_of(data)]), draws


def frames(count=6, size=8, seed=0):
    return torch.randint(
        0, 256, (2, count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def colours(count=6, size=8, seed=0):
    return torch.rand(count, 2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_without_widths_and_flips_nothing_changes():
    before, data = frames(), DataConfig(time_flip=0, horizontal_flip=0)
    after = augment(*before, data, draw(len(before[0]), data, generator=torch.Generator()))
    for image, frame in zip(after, before, strict=True):
        assert torch.equal(image, frame.movedim(-1, 1).float() / 255)


def test_a_batch_is_changed_as_its_pairs_would_be_one_by_one():
    source, driving = frames(5)
    draws = draw(5, ALL, generator=torch.Generator().manual_seed(3))
    found = torch.stack(augment(source, driving, ALL, draws), dim=1)
    pairs = torch.stack([source, driving], dim=1).movedim(-1, 2).float() / 255
    expected, _ = jittered(flip(pairs, draws), ALL, draws)
    assert torch.allclose(found, expected, atol=1e-6)


def test_flips_have_the_published_shares():
    pairs = torch.zeros(4000, 2, 3, 1, 2)
    pairs[:, 0, :, :, 0], pairs[:, 1, :, :, 0] = 0.5, 1.0  # marks the source, and the left side
    flipped = flip(pairs, draw(4000, DataConfig(), generator=torch.Generator().manual_seed(0)))
    is_swapped = flipped[:, 0].amax((1, 2, 3)) == 1
    is_mirrored = flipped[..., 1].amax((1, 2, 3)) > 0
    assert is_swapped.float().mean() == pytest.approx(0.5, abs=0.03)
    assert is_mirrored.float().mean() == pytest.approx(0.25, abs=0.03)
    assert not (is_swapped & is_mirrored).any()


def test_jitter_is_the_same_for_both_frames_and_another_for_every_pair():
    pairs = colours()[:1].expand(6, -1, -1, -1, -1).clone()
    pairs[:, 1] = pairs[:, 0]
    changed, draws = jittered(pairs, ALL)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert len({tuple(pair.flatten()[:8].tolist()) for pair in changed}) == 6
    assert changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(changed, jittered(pairs, ALL)[0])
    assert sorted(draws.order[:, 0].tolist()) == [0, 1, 2, 3]


def test_factors_span_their_widths_and_orders_are_all_drawn():
    draws = draw(6000, ALL, generator=torch.Generator().manual_seed(0))
    for factors, (_, centre, width) in zip(draws.factors, adjustments_of(ALL), strict=True):
        assert centre - width <= factors.min() < centre - 0.98 * width
        assert centre + 0.98 * width < factors.max() <= centre + width
    orders, counts = draws.order.T.unique(dim=0, return_counts=True)
    assert len(orders) == 24 and counts.min() > 150


def test_one_width_changes_one_quality():
    pairs = colours()
    for name in ("brightness", "contrast", "saturation", "hue"):
        changed, draws = jittered(pairs, DataConfig(**{name: 0.2}))
        adjust = getattr(augmentation, name)
        assert torch.allclose(changed, adjust(pairs, draws.factors[0].view(-1, 1, 1, 1, 1)), atol=1e-6)
        assert not torch.equal(changed, pairs)


def test_adjustments_take_turns_in_the_order_drawn():
    pairs, both = colours(2), DataConfig(brightness=0.5, contrast=0.5)
    order, factors = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[1.5, 1.5], [0.5, 0.5]])
    changed, _ = jittered(pairs, both, Draws(torch.zeros(2) > 0, torch.zeros(2) > 0, order, factors))
    more, less = torch.tensor(1.5), torch.tensor(0.5)
    assert torch.allclose(changed[0], contrast(brightness(pairs[0], more), less), atol=1e-6)
    assert torch.allclose(changed[1], brightness(contrast(pairs[1], less), more), atol=1e-6)


def test_adjustments_equal_their_definitions():
    images = colours(1)[0]
    one = torch.ones(1)
    for neutral, factor in [(brightness, one), (contrast, one), (saturation, one), (hue, 0 * one), (hue, one)]:
        assert torch.allclose(neutral(images, factor), images, atol=1e-5)
    assert saturation(images, 0 * one).std(dim=1).max() < 1e-6, "grey has three equal channels"
    assert contrast(images, 0 * one).flatten(1).std(dim=1).max() < 1e-6, "no contrast is one grey"
    shifted = hue(images, torch.full((1,), 0.3))
    for pixel, found in zip(images.movedim(1, -1).reshape(-1, 3), shifted.movedim(1, -1).reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*pixel.tolist())
        assert found.tolist() == pytest.approx(colorsys.hsv_to_rgb((h + 0.3) % 1, s, v), abs=1e-4)


def test_grey_and_black_have_no_hue_to_turn():
    greys = torch.linspace(0, 1, 11).expand(1, 3, 1, 11)
    assert torch.allclose(hue(greys, torch.full((1,), 0.3)), greys)
