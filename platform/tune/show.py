"""What `hdam tune` says: the plan of a dry run, and the report of a sweep."""

from rich.console import Console
from rich.text import Text

from hdam.platform.reports import plain_table
from hdam.platform.tracking import ui_command
from hdam.platform.tune.cost import Cost
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.tune.points import search_space
from hdam.platform.tune.report import PAGE_NAME, SweepReport, cells, rounded, short_names
from hdam.platform.tune.shared import is_finished


def show_plan(plan: SweepPlan, cost: Cost, console: Console) -> None:
    """Trials, shared stages and the estimated cost."""
    sweep, searched = plan.loaded.sweep, tuple(search_space(plan.loaded))
    table = plain_table("Trial", *short_names(searched), "Seed", "Stages", right=("Trial", "Seed"))
    if not plan.is_learning:
        for number, trial in enumerate(plan.trials, start=1):
            settings = [rounded(trial.settings[name]) for name in searched]
            stages = "\n".join(stage.name for stage in trial.stages)
            table.add_row(*map(Text, (str(number), *settings, str(trial.seed), stages)))
        console.print(table)
    how = f"{sweep.algorithm} search" + (f", {sweep.scheduler}" if sweep.scheduler != "none" else "")
    learns = "; which ones, depends on what is found" if plan.is_learning else ""
    _say(console, f"{plan.num_trials} trials by {how}, {sweep.concurrency} at a time{learns}")
    shared = {stage.name: stage for each in plan.shared for stage in each.stages}
    names = [f"{name} (known)" if is_finished(stage) else name for name, stage in shared.items()]
    _say(console, f"Done before the trials, which share them: {', '.join(names)}" if names else "No stage is shared")
    _show_cost(cost, console)


def show_sweep(report: SweepReport, console: Console) -> None:
    """What was found, and where it is."""
    columns = ("Trials", "Ended", report.sweep.metric, "±", "Lowest … highest")
    names = short_names(report.searched)
    table = plain_table(
        *names, *columns, right=(report.sweep.metric, "±"), whole=(*names, "Trials", "Ended", "Lowest … highest")
    )
    for row in report.rows:
        settings = [rounded(row.settings[name]) for name in report.searched]
        table.add_row(*map(Text, (*settings, *cells(row))))
    console.print(table)
    for trial in report.trials:
        if trial.reason:
            _say(console, f"Trial {trial.number} {trial.status}: {trial.reason}", style="yellow")
    known = "was finished before" if report.was_known else f"took {report.seconds / 60:.1f} min"
    _say(console, f"The sweep {known}; the report is {report.folder / PAGE_NAME}")
    if report.best is None:
        _say(console, f"No finished trial has {report.sweep.metric}, so that no model is registered")
    else:
        _say(console, f"Best: trial {report.best.number}, model {report.model_uri}, alias candidate")
    _say(console, f"  {ui_command()}")


def _show_cost(cost: Cost, console: Console) -> None:
    if cost.measured_in:
        minutes, shared = (cost.shared_seconds + cost.trials_seconds) / 60, cost.shared_seconds / 60
        where = ", ".join(folder.name for folder in cost.measured_in)
        _say(console, f"Trainings: about {minutes:.1f} min, {shared:.1f} of them shared; by the pairs/s of {where}")
    if cost.unknown:
        kinds = ", ".join(cost.unknown)
        _say(console, f"No measurement: nothing of this kind and size was trained here yet: {kinds}")
    if not cost.measured_in and not cost.unknown:
        _say(console, "All trainings are done already")


def _say(console: Console, line: str, *, style: str = "") -> None:
    console.print(Text(line, style=style), soft_wrap=True)
