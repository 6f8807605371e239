"""The commands that look at a dataset: `hdam data show` and `hdam data verify`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hdam.platform.reports import counting

OUT = Console()

data_app = typer.Typer(no_args_is_help=True, help="Look at a dataset, or check it.")


@data_app.command("show")
def show_dataset(
    dataset: Annotated[str, typer.Argument(help="Folder, or file:// or s3:// address.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="File for the contact sheet; that of the dataset if absent.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a dataset holds: clips, identities, lengths, bytes, and a contact sheet to look at."""
    from hdam.pipelines.overview import describe, place_sheet
    from hdam.platform.data_report import overview_json, show_overview

    overview = describe(dataset)
    sheet = place_sheet(dataset, out)
    if json:
        typer.echo(overview_json(overview, sheet))
    else:
        show_overview(overview, sheet, OUT)


@data_app.command("verify")
def verify_dataset(
    dataset: Annotated[str, typer.Argument(help="Folder, or file:// or s3:// address.", show_default=False)],
    cpus: Annotated[int | None, typer.Option(help="Shards checked at once; all CPUs if absent.")] = None,
) -> None:
    """Check every byte, row and frame of a dataset; status 1 where something is wrong."""
    from hdam.pipelines.verify import verify
    from hdam.platform.data_report import show_verified

    with counting("frames") as count:
        report = verify(dataset, processes=cpus, on_frames=count)
    show_verified(report, OUT)
    if report.faults:
        raise typer.Exit(1)
