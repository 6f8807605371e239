"""Pictures of an evaluation: the middle of the best and of the worst clips, or of some where there is no truth."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from hdam.pipelines.contact_sheet import spread
from hdam.pipelines.media import read_frames
from hdam.platform.evaluation.metrics import Protocol
from hdam.platform.evaluation.plan import Item
from hdam.platform.evaluation.results import VIDEOS_DIR
from hdam.platform.evaluation.tables import States
from hdam.platform.figures import save_picture, tile

NUM_ROWS = 6


def write_sheet(folder: Path, protocol: Protocol, items: Sequence[Item], states: Sequence[States]) -> None:
    """Write `PROTOCOL.png`: source, driving and result of the middle frame of a few clips, the best by L1 first."""
    of_protocol = [(item, state) for item, state in zip(items, states, strict=True) if item.protocol == protocol]
    if protocol == "reconstruction" and all("l1" in state for _, state in of_protocol):
        of_protocol.sort(key=lambda pair: pair[1]["l1"].value)
        half = NUM_ROWS // 2
        chosen = of_protocol if len(of_protocol) <= NUM_ROWS else of_protocol[:half] + of_protocol[-half:]
    else:
        chosen = [of_protocol[place] for place in spread(len(of_protocol), NUM_ROWS)]
    rows = [[_middle(folder / VIDEOS_DIR / f"{item.name}.mp4", item.driving.num_frames // 2)] for item, _ in chosen]
    save_picture(tile(rows), folder / f"{protocol}.png")


def sheets_of(folder: Path) -> list[str]:
    """The names of the pictures in the folder of an evaluation."""
    return sorted(path.name for path in folder.glob("*.png"))


def _middle(video: Path, number: int) -> Image.Image:
    return Image.fromarray(next(read_frames(video, start=number, stop=number + 1)))
