"""What `hdam weights` prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from hdam.platform.reports import MIB, plain_table
from hdam.platform.weights.files import SOURCES, STAND_IN, find_weights, weights_dir

if TYPE_CHECKING:
    from hdam.platform.weights.fetch import Checked, Fetched

SHOWN_DIGITS = 8


def show_sources(console: Console) -> None:
    """One line per network: what it is for, where it comes from, and where it is."""
    table = plain_table("Name", "For", "From", "sha256", "MiB", "Here", right=("MiB",), whole=("Name", "sha256"))
    for source in SOURCES.values():
        origin = f"package {source.package}" if source.package else source.origin
        path = find_weights(source.network)
        where = str(path) if path else f"no; hdam weights get {source.network}"
        size = f"{source.num_bytes / MIB:.1f}"
        cells = (source.network, source.purpose, origin, f"{source.sha256[:SHOWN_DIGITS]}…", size, where)
        table.add_row(*map(Text, cells))
    console.print(table)
    _say(console, f"They are kept in {weights_dir()} (HDAM_WEIGHTS, or weights/ among the results)")


def show_fetched(fetched: "Fetched", console: Console) -> None:
    """Where the weights are now."""
    how = (
        "is there already, and sound" if fetched.was_there else f"{fetched.path.stat().st_size / MIB:.1f} MiB, verified"
    )
    _say(console, f"{fetched.network}: {fetched.path} ({how})")
    if fetched.network == "vgg16":
        _say(console, f"{STAND_IN}: set losses.perceptual.network=vgg16")


def show_checked(checked: "Sequence[Checked]", console: Console) -> None:
    """One line per file."""
    if not checked:
        _say(console, f"No weights are in {weights_dir()}; hdam weights list says which there are.")
        return
    table = plain_table("", "Name", "File", "Fault", whole=("", "Name"))
    for file in checked:
        mark = Text("bad", style="red") if file.fault else Text("ok", style="green")
        table.add_row(mark, *map(Text, (file.network, str(file.path), file.fault)))
    console.print(table)


def _say(console: Console, line: str) -> None:
    """A line that is not wrapped, so that paths in it can be copied, and in which nothing is markup."""
    console.print(Text(line), soft_wrap=True)
