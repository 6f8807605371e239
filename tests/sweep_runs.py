"""What MLflow has of a sweep, for tests."""

from hdam.platform import tracking


def children_of(run_id):
    """The child runs of an MLflow run, by their name."""
    client = tracking.connect()
    experiment_id = client.get_run(run_id).info.experiment_id
    found = client.search_runs([experiment_id], filter_string=f"tags.mlflow.parentRunId = '{run_id}'")
    return {child.info.run_name: child for child in found}


def status_of(run_id):
    return tracking.connect().get_run(run_id).info.status


def check_accounted(report):
    """Every trial is one child run of the sweep, with the status that the record has, and none is left running."""
    expected = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "interrupted": "KILLED"}
    children = children_of(report.mlflow_run_id)
    trials = {name: run for name, run in children.items() if name.startswith("trial-")}
    assert {name: run.info.run_id for name, run in trials.items()} == {
        trial.name: trial.mlflow_run_id for trial in report.trials
    }
    assert [trial.number for trial in report.trials] == list(range(1, len(report.trials) + 1))
    for trial in report.trials:
        run = trials[trial.name]
        assert run.info.status == expected[trial.status], trial
        assert run.data.tags["trial.status"] == trial.status
        assert run.data.tags["trial.reason"] == trial.reason
        stages = {child.info.status for child in children_of(trial.mlflow_run_id).values()}
        assert "RUNNING" not in stages
        if trial.status == "finished":
            assert stages == {"FINISHED"}
    assert status_of(report.mlflow_run_id) == "FINISHED"
