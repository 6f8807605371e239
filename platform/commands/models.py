"""The commands that look models up and name them: `hdam models list`, `show`, `alias` and `promote`."""

from typing import Annotated

import typer
from rich.console import Console

OUT = Console()

models_app = typer.Typer(no_args_is_help=True, help="The registered models.")


@models_app.command("list")
def list_models() -> None:
    """All registered models."""
    from hdam.platform import registry
    from hdam.platform.reports import show_models

    show_models(registry.list_models(), OUT)


@models_app.command("show")
def show_model(name: str) -> None:
    """Every version of one model."""
    from hdam.platform import registry
    from hdam.platform.reports import show_versions

    show_versions(registry.show_model(name), OUT)


@models_app.command("alias")
def set_alias(name: str, version: str, alias: str) -> None:
    """Point an alias, such as champion, at a version."""
    from hdam.platform import registry

    registry.set_alias(name, version, alias)
    OUT.print(f"models:/{name}@{alias} is version {version}", highlight=False, soft_wrap=True)


@models_app.command("promote")
def promote(
    name: str,
    version: str,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the version.", show_default=False)],
) -> None:
    """Make a version the champion, and record why."""
    from hdam.platform import promotion

    before = promotion.promote(name, version, reason)
    instead = f", in place of version {before}" if before and before != version else ""
    OUT.print(f"models:/{name}@{promotion.CHAMPION} is version {version}{instead}", highlight=False, soft_wrap=True)
