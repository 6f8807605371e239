"""CSV tables and their cells: whatever is wrong is told with file, line and column."""

import csv
import io
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar, get_args

from hdam.pipelines.clips import CropBox, Split, Trim
from hdam.pipelines.errors import InputError, first_line

MOST = 10**9
"""Frames, pixels: no number of a table is larger."""

T = TypeVar("T")


class Cells(NamedTuple):
    """One row of a table."""

    where: str
    """The file and the line, for messages."""
    values: dict[str, str | None]

    def text(self, column: str) -> str | None:
        """A cell without blanks around it; None for an empty one. Raises InputError for a null character."""
        text = (self.values.get(column) or "").strip() or None
        if text and "\0" in text:
            raise InputError(f"{self.where}: the cell '{column}' holds a null character")
        return text

    def required(self, column: str) -> str:
        """A cell that must not be empty."""
        text = self.text(column)
        if text is None:
            raise InputError(f"{self.where}: the cell '{column}' is empty")
        return text

    def parsed(self, column: str, parse: Callable[[str], T], *, expected: str) -> T | None:
        """What `parse` makes of a cell, None of an empty one; its ValueError becomes an InputError."""
        text = self.text(column)
        if text is None:
            return None
        try:
            return parse(text)
        except (ValueError, OverflowError) as error:
            raise InputError(f"{self.where}: {column} is {text[:80]!r}; expected {expected}") from error


def read_header(content: bytes, where: str) -> list[str]:
    """The columns of a CSV table; InputError when it is no text."""
    try:
        return next(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where}: no table that can be read ({first_line(error)})") from error


def read_rows(content: bytes, where: str, *, required: tuple[str, ...]) -> Iterator[Cells]:
    """The rows of a CSV table that has the `required` columns; InputError when it has not, or is no text."""
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), restkey="beyond the header")
        columns = [column or "" for column in reader.fieldnames or []]
        if missing := [column for column in required if column not in columns]:
            found = " ".join(", ".join(columns).split())[:200] or "nothing"
            raise InputError(f"{where}: no column {', '.join(map(repr, missing))}; found {found}")
        for values in reader:
            yield Cells(f"{where}, line {reader.line_num}", values)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where}: no table that can be read ({first_line(error)})") from error


def parse_crop(text: str) -> CropBox:
    """'x y width height' in whole pixels; ValueError otherwise."""
    numbers = [parse_count(part) for part in text.replace(",", " ").split()]
    if len(numbers) != 4 or min(numbers[2:]) < 1:
        raise ValueError(text)
    return CropBox(*numbers)


def parse_trim(text: str) -> Trim:
    """'start:stop' in frames, stop left out, either end may be empty; ValueError otherwise."""
    first, colon, last = text.partition(":")
    if not colon:
        raise ValueError(text)
    trim = Trim(parse_count(first) if first.strip() else 0, parse_count(last) if last.strip() else None)
    if trim.stop is not None and trim.stop <= trim.start:
        raise ValueError(text)
    return trim


def parse_count(text: str) -> int:
    """A whole number from 0 to `MOST`; ValueError otherwise."""
    number = int(text)
    if not 0 <= number <= MOST:
        raise ValueError(text)
    return number


def parse_fps(text: str) -> float:
    """Frames per second; ValueError otherwise."""
    fps = float(text)
    if not (math.isfinite(fps) and 0 < fps <= 1000):
        raise ValueError(text)
    return fps


def parse_split(text: str) -> Split:
    """'train' or 'test'; ValueError otherwise."""
    known: dict[str, Split] = {split: split for split in get_args(Split)}
    if text not in known:
        raise ValueError(text)
    return known[text]
