"""Machines that die and come in the middle of trainings, as several Ray nodes here. Slow: `make test-cluster`."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import yaml
from processes import descendants, wait_until
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray.cluster_utils import Cluster
from small_training import small_training

from hdam.platform import tracking
from hdam.platform.checkpoints import newest_checkpoint, step_of
from hdam.platform.runs import StageRecord, read_record

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

SECONDS = 600
"""For anything to happen, on a machine that does a lot besides."""
EVERY = 10
"""Steps between two checkpoints."""
STEPS = 300
CHANGES = {
    "optim.duration": f"{STEPS} steps",
    "resources.cpus_per_worker": 2,  # so that there is no room for them on the head, which has one
    "resources.max_failures": 9,
    "log.metrics_every": 1,
    "log.checkpoint_every": EVERY,
    "log.pictures_every": STEPS,
}
QUICK_DEATH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 30_000,
    "health_check_failure_threshold": 3,
}
"""A node that has gone is known to be lost after two seconds, one that is merely slow is not."""
PER_WORKER = {"num_cpus": 2, "object_store_memory": 150 << 20}
"""A node for one worker."""


class Nodes:
    """A head without room for workers, and nodes that come and go."""

    def __init__(self, count):
        ensure_token_if_auth_enabled(None, create_token_if_missing=True)
        head = {"num_cpus": 1, "object_store_memory": 300 << 20, "_system_config": QUICK_DEATH}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(count):
            self.add()

    @property
    def address(self):
        return self._cluster.address

    def add(self):
        self._cluster.add_node(**PER_WORKER)

    def kill_one_at_work(self):
        """As if its plug was pulled; returns when."""
        at_work = [node for node in self._cluster.worker_nodes if self.num_workers_on(node)]
        killed = time.time()
        self._cluster.remove_node(at_work[0], allow_graceful=False)
        return killed

    def num_workers_on(self, node):
        raylet = node.all_processes["raylet"][0].process.pid
        return sum("RayTrainWorker" in command for _, command in descendants(raylet))

    def shutdown(self):
        self._cluster.shutdown()


class Training:
    """`hdam train` as a job of the cluster, its log, and what became of it."""

    def __init__(self, nodes, dataset, results, changes=None):
        self.results = results
        self._path = results.parent / "squares.yaml"
        self._path.write_text(yaml.safe_dump(small_training(dataset, {**CHANGES, **(changes or {})}).settings()))
        self._nodes = nodes
        self._log = results.parent / "driver.log"
        self.start()

    def start(self):
        """The same command every time."""
        command = [sys.executable, "-m", "hdam.platform.cli", "train", str(self._path)]
        environment = {**os.environ, "RAY_ADDRESS": self._nodes.address}
        with self._log.open("a") as log:
            self.process = subprocess.Popen(command, cwd=self.results.parent, env=environment, stderr=log, stdout=log)

    @property
    def said(self):
        return " ".join(self._log.read_text(encoding="utf-8").split())

    def wait_for(self, pattern, *, times=1):
        """Until the log has said so, so many times; returns the last match."""

        def found():
            return len(matches := list(re.finditer(pattern, self.said))) >= times and matches[-1]

        match = wait_until(lambda: found() or self.process.poll() is not None, seconds=SECONDS)
        assert isinstance(match, re.Match), f"no {pattern!r} in: {self.said}"
        return match

    def wait_for_checkpoints(self, *, beyond=0):
        """Until two more are there."""
        least = beyond + 2 * EVERY
        assert wait_until(lambda: self.newest_step >= least or self.process.poll() is not None, seconds=SECONDS)
        assert self.process.poll() is None, self.said

    def end(self):
        """Its exit status."""
        return self.process.wait(SECONDS)

    @property
    def newest_step(self):
        return max((step_of(path) for path in self.results.glob("stages/*/step-*")), default=0)

    @property
    def folder(self):
        (folder,) = self.results.glob("stages/hdam-*")
        return folder

    def told(self):
        """(step, seconds) of everything that MLflow was told of the loss, in the order in which it came."""
        client, run_id = tracking.connect(), read_record(self.folder, StageRecord).mlflow_run_id
        return sorted(
            ((metric.step, metric.timestamp / 1000) for metric in client.get_metric_history(run_id, "loss/total")),
            key=lambda pair: pair[1],
        )

    def recovery(self, since, *, at):
        """(seconds from `since` to the first step after that of the checkpoint `at`, steps that were done twice)."""
        told = self.told()
        again = max(seconds for step, seconds in told if step == at + 1)
        before = max(step for step, seconds in told if seconds < again)
        return again - since, max(before - at, 0)

    def check_whole(self, *, faults):
        """One parent and a child for each stage, all finished, and few steps done twice.

        What workers had told to nobody yet when the driver was killed is lost to MLflow, though not to the weights.
        """
        client = tracking.connect()
        runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
        assert sorted(run.data.tags.get("stage", "") for run in runs) == ["", "evaluate", "hdam"]
        assert {run.info.status for run in runs} == {"FINISHED"}
        times = Counter(step for step, _ in self.told())
        assert max(times) == STEPS and len(set(range(1, STEPS + 1)) - set(times)) <= EVERY
        assert sum(times.values()) - STEPS <= faults * EVERY
        assert step_of(newest_checkpoint(self.folder)) == STEPS
        assert "Traceback" not in self.said


@pytest.fixture
def tell(record_property):
    """Keeps the figures of a fault, which pytest prints at its end."""

    def note(fault, recovered):
        seconds, twice = recovered
        assert seconds > 0 and twice <= EVERY
        record_property("recovery", f"{fault}: {seconds:.0f} s to the next trained step, {twice} steps done twice")

    return note


@pytest.fixture
def nodes():
    started = Nodes(2)
    yield started
    started.shutdown()


@pytest.fixture
def train(nodes, dataset, results):
    started = []

    def start(changes=None):
        started.append(Training(nodes, dataset, results, changes))
        return started[-1]

    yield start
    for training in started:
        training.process.kill()
        training.process.wait()


def test_elastic_training_goes_on_smaller_grows_again_and_survives_its_driver(nodes, train, tell):
    training = train({"resources.min_workers": 1})
    training.wait_for_checkpoints()
    killed = nodes.kill_one_at_work()
    at = int(training.wait_for(r"a worker failed; 1 of 2 workers go on from step (\d+)")[1])
    assert "1 of 2 workers, each with 2 micro-batches a step" in training.said
    assert training.said.count("is lost") == 1
    training.wait_for_checkpoints(beyond=at)
    tell("a node lost, on with 1 of 2 workers", training.recovery(killed, at=at))
    added = time.time()
    nodes.add()
    grown = int(training.wait_for(r"grown to 2 of 2 workers, from step (\d+)")[1])
    assert grown > at and grown % EVERY == 0
    assert training.said.count("has joined") == 1
    training.wait_for_checkpoints(beyond=grown)
    tell("a node joined, on with 2 of 2 workers", training.recovery(added, at=grown))
    killed = time.time()
    training.process.send_signal(signal.SIGKILL)
    training.end()
    client, record = tracking.connect(), read_record(training.folder, StageRecord)
    left = (record.mlflow_run_id, record.parent_run_id)
    assert wait_until(lambda: {client.get_run(run_id).info.status for run_id in left} == {"KILLED"}, seconds=60)
    training.start()
    at = int(training.wait_for(r"going on from the checkpoint of step (\d+)")[1])
    assert at > grown
    assert training.end() == 0, training.said
    tell("the driver killed, the same command as soon as its runs were KILLED", training.recovery(killed, at=at))
    training.check_whole(faults=3)


def test_fixed_training_takes_a_spare_waits_for_a_node_and_gives_up_after_a_limit(nodes, train, tell):
    nodes.add()
    training = train({"resources.wait_seconds": 40})
    training.wait_for_checkpoints()
    killed = nodes.kill_one_at_work()
    at = int(training.wait_for(r"a worker failed; 2 of 2 workers go on from step (\d+)")[1])
    assert "waiting" not in training.said
    training.wait_for_checkpoints(beyond=at)
    tell("a node lost, on with 2 of 2 workers on a spare one", training.recovery(killed, at=at))
    killed = nodes.kill_one_at_work()
    needs = "2 workers of 2 CPUs each, and 1 CPU for the data"
    training.wait_for(rf"waiting for {needs}: there is room for 3 CPUs; giving up in 0\.[3-7] min")
    nodes.add()
    at = int(training.wait_for(r"a worker failed; 2 of 2 workers go on from step (\d+)", times=2)[1])
    assert training.said.count("waiting for") == 1
    training.wait_for_checkpoints(beyond=at)
    tell("a node lost, waiting for one that joins as soon as it is missed", training.recovery(killed, at=at))
    killed = nodes.kill_one_at_work()
    assert training.end() == 2
    assert f"waited 40 s for {needs}, but there is room for 3 CPUs; add a node" in training.said
    kept = int(
        re.search(r"the checkpoint of step (\d+) is kept, the same command goes on from there", training.said)[1]
    )
    nodes.add()
    training.start()
    assert int(training.wait_for(r"going on from the checkpoint of step (\d+)")[1]) == kept
    assert training.end() == 0, training.said
    tell("a node lost, given up after 40 s, one added and the same command", training.recovery(killed, at=kept))
    training.check_whole(faults=3)
