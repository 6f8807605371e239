"""Pictures of the structure: the right files, the right colours in known places, and a film that opens again."""

import numpy as np
import pytest
import torch
from media_files import moving_square, write_video
from PIL import Image
from small_models import SIZE, small_model

from hdam.models.structures import Anchors, AnchorTree
from hdam.pipelines.errors import InputError
from hdam.pipelines.media import open_media, read_frames
from hdam.platform.animate import Moment, as_image
from hdam.platform.figures import (
    BACKGROUND_COLOUR,
    PAPER_COLOUR,
    anchor_colours,
    draw_structure,
    owner_colours,
    pixel_spots,
)
from hdam.platform.structure.attention_sheet import FULL_COLOUR, IGNORED_COLOUR, draw_attention, value_centre
from hdam.platform.structure.view import NAMES, masks_view, own_moments, show_structure, structure_view

LEVELS = {
    "hdam": {},
    "dam": {"model.anchors.num_intermediate": 0},
    "fomm": {"model.anchors.num_intermediate": 0, "model.anchors.has_root": False},
    "regionmm": {
        "model.family": "regionmm",
        "model.anchors.num_intermediate": 0,
        "model.anchors.has_root": False,
    },
}


def near(colour, other, tolerance=12):
    return max(abs(a - b) for a, b in zip(colour, other, strict=True)) <= tolerance


def anchors(*points):
    return Anchors(torch.tensor([points]), torch.eye(2).expand(1, len(points), 2, 2))


def a_moment(loaded, tree, attention):
    """A moment of random images whose anchors and attention are given."""
    source, driving = torch.zeros(2, 1, 3, SIZE, SIZE)
    with torch.no_grad():
        transfer = loaded.model(source, driving)
    return Moment(source, driving, transfer._replace(driving=tree, attention=attention))


@pytest.fixture(scope="module")
def driving(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "driving.mp4", moving_square(9, height=48, width=64), fps=12)


@pytest.mark.parametrize("family", LEVELS)
def test_every_family_has_its_pictures(driving, tmp_path, family):
    loaded, heard = small_model(LEVELS[family]), []
    report = show_structure(
        loaded, driving=driving, out=tmp_path / "new", on_frame=lambda done, total: heard.append(done)
    )
    expected = NAMES if family == "hdam" else NAMES[:-1]
    assert [path.name for path in report.paths] == list(expected)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(expected)
    assert (report.num_frames, heard) == (9, list(range(1, 10)))
    film = open_media(tmp_path / "new" / "structure.mp4")
    assert (film.num_frames, film.fps) == (9, 12)
    assert film.size[1] >= 2 * 256
    rows = 6
    for name, num_columns, cell in (("structure", 2, 256), ("masks", 3 + 4, 128), ("occlusion", 4, 128)):
        sheet = Image.open(tmp_path / "new" / f"{name}.png")
        assert sheet.width == num_columns * (cell + 4) - 4
        assert rows * cell < sheet.height < rows * (cell + 4) + 50


def test_the_film_shows_the_structure_of_its_frames(driving, tmp_path):
    loaded = small_model()
    show_structure(loaded, driving=driving, out=tmp_path)
    frames = [as_image(frame, size=SIZE, device=torch.device("cpu")) for frame in read_frames(driving)]
    view = structure_view(loaded.model)
    drawn = [np.asarray(view.joined(moment)) for moment in own_moments(loaded.model, frames)]
    shown = np.stack(list(read_frames(tmp_path / "structure.mp4")))
    assert np.abs(shown[:, : drawn[0].shape[0], : drawn[0].shape[1]].astype(int) - np.stack(drawn)).mean() < 3


def test_motion_anchors_have_the_colour_of_their_owner_and_ignored_ones_are_absent():
    loaded = small_model({"model.ignored": [3]})
    tree = AnchorTree(
        anchors((-0.8, -0.8), (0.8, -0.8), (-0.8, 0.8), (0.8, 0.8)), anchors((-0.2, 0.0), (0.3, 0.0)), anchors((0, 0.9))
    )
    attention = torch.tensor([[[0.6, 0.1, 0.3, 0.0], [0.2, 0.7, 0.1, 0.0]]])
    assert owner_colours(attention[0])[:3] == tuple(anchor_colours(6)[4 + i] for i in (0, 1, 0))
    plain, drawn = structure_view(loaded.model).draw(a_moment(loaded, tree, attention))
    spots = [tuple(map(int, spot)) for spot in pixel_spots(tree.motion.position[0], (SIZE, SIZE), zoom=256 // SIZE)]
    first, second = anchor_colours(6)[4:]
    assert [
        near(drawn.getpixel(spot), colour) for spot, colour in zip(spots, (first, second, first), strict=False)
    ] == [True] * 3
    assert near(drawn.getpixel(spots[3]), (0, 0, 0)), "ignored anchors are left out"
    assert plain.getextrema() == ((0, 0),) * 3


def test_masks_stand_in_their_columns():
    loaded = small_model({"model.ignored": [3]})
    tree = AnchorTree(anchors((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)), None, None)
    moment = a_moment(loaded, tree, None)
    masks = torch.zeros_like(moment.transfer.motion.masks)
    masks[:, 0, :, : masks.shape[-1] // 2] = 1  # background on the left, motion anchor 1 on the right
    masks[:, 2, :, masks.shape[-1] // 2 :] = 1
    motion = moment.transfer.motion._replace(masks=masks)
    view = masks_view(loaded.model)
    assert view.labels == ("anchors", "flow masks", "background", "0", "1", "2", "3 (ignored)")
    numbered, mixed, background, *each = view.draw(moment._replace(transfer=moment.transfer._replace(motion=motion)))
    left, right = (10, 64), (118, 64)
    second = anchor_colours(4)[1]
    black = (0, 0, 0)
    for picture, colours in (
        (mixed, (BACKGROUND_COLOUR, second)),
        (background, (BACKGROUND_COLOUR, black)),
        (each[0], (black, black)),
        (each[1], (black, second)),
    ):
        assert near(picture.getpixel(left), colours[0])
        assert near(picture.getpixel(right), colours[1])
    for spot, colour in zip(pixel_spots(tree.motion.position[0], (SIZE, SIZE), zoom=4), anchor_colours(4), strict=True):
        assert near(numbered.getpixel((int(spot[0]), int(spot[1]) - 6)), colour)


def test_regions_have_the_ellipse_of_their_covariance():
    """Standard deviations of 0.5 along x and 0.25 along y: the ellipse passes there, and nowhere else."""
    affine = torch.diag(torch.tensor([0.5, 0.25])).expand(1, 2, 2, 2)
    points = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
    tree = AnchorTree(Anchors(points, affine, affine @ affine), None, None)
    picture = draw_structure(torch.zeros(3, 65, 65), tree, scale=4, ignored=(1,))
    where = [(x, y) for x in range(260) for y in range(260) if near(picture.getpixel((x, y)), anchor_colours(2)[0], 40)]
    ring = [(x, y) for x, y in where if (x - 130) ** 2 + (y - 130) ** 2 > 15**2]
    unit = 32 * 4  # pixels of one coordinate
    radii = [((x + 0.5 - 130) / unit / 0.5) ** 2 + ((y + 0.5 - 130) / unit / 0.25) ** 2 for x, y in ring]
    assert min(radii) > 0.85 and max(radii) < 1.2
    assert len(ring) > 300
    point = AnchorTree(Anchors(points, affine), None, None)
    bare = draw_structure(torch.zeros(3, 65, 65), point, scale=4)
    assert near(bare.getpixel((130 + 64, 130)), (0, 0, 0)), "points have no ellipse"


def test_the_attention_matrix_is_shaded_by_its_values():
    attention = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    sheet = draw_attention(attention, ignored=(2,), title="attention")
    half = tuple(round((a + b) / 2) for a, b in zip(PAPER_COLOUR, FULL_COLOUR, strict=True))
    for row, column, colour in ((0, 0, FULL_COLOUR), (0, 1, PAPER_COLOUR), (1, 0, half), (1, 2, IGNORED_COLOUR)):
        assert near(sheet.getpixel(value_centre(row, column)), colour), (row, column)


def test_the_attention_is_written_in_numbers():
    """0.254 and 0.256 have the same shade, and are rounded to different numbers."""
    low, same, high = (draw_attention(torch.tensor([[value]])) for value in (0.254, 0.2541, 0.256))
    assert low.getpixel(value_centre(0, 0)) == high.getpixel(value_centre(0, 0))
    assert low.tobytes() == same.tobytes() != high.tobytes()


def test_a_video_is_not_overwritten(driving, tmp_path):
    copy = tmp_path / "structure.mp4"
    copy.write_bytes(driving.read_bytes())
    with pytest.raises(InputError, match="overwrite the input"):
        show_structure(small_model(), driving=copy, out=tmp_path)
    assert copy.read_bytes() == driving.read_bytes()
    with pytest.raises(InputError, match="no such file"):
        show_structure(small_model(), driving=tmp_path / "absent.mp4", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
