"""The commands for published checkpoints: `hdam import-weights` and `hdam export-weights`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from hdam.platform.reports import plain_table

if TYPE_CHECKING:
    from hdam.platform.weights.published import Part

OUT = Console()

Family = Literal["dam", "hdam", "fomm", "regionmm"]
"""The names of `hdam.models.published_file`, here because importing that takes a while."""


def import_weights(
    file: Annotated[Path, typer.Argument(help="Published checkpoint, .pth.tar or .pth.", show_default=False)],
    family: Annotated[Family, typer.Option(help="The published model that it holds.", show_default=False)],
    name: Annotated[str, typer.Option(help="Name to register it under.", show_default=False)],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="What shapes do not tell: data.size=384")
    ] = None,
) -> None:
    """Register a published model, its settings read off its weights; nothing in the file is run."""
    from hdam.experiments.loading import parse_overrides

    overrides = parse_overrides(changes or [])
    from hdam.platform.weights.published import import_published

    report = import_published(file, family=family, name=name, changes=overrides)
    _show_parts(report.parts)
    _say(f"Left out: {', '.join(report.left_out) or 'nothing'}")
    assumed = [f"{setting}={_as_yaml(value)}" for setting, value in report.assumed.items()]
    if assumed:
        _say(f"Assumed, as weights do not tell it (--set changes it): {', '.join(assumed)}")
    _say(f"Model {report.uri}; try")
    _say(f"  hdam animate --model {report.uri} --source IMAGE --driving VIDEO --out result.mp4")


def export_weights(
    model: Annotated[str, typer.Argument(help="As for hdam animate: models:/NAME/VERSION, a folder, ….")],
    file: Annotated[Path, typer.Argument(help="New checkpoint, as .pth.tar.", show_default=False)],
) -> None:
    """Write a model as the published code's checkpoint."""
    from hdam.platform.registry import load_model
    from hdam.platform.weights.published import export_model

    report = export_model(load_model(model), file)
    _show_parts(report.parts)
    _say(f"Written to {report.path}")
    if report.reading != "released":
        _say(
            f"Note: trained in the reading {report.reading}; the published code samples otherwise and paints otherwise."
        )


def _show_parts(parts: Iterable["Part"]) -> None:
    numbers = ("Tensors", "Parameters")
    table = plain_table("Part", *numbers, right=numbers)
    for part in parts:
        table.add_row(part.name, str(part.num_tensors), f"{part.num_parameters:,}")
    OUT.print(table)


def _as_yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _say(line: str) -> None:
    """A line that is not wrapped, and in which nothing is markup."""
    OUT.print(Text(line), soft_wrap=True)
