"""The command `hdam tune`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hdam.pipelines.errors import InputError

OUT = Console()


def tune(
    sweep: Annotated[
        Path, typer.Argument(help="YAML file of a sweep, or the name of a shipped one.", show_default=False)
    ],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting of all trials.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and what it would cost.")] = False,
    restore: Annotated[bool, typer.Option("--restore", help="Go on with a sweep that was begun, or complain.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Go on with failed trials too.")] = False,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Combinations to try, instead of the sweep's num_trials.", show_default=False),
    ] = None,
) -> None:
    """Do the trials of a sweep and register the best model; the same command goes on where it was stopped."""
    from hdam.experiments.loading import find_shipped, parse_overrides
    from hdam.experiments.sweep_loading import load_sweep

    loaded = load_sweep(find_shipped(sweep), parse_overrides(changes or []))
    if dry_run and (restore or retry):
        raise InputError("--dry-run does nothing, --restore and --retry go on; give one of them")
    from hdam.platform.tune import sweep as sweeping  # torch, ray and mlflow: only once the settings are right
    from hdam.platform.tune.cost import estimate
    from hdam.platform.tune.plan import plan_sweep
    from hdam.platform.tune.show import show_plan, show_sweep

    if dry_run:
        plan = plan_sweep(loaded, num_trials=trials)
        show_plan(plan, estimate(plan), OUT)
        return
    show_sweep(sweeping.tune(loaded, num_trials=trials, restore=restore, retry=retry), OUT)
