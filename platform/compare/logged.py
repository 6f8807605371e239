"""A comparison as a run of MLflow: its tables and its page, and every mean as a metric."""

import logging
import re

from hdam.pipelines.errors import InputError
from hdam.platform.compare.comparison import ComparisonReport
from hdam.platform.tracked_run import begin_run, end_run, log_folder, log_metrics
from hdam.platform.tracking import connect, tolerated

LOG = logging.getLogger("hdam")

MLFLOW_EXPERIMENT = "comparisons"


def log_comparison(report: ComparisonReport) -> str:
    """Keep the comparison as an MLflow run; returns its id, empty where MLflow is away, of which a warning tells."""
    first = report.entrants[0].record
    tags = {
        "dataset": first.dataset["name"],
        "dataset.fingerprint": first.dataset["fingerprint"],
        "verdict": report.verdict,
        "folder": report.folder.name,
    }
    params = {f"model.{place}": each.record.model["uri"] for place, each in enumerate(report.entrants, start=1)}
    params |= {f"model.{place}.evaluation": each.folder.name for place, each in enumerate(report.entrants, start=1)}
    run_id = ""
    try:
        client = connect()
    except InputError as error:
        LOG.warning("the comparison is not in MLflow: %s", error)
        return run_id
    with tolerated("the comparison is not in MLflow, or not all of it"):
        run_id = begin_run(client, MLFLOW_EXPERIMENT, run_name=report.folder.name, tags=tags, params=params)
        log_metrics(client, run_id, metrics_of(report), step=0)
        log_folder(client, run_id, report.folder)
        end_run(client, run_id, "FINISHED")
    return run_id


def metrics_of(report: ComparisonReport) -> dict[str, float]:
    """`PROTOCOL/METRIC/MODEL`, and the same with `/low` and `/high`; labels in the letters that MLflow takes."""
    found = {}
    for score in report.scores:
        for place, (entrant, each) in enumerate(zip(report.entrants, score.models, strict=True), start=1):
            name = f"{score.protocol}/{score.metric.name}/{place}-{re.sub(r'[^A-Za-z0-9._ -]', '-', entrant.label)}"
            if each.mean is not None:
                found[name] = each.mean
            if each.interval is not None:
                found |= {f"{name}/low": each.interval.low, f"{name}/high": each.interval.high}
    return found
