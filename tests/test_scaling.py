"""How many workers fit on which machines, and what is said where too few do."""

import time
from types import SimpleNamespace

import pytest
import ray
from ray.train.v2._internal.execution.scaling_policy import NoopDecision
from stored_checkpoints import keep, upload

from hdam.experiments.experiment import ResourceConfig
from hdam.pipelines.errors import InputError
from hdam.platform import scaling
from hdam.platform.cluster import check_resources
from hdam.platform.failures import TrainingError
from hdam.platform.fit import line_of
from hdam.platform.messages import Inbox, Joined, Lost, Mailbox, Waiting
from hdam.platform.scaling import WorkerPolicy, needs_of, num_that_fit
from hdam.platform.sharing.store import place_of

GPU_NODE = {"CPU": 16, "GPU": 4, "memory": 1e11}
CPU_NODE = {"CPU": 8}
HEAD = {"CPU": 0}
GPUS = {"workers": 8, "cpus_per_worker": 1, "gpus_per_worker": 1, "data_cpus": 4}


@pytest.mark.parametrize(
    ("rooms", "resources", "count"),
    [
        ([HEAD, GPU_NODE, GPU_NODE], GPUS, 8),
        ([HEAD, GPU_NODE, GPU_NODE], {**GPUS, "min_workers": 2}, 8),
        ([HEAD, GPU_NODE, CPU_NODE], GPUS, 0),
        ([HEAD, GPU_NODE, CPU_NODE], {**GPUS, "min_workers": 2}, 4),
        ([GPU_NODE, {"CPU": 16, "GPU": 3}], {**GPUS, "min_workers": 1}, 4),  # 7 would be no faster: one has two turns
        ([{"CPU": 16, "GPU": 3}], {**GPUS, "workers": 6, "min_workers": 1}, 3),
        ([{"CPU": 16, "GPU": 3}], {**GPUS, "min_workers": 4}, 0),
        ([{"CPU": 2}], {"workers": 2}, 2),
        ([{"CPU": 1}], {"workers": 2}, 0),  # the workers alone would fit, but the data would wait for a CPU for ever
        ([{"CPU": 1.5}], {"workers": 2, "min_workers": 1}, 1),
        ([{"CPU": 0.9}] * 3, {"workers": 4, "min_workers": 1, "cpus_per_worker": 0.3, "data_cpus": 0.9}, 4),
        ([{"CPU": 0.5}] * 8, {"workers": 2, "cpus_per_worker": 1}, 0),  # no worker spans two nodes
        ([], {"workers": 1}, 0),
    ],
)
def test_as_many_workers_as_fit_beside_the_data(rooms, resources, count):
    assert num_that_fit(rooms, ResourceConfig(**resources)) == count


def test_the_numbers_of_workers_share_the_micro_batches_evenly():
    assert ResourceConfig(workers=8).worker_counts == (8,)
    assert ResourceConfig(workers=8, min_workers=2).worker_counts == (2, 4, 8)
    assert ResourceConfig(workers=6, min_workers=1).worker_counts == (1, 2, 3, 6)
    for too_odd in (3, 8):
        with pytest.raises(
            ValueError, match=rf"min_workers={too_odd} does not divide resources\.workers=4, .* use 1, 2, 4"
        ):
            ResourceConfig(workers=4, min_workers=too_odd)


def test_a_machine_that_is_too_small_for_all_workers_will_do_for_the_fewest():
    check_resources(ResourceConfig(workers=8, min_workers=2), cpus=2, gpus=0)
    with pytest.raises(InputError, match=r"resources\.min_workers=4, but this machine has 2 CPUs"):
        check_resources(ResourceConfig(workers=8, min_workers=4), cpus=2, gpus=0)


def begun_policy(place=None, **resources):
    mailbox = Mailbox.remote()
    policy = WorkerPolicy(ResourceConfig(**resources), mailbox, place=place, last_step=40)
    policy.after_controller_start(SimpleNamespace(run_id="of a test"))
    return policy, Inbox(mailbox)


def test_what_is_waited_for_is_told_once_and_in_the_end_it_is_an_error(ray_session):
    policy, inbox = begun_policy(workers=5000, wait_seconds=1.5)
    for _ in range(2):
        policy.make_decision_for_non_running_worker_group()
    needs = "5000 workers of 0.5 CPU each, and 1 CPU for the data"
    has = f"{ray.cluster_resources()['CPU']:g} CPUs"
    with pytest.raises(TrainingError, match=f"waited 1.5 s for {needs}, but there is room for {has}; add a node"):
        policy.make_decision_for_non_running_worker_group()
    told = list(inbox.fetch())
    assert told == [Waiting(needs=needs, has=has, seconds=pytest.approx(1.5, abs=0.5))]
    assert line_of(told[0]) == f"waiting for {needs}: there is room for {has}; giving up in 0.0 min"


def test_what_fits_is_begun_without_a_word(ray_session):
    policy, inbox = begun_policy(workers=2)
    decision = policy.make_decision_for_non_running_worker_group()
    assert (decision.num_workers, decision.resources_per_worker) == (2, {"CPU": 0.5})
    assert not list(inbox.fetch())


def test_starts_that_always_fail_come_to_an_end_too(ray_session):
    policy, _ = begun_policy(workers=2, wait_seconds=0.5)
    policy.make_decision_for_non_running_worker_group()
    time.sleep(0.6)
    with pytest.raises(TrainingError, match=r"waited 0\.5 s for 2 workers .*; there is room, but no start of them"):
        policy.make_decision_for_non_running_worker_group()


def running(policy, monkeypatch, *, step=None, looks=True):
    """What it decides of one worker that has kept a checkpoint, or none, since it was last asked."""
    if looks:
        monkeypatch.setattr(policy, "_next_look", 0.0)
    report = None if step is None else SimpleNamespace(metrics={"step": step})
    statuses = SimpleNamespace(worker_statuses={0: SimpleNamespace(training_report=report)})
    return policy.make_decision_for_running_worker_group(SimpleNamespace(num_workers=1), statuses)


def test_a_training_grows_when_a_checkpoint_was_written_and_never_between_two(ray_session, monkeypatch):
    policy, _ = begun_policy(workers=2, min_workers=1)
    assert isinstance(running(policy, monkeypatch), NoopDecision)
    assert running(policy, monkeypatch, step=10, looks=False).num_workers == 2
    assert isinstance(running(policy, monkeypatch), NoopDecision)
    assert isinstance(running(policy, monkeypatch, step=40), NoopDecision), "it is at its end"
    monkeypatch.setattr(scaling, "available_resources_per_node", dict)
    assert isinstance(running(policy, monkeypatch, step=20), NoopDecision), "others have taken what is there"
    monkeypatch.undo()
    assert isinstance(running(policy, monkeypatch), NoopDecision), "that checkpoint is a while ago"


def test_with_a_store_a_training_grows_when_the_checkpoint_is_there(ray_session, shared, disks, monkeypatch):
    place = place_of(disks("first"))
    policy, _ = begun_policy(place, workers=2, min_workers=1)
    assert isinstance(running(policy, monkeypatch, step=10), NoopDecision)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert isinstance(running(policy, monkeypatch), NoopDecision)
    keep(disks("first"), 10)
    upload(disks("first"), place)
    assert running(policy, monkeypatch).num_workers == 2


def test_who_waits_asks_for_the_cpus_of_the_data_as_well(ray_session, monkeypatch):
    asked = []

    class Coordinator:
        def __init__(self, requester):
            self.requester = requester

        def request_resources(self, tasks, **_):
            asked.append((self.requester, tasks))

        def cancel_request(self):
            asked.append((self.requester, None))

    monkeypatch.setattr(scaling, "DefaultAutoscalingCoordinator", Coordinator)
    policy, _ = begun_policy(workers=5000, wait_seconds=60, data_cpus=2.5)
    policy.make_decision_for_non_running_worker_group()
    running(policy, monkeypatch)
    running(policy, monkeypatch)
    assert asked == [("train-of a test-data", [{"CPU": 1.0}] * 3), ("train-of a test-data", None)]


def test_events_are_lines():
    assert line_of(Lost(node="10.0.0.7 (3fa0)")) == "node 10.0.0.7 (3fa0) is lost"
    assert line_of(Joined(node="10.0.0.7 (3fa0)")) == "node 10.0.0.7 (3fa0) has joined"
    resources = ResourceConfig(workers=4, min_workers=1, gpus_per_worker=1, data_cpus=2)
    assert needs_of(resources) == "1 worker of 0.5 CPU and 1 GPU each, and 2 CPUs for the data"
