"""The commands `hdam bench …`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

bench_app = typer.Typer(no_args_is_help=True, help="Measure parts of the platform on this machine.")


@bench_app.callback()
def prepare_bench() -> None:
    """Measure parts of the platform on this machine."""


@bench_app.command("data")
def bench_data(
    data: Annotated[str, typer.Option(help="Prepared dataset to take clips from; puppets if absent.")] = "",
    size: Annotated[int, typer.Option(help="Height and width of the puppets in pixels.")] = 256,
    clips: Annotated[int, typer.Option(help="Number of puppets.")] = 8,
    batch_size: Annotated[int, typer.Option(help="Pairs in a batch.")] = 16,
    pairs: Annotated[int, typer.Option(help="Pairs in each contender's stream of a round.")] = 2048,
    rounds: Annotated[int, typer.Option(help="Rounds that are counted; the figures are their medians.")] = 3,
    data_cpus: Annotated[int, typer.Option(help="Data tasks, or DataLoader workers.")] = 1,
    scale: Annotated[bool, typer.Option("--scale", help="Also measure memory, epochs and starts.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Also write what the stream's time goes into.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="JSON file; results/bench_data.json if absent. A profile lies beside it.")
    ] = None,
) -> None:
    """Compare the training stream with a torch DataLoader and with the published way: folders of PNG frames."""
    from hdam.platform.bench.data import BenchSettings, prepare_contest, run_bench, save_report
    from hdam.platform.bench.report import show_bench
    from hdam.platform.tracking import results_dir

    console = Console()
    path = out or results_dir() / "bench_data.json"
    settings = BenchSettings(
        data=data,
        size=size,
        num_clips=clips,
        batch_size=batch_size,
        num_pairs=pairs,
        rounds=rounds,
        data_cpus=data_cpus,
    )
    contest = prepare_contest(settings, results_dir() / "bench")
    report = run_bench(settings, contest)
    if scale:
        from hdam.platform.bench.scale import measure_scale

        report["scale"] = measure_scale(contest, num_pairs=pairs)
    save_report(report, path)
    show_bench(report, console)
    console.print(f"All figures in {path}", highlight=False, soft_wrap=True)
    if profile:
        from hdam.platform.bench.profile import write_profile

        write_profile(contest, path.with_suffix(".profile.txt"))
        console.print(f"Profile in {path.with_suffix('.profile.txt')}", highlight=False, soft_wrap=True)
