"""What `hdam plan` prints, as a table and as JSON."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from hdam.platform.planning.formula import Step, steps_per_epoch
from hdam.platform.planning.planned import Planned
from hdam.platform.reports import MIB, plain_table

KIB = 1 << 10
COLUMNS = ("Workers", "Compute", "Reduce", "Data", "Pairs/s", "Epoch", "Training")


def show_planned(planned: Planned, console: Console) -> None:
    """The table, the sizes behind it, and where the figures come from."""
    table = plain_table(*COLUMNS, "Limited by", right=COLUMNS, whole=("Limited by",))
    for step in planned.steps:
        parts = (step.compute, step.all_reduce, max(step.decoding, step.reading, step.sending))
        table.add_row(
            str(step.workers),
            *(f"{1000 * seconds:.3g} ms" if seconds < 1 else duration(seconds) for seconds in parts),
            f"{step.pairs_per_second:.1f}",
            duration(planned.epoch_seconds(step)),
            duration(planned.training_seconds(step)),
            step.limit,
        )
    console.print(table)
    for line in _lines(planned):
        console.print(Text(line), soft_wrap=True)


def planned_json(planned: Planned) -> dict[str, Any]:
    """Everything as JSON-able values; times in seconds."""
    return {
        "experiment": planned.experiment.name,
        "model": planned.variant,
        "parameters": planned.sizes.num_parameters,
        "stored_bytes_per_pair": planned.stored_bytes,
        "load": asdict(planned.load),
        "means": asdict(planned.means),
        "origins": planned.origins,
        "plans": [_row(planned, step) for step in planned.steps],
    }


def _row(planned: Planned, step: Step) -> dict[str, Any]:
    return asdict(step) | {
        "step": step.seconds,
        "pairs_per_second": step.pairs_per_second,
        "steps_per_epoch": steps_per_epoch(planned.load, step),
        "epoch": planned.epoch_seconds(step),
        "training": planned.training_seconds(step),
        "limit": step.limit,
    }


def _lines(planned: Planned) -> list[str]:
    load, means, sizes = planned.load, planned.means, planned.sizes
    where = (
        f"all of them and the data tasks on {means.shared_cpus:g} CPUs"
        if means.shared_cpus is not None
        else f"each with a GPU or CPUs of its own, links of {means.link_gbit:g} Gbit/s"
    )
    needed = ", ".join(str(step.data_cpus_needed) for step in planned.steps)
    write = load.checkpoint_bytes / means.write_bytes_per_second
    lines = [
        f"Training of {planned.variant} by {planned.experiment.name}, other stages left out. Workers: {where}.",
        f"A pair: {planned.stored_bytes / KIB:.1f} KiB on disk, of which tasks read {load.read_bytes / KIB:.1f} KiB, "
        f"{load.decoded_bytes / KIB:.0f} KiB decoded. An epoch: {load.pairs_per_epoch} pairs.",
        f"Gradients of {sizes.num_parameters / 1e6:.2f} M parameters: {load.gradient_bytes / MIB:.1f} MiB a step. "
        f"Checkpoint: {load.checkpoint_bytes / MIB:.1f} MiB, {write:.2f} s, every {load.checkpoint_every} steps.",
        f"Data CPUs that decode as fast as workers train: {needed}; resources.data_cpus is {means.data_cpus:g}.",
        *(f"{name.capitalize()}: {origin}." for name, origin in planned.origins.items()),
    ]
    larger = [step for step in planned.steps if step.batch_size != load.batch_size]
    if larger:
        batches = ", ".join(f"{step.workers} workers with {step.batch_size}" for step in larger)
        lines.append(
            f"optim.batch_size={load.batch_size} does not divide: planned for {batches}, which is another recipe."
        )
    if not means.fixed_seconds:
        lines.append("No fixed part of a step is known (--fixed-ms, --measure): many workers may be slower than this.")
    return lines


def duration(seconds: float) -> str:
    """`34 s`, `12.3 min`, `4.5 h` or `3.2 days`."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
