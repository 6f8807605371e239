"""The table of clips: a CSV file that says which files to use, who is in them, and where to cut."""

import csv
import math
from pathlib import Path
from typing import NamedTuple, get_args

from hdam.pipelines.clips import CropBox, Split, Trim
from hdam.pipelines.errors import InputError, first_line


class TableRow(NamedTuple):
    """One row of the table, checked."""

    file: str
    """Relative to the table's folder."""
    identity: str | None
    split: Split | None
    crop: CropBox | None
    trim: Trim | None
    fps: float | None


def has_file_column(path: Path) -> bool:
    """Whether a CSV file is a table of clips at all."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return "file" in next(csv.reader(stream), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def read_table(path: Path) -> list[TableRow]:
    """The rows of a table with columns `file`, and optionally `identity`, `split` (train, test), `crop_xywh`
    ('x y width height'), `trim` ('start:stop', frames) and `fps`; other columns are left alone, empty cells mean none.

    Raises InputError naming line and column of the first cell that is wrong.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restkey="beyond the header")
            if "file" not in (reader.fieldnames or []):
                raise InputError(f"{path}: no column 'file'; found {', '.join(reader.fieldnames or []) or 'nothing'}")
            return [_row(f"{path}, line {reader.line_num}", cells) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no table that can be read ({first_line(error)})") from error


def parse_crop(text: str) -> CropBox:
    """'x y width height' in whole pixels; ValueError otherwise."""
    numbers = [int(part) for part in text.replace(",", " ").split()]
    if len(numbers) != 4 or min(numbers[:2]) < 0 or min(numbers[2:]) < 1:
        raise ValueError(text)
    return CropBox(*numbers)


def parse_trim(text: str) -> Trim:
    """'start:stop' in frames, stop left out, either end may be empty; ValueError otherwise."""
    first, colon, last = text.partition(":")
    if not colon:
        raise ValueError(text)
    trim = Trim(int(first) if first.strip() else 0, int(last) if last.strip() else None)
    if trim.start < 0 or (trim.stop is not None and trim.stop <= trim.start):
        raise ValueError(text)
    return trim


def _row(where: str, cells: dict[str, str | None]) -> TableRow:
    def cell(column: str) -> str | None:
        return (cells.get(column) or "").strip() or None

    file, crop, trim = cell("file"), cell("crop_xywh"), cell("trim")
    if file is None:
        raise InputError(f"{where}: the cell 'file' is empty")
    if "\0" in file:
        raise InputError(f"{where}: the cell 'file' holds a null character")
    try:
        box = parse_crop(crop) if crop else None
    except ValueError as error:
        raise InputError(f"{where}: crop_xywh is {crop!r}; expected 'x y width height' in pixels") from error
    try:
        span = parse_trim(trim) if trim else None
    except ValueError as error:
        raise InputError(f"{where}: trim is {trim!r}; expected 'start:stop' in frames, start before stop") from error
    return TableRow(file, cell("identity"), _split(where, cell("split")), box, span, _fps(where, cell("fps")))


def _split(where: str, text: str | None) -> Split | None:
    if text is None:
        return None
    known: dict[str, Split] = {split: split for split in get_args(Split)}
    if text in known:
        return known[text]
    raise InputError(f"{where}: split is {text!r}; expected {' or '.join(get_args(Split))}, or nothing")


def _fps(where: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        fps = float(text)
    except ValueError:
        fps = math.nan
    if not 0 < fps <= 1000:
        raise InputError(f"{where}: fps is {text!r}; expected frames per second, more than 0 and at most 1000")
    return fps
