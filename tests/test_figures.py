"""Pictures: anchors where they belong, and every step of a transfer in its column."""

import pytest
import torch
from small_models import SIZE, small_model

from hdam.models.structures import Anchors, AnchorTree
from hdam.platform.figures import (
    BACKGROUND_COLOUR,
    COLUMNS,
    ROOT_COLOUR,
    anchor_colours,
    draw_structure,
    image_from,
    sample_grid,
    tile,
)

BLACK = torch.zeros(3, 64, 64)


def anchors(*points):
    return Anchors(torch.tensor([points]), torch.eye(2).expand(1, len(points), 2, 2))


def tree(*, intermediate=True, root=True):
    return AnchorTree(
        motion=anchors((-1.0, -1.0), (0.5, 0.5), (0.5, -0.5)),
        intermediate=anchors((-0.5, 0.5)) if intermediate else None,
        root=anchors((0.0, 0.9)) if root else None,
        features=None,
    )


def near(colour, other, tolerance=12):
    return max(abs(a - b) for a, b in zip(colour, other, strict=True)) <= tolerance


def pixel_of(x, y, *, scale, size=64):
    """The pixel of the enlarged picture that shows coordinate (x, y): -1 and 1 are border pixels' centres."""
    return tuple(int(((value + 1) / 2 * (size - 1) + 0.5) * scale) for value in (x, y))


def test_every_anchor_is_drawn_at_its_place():
    picture = draw_structure(BLACK, tree(), scale=4)
    assert picture.size == (256, 256)
    colours = anchor_colours(4)
    for colour, point in zip(colours[:3], tree().motion.position[0].tolist(), strict=True):
        assert near(picture.getpixel(pixel_of(*point, scale=4)), colour)
    assert near(picture.getpixel(pixel_of(-0.5, 0.5, scale=4)), colours[3])
    assert near(picture.getpixel(pixel_of(0, 0.9, scale=4)), ROOT_COLOUR)


def test_ignored_anchors_are_left_out():
    point = pixel_of(0.5, -0.5, scale=4)
    assert near(draw_structure(BLACK, tree(), scale=4).getpixel(point), anchor_colours(3)[2])
    assert near(draw_structure(BLACK, tree(), scale=4, ignored=(2,)).getpixel(point), (0, 0, 0))


def test_lines_are_as_wide_as_the_attention():
    halfway = pixel_of(0.0, 0.5, scale=4)  # between the intermediate anchor and motion anchor 1

    def brightness(share):
        picture = draw_structure(BLACK, tree(), attention=torch.tensor([[[1.0, share, 0.0]]]), scale=4)
        x, y = halfway
        return sum(sum(picture.getpixel((x, y + offset))) for offset in range(-8, 9))

    assert brightness(0.0) == 0
    assert 0 < brightness(0.1) < brightness(0.2) < brightness(0.3) == brightness(1.0)


@pytest.mark.parametrize(("intermediate", "root"), [(False, True), (False, False)])
def test_models_with_fewer_levels_are_drawn(intermediate, root):
    picture = draw_structure(BLACK, tree(intermediate=intermediate, root=root), scale=4)
    lines = picture.getpixel(pixel_of(0.25, 0.7, scale=4))  # between root and motion anchor 1
    assert (max(lines) > 100) is root


def test_the_first_colours_do_not_depend_on_how_many_there_are():
    assert anchor_colours(15)[:10] == anchor_colours(10)
    assert len(set(anchor_colours(40))) == 40


def test_a_grid_has_a_labelled_column_for_every_step_and_a_row_for_every_pair():
    loaded = small_model()
    source, driving = torch.rand(2, 5, 3, SIZE, SIZE)
    transfer = loaded.model(source, driving)
    width = 4 * SIZE
    sheet = sample_grid(transfer, source, driving, max_rows=3)
    assert sheet.width == len(COLUMNS) * (width + 4) - 4
    head = sheet.height - 3 * (width + 4) + 4
    assert 10 < head < 40
    assert any(min(sheet.getpixel((x, head // 2))) < 100 for x in range(width)), "no label over the first column"
    first = sheet.crop((0, head, width, head + width))
    assert first.tobytes() == image_from(source[0], scale=4).tobytes()


def test_masks_show_the_colour_of_the_chosen_candidate():
    loaded = small_model()
    source, driving = torch.rand(2, 1, 3, SIZE, SIZE)
    transfer = loaded.model(source, driving)
    masks = torch.zeros_like(transfer.motion.masks)
    masks[:, 0, :, : masks.shape[-1] // 2] = 1  # background on the left
    masks[:, 2, :, masks.shape[-1] // 2 :] = 1
    sheet = sample_grid(transfer._replace(motion=transfer.motion._replace(masks=masks)), source, driving)
    cell, middle = 4 * SIZE + 4, sheet.height // 2
    assert near(sheet.getpixel((3 * cell + 10, middle)), BACKGROUND_COLOUR)
    assert near(sheet.getpixel((3 * cell + 4 * SIZE - 10, middle)), anchor_colours(4)[1])


def test_tile_puts_every_picture_in_its_place():
    pictures = [[image_from(torch.full((1, 8, 8), shade)) for shade in row] for row in ((0.0, 0.5), (0.75, 1.0))]
    sheet = tile(pictures)
    assert [sheet.getpixel(corner)[0] for corner in ((0, 0), (12, 0), (0, 12), (12, 12))] == [0, 128, 191, 255]
