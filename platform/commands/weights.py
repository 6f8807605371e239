"""The commands about the weights of the networks that compare images: `hdam weights list`, `get` and `check`."""

from typing import Annotated, Literal

import typer
from rich.console import Console

from hdam.platform.reports import counting_bytes

OUT = Console()

weights_app = typer.Typer(no_args_is_help=True, help="The weights that the perceptual loss and LPIPS need.")


@weights_app.command("list")
def list_weights() -> None:
    """Say which weights are to be had, from where, and which are here."""
    from hdam.platform.weights.report import show_sources

    show_sources(OUT)


@weights_app.command("get")
def get_weights(
    network: Annotated[
        Literal["vgg19", "vgg16", "lpips-alex", "lpips-vgg16"],
        typer.Argument(help="Which weights.", show_default=False),
    ],
    origin: Annotated[
        str, typer.Option("--from", metavar="FILE|URL", help="Take the same file from here.", show_default=False)
    ] = "",
) -> None:
    """Fetch weights and verify their checksum; training and evaluation use them from then on."""
    from hdam.platform.weights.fetch import get_weights as get
    from hdam.platform.weights.report import show_fetched

    with counting_bytes(network) as count:
        fetched = get(network, origin, on_bytes=count)
    show_fetched(fetched, OUT)


@weights_app.command("check")
def check_weights(
    name: Annotated[
        str, typer.Argument(help="A network, or a file; all that were fetched if absent.", show_default=False)
    ] = "",
) -> None:
    """Check that weights are readable, whole and unchanged; status 1 where some are not."""
    from hdam.platform.weights.fetch import check_fetched, check_named
    from hdam.platform.weights.report import show_checked

    checked = [check_named(name)] if name else check_fetched()
    show_checked(checked, OUT)
    if any(file.fault for file in checked):
        raise typer.Exit(1)
