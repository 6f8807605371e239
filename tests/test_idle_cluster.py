"""Commands on a cluster of which only the head is up, as one that grows when asked. Slow: `make test-cluster`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import wait_until
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray.cluster_utils import Cluster
from small_models import small_model
from small_sweep import write_sweep

from hdam.platform.model_folder import write_model

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

SECONDS = 900


class IdleCluster:
    """A head without CPUs for tasks, beside which nodes are started by hand."""

    def __init__(self):
        ensure_token_if_auth_enabled(None, create_token_if_missing=True)
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 300 << 20})

    def begin(self, *command):
        """A command of hdam whose output is a file."""
        self._log = Path(os.environ["HDAM_RESULTS"]).with_suffix(".log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hdam.platform.cli", *map(str, command)],
            env={**os.environ, "RAY_ADDRESS": self.cluster.address, "COLUMNS": "200"},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def said(self):
        self._log.seek(0)
        return " ".join(self._log.read().split())

    def wait_for(self, pattern):
        """Until the log has said so."""
        wait_until(lambda: re.search(pattern, self.said) or self.process.poll() is not None, seconds=SECONDS)
        assert re.search(pattern, self.said), self.said

    def end(self, *, status=0):
        """Wait for the command's end; returns all that it said."""
        assert self.process.wait(SECONDS) == status, self.said
        said = self.said
        self._log.close()
        return said


def begun(results):
    """Records of trials."""
    return list(results.glob("sweeps/*/*/run.json"))


@pytest.fixture
def idle():
    cluster = IdleCluster()
    yield cluster
    if cluster.process.poll() is None:
        cluster.process.kill()
        cluster.process.wait()
    cluster.cluster.shutdown()


def test_sweeps_and_evaluations_wait_for_machines(idle, dataset, results, tmp_path):
    idle.begin("doctor", "--cluster")
    assert "waiting" not in idle.end()

    search = {"optim.lr": {"grid": [1e-3]}}
    idle.begin("tune", write_sweep(tmp_path, dataset, search=search, changes={"procedure": "scratch"}))
    # A trial whose experiment was refused has no record.
    assert wait_until(lambda: idle.process.poll() is not None or begun(results), seconds=SECONDS) and begun(results)
    node = idle.cluster.add_node(num_cpus=3, object_store_memory=150 << 20)
    said = idle.end()
    assert "the cluster has 0 CPUs now in all, and this needs 2 CPUs; waiting for machines to join" in said
    assert json.loads(begun(results)[0].read_text())["status"] == "finished"

    idle.cluster.remove_node(node)
    model = small_model()
    write_model(tmp_path / "model", model=model.model, experiment=model.experiment)
    options = ("--metrics", "l1", "--protocol", "reconstruction", "--workers", 2)
    idle.begin("evaluate", tmp_path / "model", "--data", dataset, *options)
    idle.wait_for(r"measuring with 2 processes of 1 CPU each; the cluster has 0 CPUs now in all")
    idle.cluster.add_node(num_cpus=2, object_store_memory=150 << 20)
    assert "l1" in idle.end().lower()
