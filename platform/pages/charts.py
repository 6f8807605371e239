"""Charts for pages: SVG whose ink is that of the page around it, light or dark, and a colour for every series."""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import matplotlib
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#010203"
"""Stands for the colour of the page's text until the SVG is written."""
PAPER = "#fdfeff"
"""Stands likewise for the colour of the page itself."""
PIXELS_PER_INCH = 96
MOST_ENLARGED = 1.15
"""A chart grows no larger, so that the letters of all charts have about the same size."""
FONTS = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class Series(NamedTuple):
    """How one of the compared things looks in every chart; the marker serves who cannot tell the colours apart."""

    light: str
    """On a light page; after Okabe and Ito (2008), darkened where lines of it would be too faint."""
    dark: str
    marker: str


SERIES = (
    Series("#0072b2", "#4aa8e0", "o"),
    Series("#d55e00", "#f58a3c", "s"),
    Series("#008a64", "#2bbf94", "^"),
    Series("#b5558f", "#dd8fbf", "D"),
    Series("#a87400", "#e6ab2e", "v"),
    Series("#3f8fb8", "#8fd0f5", "P"),
    Series("#5b5f66", "#a9aeb6", "X"),
)
"""More than so many begin again, with the same colours."""

STYLE: Any = {  # matplotlib's own type names every key
    "svg.fonttype": "none",
    "font.size": 10,
    "text.parse_math": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
}


def series(number: int) -> Series:
    """How the series of this number looks."""
    return SERIES[number % len(SERIES)]


@contextmanager
def new_chart(width: float, height: float) -> "Iterator[tuple[Figure, Axes]]":
    """An empty chart of so many inches, to be drawn and written within the block."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def draw_grid(axes: "Axes", which: Literal["x", "y", "both"]) -> None:
    """Faint lines behind what is drawn."""
    axes.grid(axis=which, color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)


def to_svg(figure: Figure, *, name: str, description: str) -> str:
    """The chart, within its block, for the middle of a page; `name` is no other chart's there.

    Names and definitions are made the chart's own, and what is only for files by themselves is left out.
    """
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([^;\"']*px) [^;\"]*", rf"font: \1 {FONTS}".replace("'", "&#39;"), svg)
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--paper, white)")
    pixels = MOST_ENLARGED * PIXELS_PER_INCH * figure.get_figwidth()
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*pt"', rf'\1style="max-width: {pixels:.0f}px"', svg, count=1)
    svg = re.sub(r'(<svg [^>]*?) height="[^"]*pt"', r"\1", svg, count=1)
    for number, each in enumerate(SERIES):
        svg = svg.replace(each.light, f"var(--series-{number}, {each.light})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1)
