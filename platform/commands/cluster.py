"""The commands `hdam cluster …`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

OUT = Console()

cluster_app = typer.Typer(no_args_is_help=True, help="Files that clusters are made from.")


@cluster_app.callback()
def prepare_cluster() -> None:
    """Files that clusters are made from."""


@cluster_app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="For ray up, or manifests for KubeRay.", show_default=False)],
) -> None:
    """Say what is wrong with a cluster's file, offline; status 2 where something is."""
    from hdam.platform.clusters.check import check_file

    checked = check_file(file)
    for problem in checked.problems:
        OUT.print(Text(str(problem)), soft_wrap=True)
    if checked.problems:
        raise typer.Exit(2)
    OUT.print(
        Text(f"{file}: nothing wrong with this {checked.kind}, as far as that can be seen from here"), soft_wrap=True
    )
