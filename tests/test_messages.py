"""What workers tell and the driver answers, what is measured on the way, and what of broken steps is kept."""

import time

import pytest
import ray
import torch
from PIL import Image
from test_step import INFINITE, batch_of, make_step

from hdam.experiments.experiment import ResourceConfig
from hdam.pipelines.errors import InputError
from hdam.platform.failures import TrainingError
from hdam.platform.messages import Counted, Inbox, Mailbox, Post, Started, Stepped
from hdam.platform.meter import Meter, timed
from hdam.platform.remote import call_on_cluster
from hdam.platform.skipped import MOST_KEPT, save_batch


def small(changes=None):
    from small_training import small_training

    return small_training("", changes)


def post_until(post, is_true, *, seconds=20):
    deadline = time.monotonic() + seconds
    while not is_true() and time.monotonic() < deadline:
        post(Started(step=1, workers=1))
        time.sleep(0.05)
    return is_true()


def test_the_answer_to_a_message_is_the_wish_to_stop(ray_session):
    mailbox = Mailbox.remote()
    post = Post(mailbox)
    post(Started(step=0, workers=1))
    assert not post_until(post, lambda: post.wants_stop, seconds=1)
    ray.get(mailbox.ask_to_stop.remote())
    assert post_until(post, lambda: post.wants_stop)
    post(Started(step=2, workers=1))
    assert post.wants_stop, "it stays so"


def test_steps_are_told_now_and_then_and_all_else_at_once(ray_session):
    mailbox = Mailbox.remote()
    post = Post(mailbox)
    for step in range(100):
        post(Stepped(step=step))
    post(Counted(step=5, total=7))
    told, inbox = [], Inbox(mailbox)
    assert post_until(lambda _: told.extend(inbox.fetch()), lambda: len(told) >= 2)
    assert told == [Stepped(step=0), Counted(step=5, total=7)]


def test_a_message_is_handed_on_once_whatever_interrupts_the_driver(ray_session):
    mailbox = Mailbox.remote()
    for step in range(4):
        ray.get(mailbox.post.remote(Started(step=step, workers=1)))
    inbox, steps = Inbox(mailbox), []
    ray.get(mailbox.fetch.remote(0))  # an answer that a signal has kept from being read
    with pytest.raises(KeyboardInterrupt):
        for message in inbox.fetch():
            steps.append(message.step)
            if message.step == 1:
                raise KeyboardInterrupt
    steps += [message.step for message in inbox.fetch()]
    assert steps == [0, 1, 2, 3] and not list(inbox.fetch())


def test_means_leave_out_skipped_steps():
    step, meter = make_step(), Meter(batch_size=4)
    totals = []
    for index in range(3):
        losses = step.objective.config
        step.objective.config = small(INFINITE).losses if index == 1 else losses
        result = step(batch_of(index))
        step.objective.config = losses
        meter.add(result, 0.0)
        totals.append(result.losses["total"].item())
    measured = meter.read(step)
    assert measured.losses["total"] == pytest.approx((totals[0] + totals[2]) / 2)
    assert measured.skipped == 1 and measured.metrics()["skipped_steps"] == 1
    step.objective.config = small(INFINITE).losses
    meter.add(step(batch_of(3)), 0.0)
    assert meter.read(step) is None, "nothing to tell"


def test_waiting_is_timed():
    def slow():
        yield "first"
        time.sleep(0.05)
        yield "second"

    (_, first), (_, second) = timed(slow())
    assert first < 0.04 <= second


def test_a_broken_batch_is_kept_as_tensors_and_as_a_picture(tmp_path):
    batch = batch_of(0)
    path = save_batch(tmp_path, batch, step=7, rank=1, fault="perceptual is nan")
    kept = torch.load(path, weights_only=True)
    assert torch.equal(kept["source"], batch["source"]) and torch.equal(kept["driving"], batch["driving"])
    assert (kept["step"], kept["fault"]) == (7, "perceptual is nan")
    assert Image.open(path.with_suffix(".png")).size == (4 * 32, 2 * 32)


def test_no_more_than_some_are_kept(tmp_path):
    paths = [save_batch(tmp_path, batch_of(0), step=step, rank=0, fault="") for step in range(MOST_KEPT + 3)]
    assert [path is None for path in paths] == [False] * MOST_KEPT + [True] * 3


def test_a_disk_that_takes_no_batch_is_no_fault(tmp_path):
    (tmp_path / "skipped").touch()
    assert save_batch(tmp_path, batch_of(0), step=1, rank=0, fault="") is None


def test_work_on_the_cluster_tells_and_returns(ray_session):
    def work(tell):
        for number in (1, 2):
            tell(Counted(step=number, total=2))
        return torch.get_num_threads()

    told = []
    resources = ResourceConfig(workers=1, threads_per_worker=2)
    assert call_on_cluster(work, resources, on_message=told.append) == 2
    assert told == [Counted(step=1, total=2), Counted(step=2, total=2)]


def test_work_that_fails_on_the_cluster_is_one_line(ray_session):
    def work(tell):
        raise InputError("shard 3 is missing")

    with pytest.raises(TrainingError, match=r"^shard 3 is missing$"):
        call_on_cluster(work, ResourceConfig(workers=1), on_message=print)
