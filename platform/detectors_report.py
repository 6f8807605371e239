"""What `hdam detectors` prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from hdam.platform.reports import plain_table

if TYPE_CHECKING:
    from hdam.platform.detection.body_install import Made
    from hdam.platform.detection.catalogue import Availability, Checked


def show_detectors(detectors: "Sequence[Availability]", console: Console) -> None:
    """One line per detector: what it is for, its version, and whether it is here; below, how to get what is not."""
    table = plain_table("Name", "For", "Version", "Here", whole=("Name",))
    for detector in detectors:
        where = f"no: {detector.reason}" if detector.reason else "yes"
        table.add_row(*map(Text, (detector.name, detector.purpose, detector.version, where)))
    console.print(table)
    for remedy in dict.fromkeys(detector.remedy for detector in detectors if detector.reason):
        names = [detector.name for detector in detectors if detector.remedy == remedy]
        _say(console, f"Get {' and '.join(names)}: {remedy}")


def show_made(made: "Made", console: Console) -> None:
    """Where the body detector is now."""
    how = "is there already, and whole" if made.was_there else "made, and tried on a frame"
    _say(console, f"body: {made.folder} ({how})")


def show_here(name: str, console: Console) -> None:
    """That a detector need not be got."""
    _say(console, f"{name}: is here already")


def show_checked(checked: "Sequence[Checked]", console: Console) -> None:
    """One line per detector."""
    if not checked:
        _say(console, "No detector is here; hdam detectors list says how to get them.")
        return
    table = plain_table("", "Name", "Version", "Fault", whole=("", "Name"))
    for detector in checked:
        mark = Text("bad", style="red") if detector.fault else Text("ok", style="green")
        table.add_row(mark, *map(Text, (detector.name, detector.version, detector.fault)))
    console.print(table)


def _say(console: Console, line: str) -> None:
    """A line that is not wrapped, so that commands and paths in it can be copied, and in which nothing is markup."""
    console.print(Text(line), soft_wrap=True)
