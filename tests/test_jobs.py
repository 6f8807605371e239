"""Jobs on a real head: what is submitted runs there, and its log, its status and its end arrive here."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest
import yaml
from processes import wait_until
from small_training import make_dataset, small_training

from hdam.platform import tracking

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

COMMAND = [sys.executable, "-m", "hdam.platform.cli"]
SECRET = "not-for-other-eyes"
SECRETS = {"AWS_ACCESS_KEY_ID": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, "MLFLOW_TRACKING_PASSWORD": SECRET}
SECONDS_TO_TRAIN = 900
SHORT = {"resources.workers": 1, "optim.duration": "8 steps", "log.metrics_every": 2, "log.checkpoint_every": 4}


@pytest.fixture(scope="module")
def client(head, tmp_path_factory):
    """A folder with an experiment and its dataset, and the environment of a user of the cluster."""
    folder = tmp_path_factory.mktemp("client")
    make_dataset(folder)
    settings = small_training("squares", SHORT).settings()
    (folder / "basis.yaml").write_text(yaml.safe_dump(settings))
    (folder / "mine.yaml").write_text("base: basis.yaml\nname: mine\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HDAM_RESULTS", str(folder / "results"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, value in {**head.environment, **SECRETS}.items():
            patch.setenv(name, value)
        yield folder


def hdam(folder, *arguments, **variables):
    """A finished command of the client's."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS_TO_TRAIN,
    )


@contextmanager
def hdam_at_work(folder, *arguments):
    """A command of the client's, and what it has said until now."""
    log = folder / "said.txt"
    with log.open("w") as file:
        process = subprocess.Popen([*COMMAND, *arguments], cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process, log.read_text
        finally:
            process.kill()
            process.wait()


def listed(head):
    """What the jobs API says of all jobs, as it is sent."""
    request = urllib.request.Request(f"{head.address}/api/jobs/", headers={"Authorization": f"Bearer {head.token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def runs_of(job):
    """The MLflow runs that a job has made."""
    client = tracking.connect()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(experiments, filter_string=f"tags.job = '{job}'")


def status_of(head, job):
    return next(each["status"] for each in json.loads(listed(head)) if each["submission_id"] == job)


@pytest.fixture(scope="module")
def trained(client):
    """A training that was submitted and has ended."""
    done = hdam(client, "submit", "--", "train", "mine.yaml", "--set", "seed=3")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def job(trained):
    """Its job's name."""
    return trained.stderr.split("Job ")[1].split()[0]


def test_a_training_is_done_on_the_cluster(client, trained, job):
    assert job.startswith("train-mine-")
    assert "hdam: 8 of 8" in trained.stdout
    assert "Model models:/hdam-squares/1" in trained.stdout
    assert f"Job {job} is done" in trained.stderr
    assert "\x1b" not in trained.stdout
    assert "\r" not in trained.stdout


def test_its_runs_name_the_job_and_the_commit(client, job):
    runs = runs_of(job)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.params["seed"] for run in runs if "seed" in run.data.params} == {"3"}
    assert {len(run.data.tags["mlflow.source.git.commit"]) for run in runs} == {40}


def test_the_code_was_sent(head, client, job):
    (environment,) = [each["runtime_env"] for each in json.loads(listed(head)) if each["submission_id"] == job]
    package = environment["working_dir"].rpartition("/")[2].removesuffix(".zip")
    (sent,) = [path for path, _ in head.texts() if path.match(f"*/{package}/submitted/mine.yaml")]
    assert (sent.parents[1] / "hdam" / "platform" / "cli.py").is_file()


def test_secrets_and_the_token_show_up_nowhere(head, client, trained, job):
    assert "Not sent, since whoever has the cluster's token could read it: AWS_ACCESS_KEY_ID, AWS_SEC" in trained.stderr
    places = [("the client", trained.stdout + trained.stderr), ("the jobs API", listed(head))]
    places += head.texts()
    places += [
        (path, path.read_bytes().decode("latin-1")) for path in (client / "results").rglob("*") if path.is_file()
    ]
    assert len(places) > 20
    assert not [where for where, text in places if SECRET in text or head.token in text]


def test_jobs_are_listed_and_their_logs_kept(client, trained, job):
    listing = hdam(client, "jobs", "list", COLUMNS="200")
    assert listing.returncode == 0
    (line,) = [line for line in listing.stdout.splitlines() if job in line]
    assert "SUCCEEDED" in line
    assert "hdam train submitted/mine.yaml --set seed=3" in line
    log = hdam(client, "jobs", "logs", job)
    assert (log.returncode, log.stdout) == (0, trained.stdout)
    again = hdam(client, "jobs", "stop", job)
    assert (again.returncode, again.stderr.strip()) == (0, f"Job {job} has ended already: SUCCEEDED")


def test_a_failing_job_gives_its_own_error_and_status_1(client):
    """The model is looked for in the job alone: here nobody knows whether the cluster has it."""
    arguments = ("evaluate", "models:/absent@champion", "--data", "squares")
    failed = hdam(client, "submit", "--", *arguments)
    assert failed.returncode == 1
    own = next(line for line in failed.stdout.splitlines() if line.startswith("hdam: "))
    assert "no registered model 'absent'" in own
    assert "Traceback" not in failed.stdout
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("hdam: job evaluate-absent-champion-")
    assert last.endswith("failed: " + own.removeprefix("hdam: "))


def test_a_detached_job_is_waited_for_later(client):
    begun = hdam(client, "submit", "--detach", "evaluate", "models:/absent/1", "--data", "squares")
    (job,) = begun.stdout.split()
    assert begun.returncode == 0
    assert f"hdam jobs logs {job} --follow shows its log, hdam jobs stop {job} ends it" in begun.stderr
    followed = hdam(client, "jobs", "logs", job, "--follow")
    assert followed.returncode == 1
    assert f"hdam: job {job} failed: " in followed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "mine.yaml", "--set", "data.path=absent"), "absent: no such dataset"),
        (("train", "mine.yaml", "--set", "optim.lr=fast"), "mine.yaml: optim.lr: .* found 'fast'"),
        (("evaluate", "models:/absent/1", "--data", "absent"), "absent: no such dataset"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(head, client, arguments, message):
    before = listed(head)
    refused = hdam(client, "submit", "--", *arguments)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("hdam: ")
    assert re.search(message, line)
    assert listed(head) == before


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RAY_AUTH_TOKEN": "wrong", "RAY_AUTH_TOKEN_PATH": ""}, "does not know this token"),
        ({"RAY_AUTH_MODE": "disabled"}, "takes no one without its token"),
    ],
)
def test_without_the_token_nobody_is_let_in(head, client, variables, message):
    refused = hdam(client, "jobs", "list", **variables)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"hdam: the cluster at {head.address} {message}; its token belongs in RAY_AUTH_")


def test_a_job_that_is_not_there_is_told(client):
    refused = hdam(client, "jobs", "logs", "nightly")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("hdam: no job nightly at http://")


def test_ctrl_c_leaves_the_job_running_and_stop_ends_it_well(head, client):
    long = ("--set", "optim.duration=100000 steps", "--set", "log.checkpoint_every=100000")
    with hdam_at_work(client, "submit", "train", "mine.yaml", *long) as (submitted, said):
        wait_until(lambda: "of 100000" in said() or submitted.poll() is not None, seconds=SECONDS_TO_TRAIN)
        submitted.send_signal(signal.SIGINT)
        assert submitted.wait(60) == 130, said()
        left = said()
    job = left.split("Job ")[1].split()[0]
    assert f"Job {job} goes on; hdam jobs logs {job} --follow shows its log, hdam jobs stop {job} ends it" in left
    assert "Traceback" not in left
    assert status_of(head, job) == "RUNNING"
    with hdam_at_work(client, "jobs", "logs", job, "--follow") as (following, said):
        wait_until(lambda: "of 100000" in said() or following.poll() is not None, seconds=60)
        assert following.poll() is None, said()
        stopped = hdam(client, "jobs", "stop", job)
        assert stopped.returncode == 0
        assert stopped.stderr.splitlines()[-1] == f"Job {job}: STOPPED"
        assert following.wait(60) == 1
        assert f"hdam: job {job} was stopped" in said()
        assert "the same command goes on from step" in said()
    assert {run.info.status for run in runs_of(job)} == {"KILLED"}
