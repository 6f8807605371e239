"""A training that does not fit is refused at once, with what would fit."""

from types import SimpleNamespace

import pytest

from hdam.experiments.experiment import ResourceConfig
from hdam.pipelines.errors import InputError
from hdam.platform import cluster
from hdam.platform.cluster import check_machine, check_resources
from hdam.platform.tune.plan import check_fits
from hdam.platform.tune.tuner import _environment


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"workers": 8}, r"resources\.workers=8, but this machine has 2 CPUs; use at most 2"),
        (
            {"workers": 2, "cpus_per_worker": 1},
            r"2 × 1 CPUs and 1 for the data, together 3; .*; use at most 1 or",
        ),
        ({"workers": 1, "data_cpus": 4}, r"lower resources\.data_cpus"),
        ({"workers": 2, "gpus_per_worker": 1}, r"1 GPU each; 0 found"),
    ],
)
def test_what_does_not_fit_is_told(resources, message):
    with pytest.raises(InputError, match=message):
        check_resources(ResourceConfig(**resources), cpus=2, gpus=0)


def test_the_defaults_fit_on_two_cpus():
    check_resources(ResourceConfig(), cpus=2, gpus=0)
    check_resources(ResourceConfig(workers=2, gpus_per_worker=1), cpus=2, gpus=2)


def test_this_machine_is_asked_before_ray_is_started(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=r"resources\.workers=5000, but this machine has"):
        check_machine(ResourceConfig(workers=5000))


def test_a_session_that_is_there_is_checked_and_left_alone(ray_session):
    with pytest.raises(InputError, match="use at most"), cluster.ray_session(ResourceConfig(workers=5000)):
        pytest.fail("5000 workers were let in")
    with cluster.ray_session(ResourceConfig()):
        pass
    assert cluster.ray.is_initialized()


def test_nothing_is_refused_on_a_cluster_which_may_grow(ray_session, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with cluster.ray_session(ResourceConfig(workers=5000, gpus_per_worker=1)):
        check_fits(ResourceConfig(workers=5000), 400)


def test_trials_know_that_a_cluster_was_joined(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert _environment()["RAY_ADDRESS"] == "10.0.0.1:6379"
    monkeypatch.delenv("RAY_ADDRESS")
    assert "RAY_ADDRESS" not in _environment()


def test_what_an_idle_cluster_lacks_is_told_to_those_who_wait(monkeypatch, caplog):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(cluster, "start_ray", lambda _: None)
    for name, found in {"is_initialized": False, "shutdown": None, "cluster_resources": {"GPU": 1.0}}.items():
        monkeypatch.setattr(cluster.ray, name, lambda found=found: found)
    resources = ResourceConfig(workers=4, cpus_per_worker=1, gpus_per_worker=1, data_cpus=0.5)
    with cluster.ray_session(resources, is_waiting=False):
        assert not caplog.messages
    with cluster.ray_session(resources):
        pass
    told = "the cluster has 0 CPUs and 1 GPU now in all, and this needs 5 CPUs and 4 GPUs; waiting for machines to join"
    assert caplog.messages == [told]


def test_an_address_that_is_none_is_told(monkeypatch):
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(InputError, match=r"RAY_ADDRESS=nonsense: no cluster there \(.+\); correct or unset it"):
        cluster.start_ray(ResourceConfig())


def test_a_driver_on_another_node_than_the_head_is_told(ray_session, monkeypatch):
    cluster.must_be_on_head()
    elsewhere = SimpleNamespace(get_node_id=lambda: "another")  # on one machine, all drivers join the first node
    monkeypatch.setattr(cluster.ray, "get_runtime_context", lambda: elsewhere)
    with pytest.raises(InputError, match="is started on the cluster's head, as hdam submit does"):
        cluster.must_be_on_head()
