"""Report pages: one HTML file with everything in it, which opens from disk, and has nothing to fetch.

The frame knows sections of text, tables, charts, films and pictures; what they say is the report's own affair.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hdam.platform.pages.charts import SERIES

TEMPLATE_NAME = "page.html.jinja"
MEDIA_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".png": "image/png"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A cell of a table."""

    text: str
    note: str = ""
    """Below it, smaller."""
    is_bold: bool = False
    series: int | None = None
    """The number of a model, whose colour stands before the text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Paragraphs:
    """Lines of text, or a list of them."""

    kind: ClassVar[str] = "text"
    lines: Sequence[str]
    look: Literal["paragraph", "list", "note"] = "paragraph"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table whose first column names the rows."""

    kind: ClassVar[str] = "table"
    header: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    right: Sequence[int] = ()
    """Columns of numbers."""
    notes: Sequence[str] = ()
    folded: str = ""
    """A title under which the table is folded away; empty: it is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """An SVG in the page."""

    svg: str
    """As `charts.to_svg` makes it; it goes in as it is."""
    title: str
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Charts:
    """Charts side by side, as many as fit."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """A video, a picture of a few of its moments, and what is to be said of it."""

    kind: ClassVar[str] = "film"
    title: str
    caption: str
    video: str
    """A data URI; empty where it lies beside the page alone."""
    place: str
    """Where the video lies, relative to the page."""
    strip: str
    """A data URI."""
    width: int
    """Of the pictures, in pixels; they are not drawn larger."""
    description: str
    """Of what the pictures show, for who does not see them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture in the page."""

    kind: ClassVar[str] = "picture"
    title: str
    image: str
    """A data URI."""
    width: int
    """In pixels; it is not drawn larger."""
    description: str
    """Of what it shows, for who does not see it."""
    caption: str = ""


Block = Paragraphs | Table | Charts | Film | Picture


class Section(NamedTuple):
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A report."""

    title: str
    facts: Sequence[tuple[str, str]]
    """Name and value, below the title."""
    sections: Sequence[Section]


def render(page: Page) -> str:
    """The page as HTML; every text in it but SVG is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE_NAME).render(page=page, series=SERIES)


def made_now() -> tuple[str, str]:
    """The fact of when and with what a page is made."""
    return "Made", f"{datetime.now().astimezone():%Y-%m-%d %H:%M} by hdam {metadata.version('hdam')}"


def data_uri(path: Path) -> str:
    """The file itself, as an address."""
    return f"data:{MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
