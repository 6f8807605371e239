"""The command `hdam plan`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

OUT = Console()
GPUS = (1, 4, 8, 64)


def plan(
    experiment: Annotated[Path, typer.Argument(help="YAML file, or the name of a shipped one.", show_default=False)],
    gpus: Annotated[
        list[int] | None, typer.Option(min=1, help="Workers, one a GPU, said once or more; 1, 4, 8 and 64 if absent.")
    ] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="As for hdam train.")] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Training clips, where there is no dataset yet.")] = None,
    pairs_per_second: Annotated[
        float | None, typer.Option(min=1e-6, help="Of one worker on the whole batch; else of an earlier training.")
    ] = None,
    fixed_ms: Annotated[float, typer.Option(min=0, help="Of its step, what stays however few pairs it sees.")] = 0.0,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time steps on this machine, earlier trainings or not.")
    ] = False,
    decode_pairs_per_cpu: Annotated[
        float | None, typer.Option(min=1e-6, help="Pairs for a CPU second of data tasks; measured here if absent.")
    ] = None,
    write_mib: Annotated[
        float | None, typer.Option(min=1e-6, help="MiB/s of checkpoints; measured here if absent.")
    ] = None,
    network_gbit: Annotated[float, typer.Option(min=1e-6, help="Gbit/s between machines.")] = 10.0,
    overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the computing that hides the all-reduce; nothing is assumed.")
    ] = 0.0,
    shared_cpus: Annotated[
        float | None, typer.Option(min=0.1, help="All workers and data tasks share these CPUs, on one machine.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say how long an epoch would take on so many GPUs, and what would limit it; docs/planning.md has the formula."""
    from hdam.experiments.loading import find_shipped, load_experiment, parse_overrides

    settings = load_experiment(find_shipped(experiment), parse_overrides(changes or []))
    from hdam.platform.planning.planned import Told, plan_experiment
    from hdam.platform.planning.report import planned_json, show_planned

    told = Told(
        clips=clips,
        pairs_per_second=pairs_per_second,
        fixed_seconds=fixed_ms / 1000,
        decode_pairs_per_cpu=decode_pairs_per_cpu,
        write_mib_per_second=write_mib,
        link_gbit=network_gbit,
        overlap=overlap,
        shared_cpus=shared_cpus,
        is_measured_anew=measure,
    )
    planned = plan_experiment(settings, gpus or GPUS, told)
    if as_json:
        typer.echo(json.dumps(planned_json(planned), indent=2))
    else:
        show_planned(planned, OUT)
