"""The report of a sweep as files: all that `write_report` returns is kept with the sweep's MLflow run."""

import csv
import io
from pathlib import Path

from hdam.platform.pages.page import render
from hdam.platform.runs import write_text
from hdam.platform.tune.answer import answer
from hdam.platform.tune.page import compose
from hdam.platform.tune.plan import SweepPlan
from hdam.platform.tune.records import Ledger
from hdam.platform.tune.report import (
    CSV_NAME,
    MARKDOWN_NAME,
    PAGE_NAME,
    SweepReport,
    cells,
    columns_of,
    make_report,
    rounded,
)


def write_report(plan: SweepPlan, ledger: Ledger) -> list[Path]:
    """The report in the sweep's folder, of what is known until now. Raises InputError where it cannot be written."""
    report = make_report(plan, ledger)
    table, text, page = (ledger.folder / name for name in (CSV_NAME, MARKDOWN_NAME, PAGE_NAME))
    write_text(table, _csv(plan, ledger))
    write_text(text, "\n".join(_markdown(report)) + "\n")
    write_text(page, render(compose(plan, ledger, report)))
    return [table, text, page]


def _csv(plan: SweepPlan, ledger: Ledger) -> str:
    columns = columns_of(plan, ledger.trials)
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return rows.getvalue()


def _markdown(report: SweepReport) -> list[str]:
    sweep = report.sweep
    header = [*report.searched, "trials", "ended", f"{sweep.metric}, mean", "± over seeds", "lowest … highest"]
    lines = [f"# {report.name}", "", sweep.question, ""]
    for sentence in answer(report):
        lines += [sentence, ""]
    lines += [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for row in report.rows:
        lines.append(f"| {' | '.join([*(rounded(row.settings[name]) for name in report.searched), *cells(row)])} |")
    seeds = f"{len(sweep.seeds)} seeds" if len(sweep.seeds) > 1 else "one seed, which tells no difference from chance"
    lines += ["", f"{sweep.metric}: {report.good} is good; {seeds}."]
    if report.best is not None:
        lines += [
            "",
            f"The best is trial {report.best.number} (MLflow run {report.best.mlflow_run_id}); its model is "
            f"{report.model_uri}.",
        ]
    told = [trial for trial in report.trials if trial.reason]
    if told:
        lines += ["", *(f"* Trial {trial.number} {trial.status}: {trial.reason}" for trial in told)]
    return lines
