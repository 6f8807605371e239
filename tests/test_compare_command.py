"""`hdam compare` as a user types it: two models of a registry and a folder, and mistakes in one line."""

import csv

import pytest
from small_models import small_model
from small_training import SIZE, make_dataset
from typer.testing import CliRunner

from hdam.platform.cli import app
from hdam.platform.evaluation.results import read_evaluation
from hdam.platform.model_folder import write_model
from hdam.platform.registry import register
from hdam.platform.tracked_run import end_run, start_run
from hdam.platform.tracking import connect


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Six clips are enough to tell models apart."""
    return make_dataset(tmp_path_factory.mktemp("data"), num_clips=8, num_test=6, num_frames=4)


@pytest.fixture
def folder(tmp_path):
    """A DAM."""
    loaded = small_model({"model.anchors.num_intermediate": 0}, seed=1)
    write_model(tmp_path / "dam", model=loaded.model, experiment=loaded.experiment)
    return str(tmp_path / "dam")


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *arguments])


@pytest.mark.whole
def test_the_command_evaluates_compares_and_logs(squares, folder, results, monkeypatch, ray_session):
    monkeypatch.setenv("HDAM_WEIGHTS", str(results / "none"))
    client, loaded = connect(), small_model()
    run_id = start_run(client, loaded.experiment, None, run_name="training")
    end_run(client, run_id, "FINISHED")
    register(model=loaded.model, experiment=loaded.experiment, name="hdam-squares", run_id=run_id, tags={})
    options = ["--data", squares, "--metrics", "l1,repeat_l1,psnr"]
    told = run("models:/hdam-squares@candidate", folder, *options)
    assert told.exit_code == 0, told.output
    (comparison,) = (results / "comparisons").iterdir()
    page = (comparison / "index.html").read_text(encoding="utf-8")
    assert "models:/hdam-squares/1" in page and f"Page: {comparison / 'index.html'}" in told.output
    assert len(list((comparison / "videos" / "reconstruction").glob("*.mp4"))) == 5
    assert len(list((comparison / "videos" / "cross").glob("*.mp4"))) == 5, "without metrics, there still are videos"
    rows = list(csv.DictReader((comparison / "table.csv").open(encoding="utf-8")))
    records = {name.name: read_evaluation(name) for name in (results / "evaluations").iterdir()}
    means = [record.means["reconstruction"]["l1"].value for record in records.values()]
    found = [float(row["mean"]) for row in rows if row["metric"] == "l1"]
    assert sorted(found) == pytest.approx(sorted(means), rel=1e-12)
    assert all(record.mlflow_run_id in page for record in records.values())
    logged = client.search_runs([client.get_experiment_by_name("comparisons").experiment_id])
    assert [each.info.run_name for each in logged] == [comparison.name]
    again = run("models:/hdam-squares@candidate", folder, *options, "--by", "psnr", "--protocol", "both")
    assert again.exit_code == 0, again.output
    assert len(list((results / "evaluations").iterdir())) == 2, "what is evaluated is not evaluated again"
    assert len(list((results / "comparisons").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{dam}"], "two models or more"),
        (["{dam}", "{dam}"], "are the same model; name each one once"),
        (["{dam}", "{large}"], f"its frames are {SIZE} pixels wide, the model works on {2 * SIZE}"),
        (["{dam}", "{dam}", "--by", "niceness"], "--by niceness: no such metric; there are l1, repeat_l1"),
        (["{dam}", "{dam}", "--by", "aed", "--protocol", "cross"], "--by aed: --protocol cross does not have it"),
        (["{dam}", "nowhere"], "'nowhere': no such folder"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_measured(squares, folder, tmp_path, results, arguments, told):
    large = small_model({"data.size": 2 * SIZE}, seed=2)
    write_model(tmp_path / "large", model=large.model, experiment=large.experiment)
    places = {"dam": folder, "large": str(tmp_path / "large")}
    found = run(*(argument.format(**places) for argument in arguments), "--data", squares)
    assert found.exit_code == 2
    line = found.stderr.strip()
    assert "\n" not in line and told in line
    assert not results.exists() or not (results / "evaluations").exists()
