"""The commands about the detectors behind metrics: `hdam detectors list`, `get` and `check`."""

from typing import Annotated, Literal

import typer
from rich.console import Console

OUT = Console()

detectors_app = typer.Typer(
    no_args_is_help=True, help="The optional detectors behind the metrics AKD, MKR, AED and the warp error."
)

Name = Literal["face", "body", "identity", "flow"]
"""Those of `hdam.platform.detection.catalogue`, here because importing that takes a while."""


@detectors_app.command("list")
def list_detectors() -> None:
    """Say which detectors there are, what for, and which are here."""
    from hdam.platform.detection.catalogue import available_detectors
    from hdam.platform.detectors_report import show_detectors

    show_detectors(list(available_detectors().values()), OUT)


@detectors_app.command("get")
def get_detector(name: Annotated[Name, typer.Argument(help="Which detector.", show_default=False)]) -> None:
    """Get the body detector, in an environment of its own; say how to get the others."""
    from hdam.platform.detection.body_install import make_environment
    from hdam.platform.detection.catalogue import require
    from hdam.platform.detectors_report import show_here, show_made

    if name == "body":
        with Console(stderr=True).status("installing mediapipe in an environment of its own"):
            made = make_environment()
        show_made(made, OUT)
        return
    require(name)  # it comes with packages that pip installs beside hdam
    show_here(name, OUT)


@detectors_app.command("check")
def check_detectors(
    name: Annotated[Name | None, typer.Argument(help="All that are here if absent.", show_default=False)] = None,
) -> None:
    """Check that detectors are whole and work; status 1 where some do not."""
    from hdam.platform.detection.catalogue import check_detector, check_here
    from hdam.platform.detectors_report import show_checked

    checked = [check_detector(name)] if name else check_here()
    show_checked(checked, OUT)
    if any(detector.fault for detector in checked):
        raise typer.Exit(1)
