"""Layout of a metadata table: VoxCeleb, TaiChiHD and TED-talks as published, rows of frames and boxes in raw videos."""

import fnmatch
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from hdam.pipelines.clips import CropBox, Rejected, Split, Trim
from hdam.pipelines.errors import InputError
from hdam.pipelines.layouts.cells import Cells, parse_count, parse_fps, parse_split, read_header, read_rows
from hdam.pipelines.layouts.found import Found, Sources, Tree, media_kind, unreadable
from hdam.pipelines.layouts.naming import Known, clips_of
from hdam.pipelines.listing import names_beside, parent_of, read_bytes

MetadataLayout = Literal["voxceleb", "taichi", "ted"]
PATTERN = "*metadata*.csv"
COLUMNS = ("video_id", "start", "end", "bbox", "fps", "width", "height")
"""Besides these, `partition` and `person_id` are read where they are; the first TaiChi table has neither."""
WORD_OF: dict[MetadataLayout, str] = {"voxceleb": "vox", "taichi": "taichi", "ted": "ted"}


class MetadataRow(NamedTuple):
    """One row: a piece of a raw video."""

    video_id: str
    """Up to the first '#' the name of the raw video."""
    span: Trim | None
    """In frames at the rate `fps`; None where start and end are both 0: all of a video that is cut already."""
    box: CropBox
    """In a frame of `width` x `height` pixels."""
    fps: float
    frame_size: tuple[int, int]
    """Height and width."""
    split: Split | None
    person: str | None

    @property
    def name(self) -> str:
        """The name of the published clip, less its suffix: [person#]video#start#end."""
        parts = [*([self.person] if self.person else []), *reversed(self.video_id.split("#"))]
        start, stop = self.span or (0, 0)
        return "#".join([*parts, f"{start:06d}", f"{stop or 0:06d}"])


def from_metadata(tree: Tree, table: str, *, layout: MetadataLayout) -> Sources:
    """The clips of a metadata table, one per row; a row whose raw video is absent is rejected.

    The raw videos lie anywhere in the folder as '<video id up to the first #>.mp4', or with another suffix of videos.
    The identity is the person where the table tells, else the video. Raises InputError when the table is wrong, or
    no video is there.
    """
    rows = read_metadata(read_bytes(table), table)
    videos = _raw_videos(tree)
    used: list[tuple[Found, Known]] = []
    absent: list[Rejected] = []
    for row in rows:
        found, reason = _raw_video(row, videos)
        if found is None:
            absent.append(Rejected(row.name, reason))
        else:
            used.append((found, _known(row)))
    asked = tree.listing.asked
    if not used:
        reason = f"first: {absent[0].reason}" if absent else "the table has no row"
        raise InputError(f"{table}: none of its {len(rows)} rows has its raw video in {asked}; {reason}")
    notes = [f"{table} says which pieces to use: {len(used)} of its {len(rows)} rows have their raw video in {asked}"]
    if all(row.split is None for row in rows):
        notes.append(f"{table} has no partition; identities are dealt out by --test-share")
    return Sources(clips_of(tree.listing, used), [*absent, *unreadable(tree.listing)], notes, layout)


def metadata_beside(tree: Tree, layout: MetadataLayout | None = None) -> str | None:
    """The address of the metadata table in the folder, else in its parent; None where there is none.

    Of several, the one whose name says the layout. Raises InputError when several remain.
    """
    listing = tree.listing
    for folder in filter(None, (listing.address, parent_of(listing.address))):
        names = [name for name in names_beside(folder) if fnmatch.fnmatch(name.lower(), PATTERN)]
        tables = [f"{folder.rstrip('/')}/{name}" for name in names]
        fitting = [table for table in tables if is_metadata(table)]
        if len(fitting) > 1 and layout is not None:
            word = WORD_OF[layout]
            fitting = [table for table in fitting if word in PurePosixPath(table).name.lower()] or fitting
        if len(fitting) > 1:
            raise InputError(f"{folder}: holds {len(fitting)} metadata tables; tell which by --table {fitting[0]}")
        if fitting:
            return fitting[0]
    return None


def is_metadata(table: str) -> bool:
    """Whether a CSV file has the columns of published metadata."""
    try:
        return set(COLUMNS) <= set(read_header(read_bytes(table), table))
    except InputError:
        return False


def layout_of(table: str) -> MetadataLayout:
    """Which of the three a metadata table is: people are VoxCeleb's, else the table's name tells; TaiChi otherwise."""
    if "person_id" in read_header(read_bytes(table), table):
        return "voxceleb"
    name = PurePosixPath(table).name.lower()
    return next((layout for layout, word in WORD_OF.items() if word in name), "taichi")


def has_videos(tree: Tree, table: str) -> bool:
    """Whether the raw video of any row is in the folder."""
    videos = _raw_videos(tree)
    return any(_raw_video(row, videos)[0] for row in read_metadata(read_bytes(table), table))


def read_metadata(content: bytes, where: str) -> list[MetadataRow]:
    """The rows of a metadata table; InputError naming line and column of the first cell that is wrong."""
    return [_row(cells) for cells in read_rows(content, where, required=COLUMNS)]


def _row(cells: Cells) -> MetadataRow:
    def number(column: str) -> int:
        cells.required(column)
        return cells.parsed(column, parse_count, expected="a whole number, 0 or more") or 0

    start, end, width, height = (number(column) for column in ("start", "end", "width", "height"))
    if end <= start and (start, end) != (0, 0):
        raise InputError(f"{cells.where}: end is {end}; expected more than start, which is {start}")
    if not (width and height):
        raise InputError(f"{cells.where}: width x height is {width}x{height}; expected the size of the raw video")
    for column in ("bbox", "fps"):
        cells.required(column)
    box = cells.parsed("bbox", _parse_box, expected="'left-top-right-bottom' in pixels, left < right, top < bottom")
    fps = cells.parsed("fps", parse_fps, expected="frames per second, more than 0 and at most 1000")
    assert box is not None and fps is not None
    if box.left >= width or box.top >= height:
        raise InputError(f"{cells.where}: bbox is {cells.text('bbox')!r}; expected a box in {width}x{height} pixels")
    return MetadataRow(
        video_id=cells.required("video_id"),
        span=Trim(start, end) if end else None,
        box=box,
        fps=fps,
        frame_size=(height, width),
        split=cells.parsed("partition", parse_split, expected="train or test, or nothing"),
        person=cells.text("person_id"),
    )


def _parse_box(text: str) -> CropBox:
    left, top, right, bottom = map(parse_count, text.split("-"))
    if right <= left or bottom <= top:
        raise ValueError(text)
    return CropBox(left, top, right - left, bottom - top)


def _known(row: MetadataRow) -> Known:
    return Known(
        name=row.name,
        identity=row.person or row.video_id.split("#")[0] or row.video_id,
        split=row.split,
        crop=row.box,
        crop_frame=row.frame_size,
        trim=row.span,
        trim_fps=row.fps,
    )


def _raw_videos(tree: Tree) -> dict[str, Found]:
    """Videos by name without suffix; of several the least deep, '.mp4' before others."""
    names = [name for name in tree.listing.files if media_kind(name) == "video"]
    names.sort(key=lambda name: (name.count("/"), not name.lower().endswith(".mp4"), name), reverse=True)
    return {PurePosixPath(name).stem: Found(name, "video", (name,)) for name in names}


def _raw_video(row: MetadataRow, videos: dict[str, Found]) -> tuple[Found | None, str]:
    """The raw video of a row, or what was looked for."""
    whole, raw = row.video_id, row.video_id.split("#")[0]
    if row.span is None:
        return videos.get(whole), f"start and end are 0: looked for the cut video {whole}.mp4, which is not there"
    return videos.get(raw), f"looked for the raw video {raw}.mp4, which is not there"
