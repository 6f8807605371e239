"""The attention matrix as a picture: a labelled row for each intermediate anchor, a column for each motion anchor."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hdam.platform.figures import PAPER_COLOUR, RIM_COLOUR, Rgb, anchor_colours, owner_colours

CELL = (64, 44)
"""Width and height of one value."""
LEFT, TOP, MARGIN = 150, 84, 16
FULL_COLOUR: Rgb = (20, 60, 130)
"""Of the value 1; 0 is paper."""
IGNORED_COLOUR: Rgb = (215, 215, 215)
FONT_SIZE = 16


def draw_attention(attention: Tensor, *, ignored: Sequence[int] = (), title: str = "") -> Image.Image:
    """Draw `attention` [intermediate, motion]: each value as a number on its shade, and the sum of each column.

    Anchors have the colours of the structure pictures, motion anchors that of their owner; columns of `ignored` ones
    are grey and without numbers.
    """
    values = attention.detach().float().cpu()
    num_owners, num_motion = values.shape
    size = (max(LEFT + num_motion * CELL[0], 620) + MARGIN, TOP + (num_owners + 1) * CELL[1] + MARGIN)
    sheet = Image.new("RGB", size, PAPER_COLOUR)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    draw.text((MARGIN, MARGIN), title, fill=RIM_COLOUR, font=font, anchor="lt")
    owners = anchor_colours(num_motion + num_owners)[num_motion:]
    for row, colour in enumerate(owners):
        _label(draw, (MARGIN, _corner(row, 0)[1] + CELL[1] / 2), f"intermediate {row}", colour)
    _label(draw, (MARGIN, _corner(num_owners, 0)[1] + CELL[1] / 2), "sum", PAPER_COLOUR)
    for k, colour in enumerate(owner_colours(values)):
        is_ignored = k in set(ignored)
        _label(draw, (_corner(0, k)[0] + 10, TOP - 16), str(k), IGNORED_COLOUR if is_ignored else colour)
        for row, value in enumerate([*values[:, k].tolist(), values[:, k].sum().item()]):
            shade = IGNORED_COLOUR if is_ignored else PAPER_COLOUR if row == num_owners else _shade(value)
            _draw_value(draw, _corner(row, k), "–" if is_ignored else f"{value:.2f}", shade)
    return sheet


def value_centre(row: int, column: int) -> tuple[int, int]:
    """Where the picture shows a value, in pixels; a little above its number."""
    x, y = _corner(row, column)
    return x + CELL[0] // 2, y + 6


def _corner(row: int, column: int) -> tuple[int, int]:
    return LEFT + column * CELL[0], TOP + row * CELL[1]


def _label(draw: ImageDraw.ImageDraw, spot: tuple[float, float], text: str, colour: Rgb) -> None:
    """A disc of this colour and a word beside it."""
    x, y = spot
    if colour != PAPER_COLOUR:
        draw.ellipse((x, y - 6, x + 12, y + 6), fill=colour, outline=RIM_COLOUR)
    draw.text((x + 18, y), text, fill=RIM_COLOUR, font=ImageFont.load_default(FONT_SIZE), anchor="lm")


def _draw_value(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, shade: Rgb) -> None:
    x, y = corner
    ink = RIM_COLOUR if sum(shade) > 380 else PAPER_COLOUR
    draw.rectangle((x, y, x + CELL[0] - 2, y + CELL[1] - 2), fill=shade)
    middle = (x + CELL[0] / 2, y + CELL[1] / 2)
    draw.text(middle, text, fill=ink, font=ImageFont.load_default(FONT_SIZE), anchor="mm")


def _shade(value: float) -> Rgb:
    red, green, blue = (round(a + min(1.0, value) * (b - a)) for a, b in zip(PAPER_COLOUR, FULL_COLOUR, strict=True))
    return red, green, blue
