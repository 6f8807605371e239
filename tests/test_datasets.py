"""The training stream: the right pairs, the right order, and every worker its own."""

import json
import shutil
import threading
import time

import numpy as np
import pytest
import ray
import ray.util
from pyarrow import fs
from small_training import make_dataset, small_training

from hdam.experiments.experiment import ResourceConfig
from hdam.experiments.loading import override
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import locate
from hdam.platform import datasets, pair_plan
from hdam.platform.datasets import (
    ingest_config,
    make_bundles,
    open_dataset,
    steps_per_bundle,
    steps_per_portion,
    stream,
    unpack,
)
from hdam.platform.pair_plan import epoch_pairs, make_plan


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Six clips of three identities in training, each of three chunks; two clips held out."""
    return make_dataset(tmp_path_factory.mktemp("data"), max_chunk_frames=4, clips_per_identity=2)


def plan_of(dataset, *, seed=0, **changes):
    experiment = small_training(dataset, {f"data.{name}": value for name, value in changes.items()})
    manifest = open_dataset(experiment.data)
    return make_plan(experiment.data, manifest, batch_size=experiment.optim.batch_size, seed=seed)


def marks(bundle):
    """For every batch of a bundle its pairs of (clip, frame), as written into the corners of the images."""
    corners = [bundle[name][0, :, :, 0, 0, :2].tolist() for name in ("source", "driving")]
    return [
        [(tuple(source), tuple(driving)) for source, driving in zip(*batch, strict=True)]
        for batch in zip(*corners, strict=True)
    ]


def batches_of(plan, steps, *, worker=0, workers=1, bundle_steps=3):
    """The batches that one worker gets for some steps."""
    bundles = list(make_bundles(plan, steps, micro_batches=workers, bundle_steps=bundle_steps))
    assert [int(bundle["step"][0]) for bundle in bundles[worker::workers]] == list(steps[::bundle_steps])
    return [batch for bundle in bundles[worker::workers] for batch in marks(bundle)]


def marks_of_epoch(plan, epoch=0):
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    return [pair for batch in batches_of(plan, steps) for pair in batch]


def test_pairs_are_two_frames_of_one_clip_in_their_order(dataset):
    pairs = marks_of_epoch(plan_of(dataset))
    assert len(pairs) == 6 * 16
    assert all(source[0] == driving[0] and source[1] <= driving[1] for source, driving in pairs)
    assert {source[0] for source, _ in pairs} == set(range(6)), "the test split is left alone"


def test_every_clip_gives_its_pairs_and_all_its_frames_are_used(dataset):
    pairs = marks_of_epoch(plan_of(dataset, repeats=64))
    clips = [source[0] for source, _ in pairs]
    assert np.bincount(clips).tolist() == [64] * 6
    assert {frame for pair in pairs for frame in pair} == {(clip, frame) for clip in range(6) for frame in range(12)}


def test_identity_sampling_visits_one_chunk_per_identity(dataset):
    plan = plan_of(dataset, identity=True, repeats=24)
    assert plan.pairs_per_epoch == 3 * 24
    chunks = []
    for epoch in range(8):
        rows = {int(row) for row in epoch_pairs(plan, epoch)[:, 0]}
        assert sorted(plan.rows[row].identity for row in rows) == ["square0", "square1", "square2"]
        chunks.append(frozenset(rows))
    assert len(set(chunks)) > 3, "other chunks in other epochs"


def test_epochs_differ_and_seeds_repeat_them(dataset):
    first, again, other = plan_of(dataset), plan_of(dataset), plan_of(dataset, seed=1)
    assert marks_of_epoch(first) == marks_of_epoch(again)
    assert marks_of_epoch(first) != marks_of_epoch(other)
    assert marks_of_epoch(first, 0) != marks_of_epoch(first, 1)
    assert not np.array_equal(epoch_pairs(first, 0), epoch_pairs(first, 1))


def test_a_training_that_goes_on_sees_what_it_would_have_seen(dataset):
    plan = plan_of(dataset)
    assert batches_of(plan, range(20))[9:] == batches_of(plan, range(9, 20), bundle_steps=4)


def test_the_global_batch_does_not_depend_on_the_number_of_workers(dataset):
    plan = plan_of(dataset)
    shares = [batches_of(plan, range(5), worker=worker, workers=4) for worker in range(4)]
    assert batches_of(plan, range(5)) == [
        [pair for share in step for pair in share] for step in zip(*shares, strict=True)
    ]


def test_pairs_are_shuffled_within_groups_that_fit_into_memory(dataset, monkeypatch):
    rows_at_once = [len({int(row) for row in epoch_pairs(plan_of(dataset), 0)[:32, 0]})]
    monkeypatch.setattr(pair_plan, "GROUP_BYTES", 1)
    rows_at_once.append(len({int(row) for row in epoch_pairs(plan_of(dataset), 0)[:32, 0]}))
    assert rows_at_once[0] > 12, "a batch mixes clips"
    assert rows_at_once[1] <= 8, "groups of one row come one after the other"


def test_an_epoch_smaller_than_a_batch_is_refused(dataset):
    with pytest.raises(InputError, match=r"6 pairs, less than optim\.batch_size=8"):
        plan_of(dataset, repeats=1)


def test_mistakes_about_the_dataset_are_one_line(dataset, tmp_path):
    data = small_training(dataset).data
    for change, message in [
        ({"path": ""}, r"set data\.path: --set data\.path=DATASET"),
        ({"path": str(tmp_path / "none")}, "no such dataset"),
        ({"size": 64}, r"prepared at size 32, but data\.size=64"),
    ]:
        with pytest.raises(InputError, match=message):
            open_dataset(data.model_copy(update=change))


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_shard_that_does_not_match_the_manifest_is_named(dataset, tmp_path, damage):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    shard = sorted(copy.glob("shards/train-*.parquet"))[1]
    content = bytearray(shard.read_bytes())
    if damage == "truncated":
        shard.write_bytes(content[:-10])
    elif damage == "changed":
        content[len(content) // 2] ^= 255
        shard.write_bytes(content)
    else:
        shard.unlink()
    with pytest.raises(InputError, match=shard.name):
        open_dataset(small_training(copy).data)


def test_a_dataset_with_nothing_to_train_on_is_refused(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    content = json.loads((copy / "manifest.json").read_text())
    content["shards"] = [shard for shard in content["shards"] if shard["split"] == "test"]
    content["splits"].pop("train")
    (copy / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="train"):
        open_dataset(small_training(copy).data)


def test_bundles_are_neither_too_large_nor_too_many():
    assert steps_per_bundle(16, 64) == 32
    assert steps_per_bundle(16, 256) == 5
    assert steps_per_bundle(32, 512) == 1


def test_two_workers_get_their_own_half_of_every_step_in_order(dataset, ray_session, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_BUNDLE_STEPS", 3)
    plan = plan_of(dataset)
    steps = range(5, 81)  # from within one epoch to within another, in two tasks, the last bundles shorter
    data = stream(plan, first_step=steps.start, last_step=steps.stop, resources=ResourceConfig(workers=2))
    shards = ingest_config(ResourceConfig()).configure(
        {"train": data}, world_size=2, worker_handles=None, worker_node_ids=["here", "there"]
    )
    taken = {0: [], 1: []}

    def take(rank):
        for bundle in shards[rank]["train"].iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=2):
            taken[rank].extend(marks(bundle))
            time.sleep(0.05 * rank)  # workers are never equally fast

    threads = [threading.Thread(target=take, args=(rank,)) for rank in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for rank in taken:
        assert taken[rank] == batches_of(plan, steps, worker=rank, workers=2)


def streamed(plan, steps, *, workers=1, micro_batches=None, **resources):
    """What each worker takes from the real stream: for every step the bytes of its share of the batch."""
    micro_batches = micro_batches or workers
    resources = ResourceConfig(workers=micro_batches, **resources)
    data = stream(plan, first_step=steps.start, last_step=steps.stop, resources=resources)
    shards = ingest_config(resources).configure(
        {"train": data}, world_size=workers, worker_handles=None, worker_node_ids=None
    )
    taken = [[] for _ in range(workers)]

    def take(rank):
        own = micro_batches // workers
        for batch in unpack(shards[rank]["train"], prefetch_bundles=1, first_step=steps.start, micro_batches=own):
            taken[rank].append(batch["source"].numpy().tobytes() + batch["driving"].numpy().tobytes())

    threads = [threading.Thread(target=take, args=(rank,)) for rank in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return taken


def test_two_epochs_are_the_same_bytes_however_the_stream_is_made(dataset, ray_session, monkeypatch):
    plan = plan_of(dataset)
    epoch = plan.steps_per_epoch
    [straight] = streamed(plan, range(2 * epoch), data_cpus=1)
    assert len(straight) == 2 * epoch and len(set(straight)) == 2 * epoch
    assert sorted(straight[:epoch]) != sorted(straight[epoch:]), "epochs differ"
    monkeypatch.setattr(datasets, "PORTION_BYTES", 1)
    monkeypatch.setattr(datasets, "MAX_BUNDLE_STEPS", 2)
    [in_small_tasks] = streamed(plan, range(2 * epoch), data_cpus=2, data_memory_mib=64)
    assert in_small_tasks == straight
    monkeypatch.setattr(datasets, "MAX_TASKS", 3)
    halves = streamed(plan, range(2 * epoch), workers=2, data_cpus=0.5, prefetch_batches=0)
    assert [len(half) for half in halves] == [2 * epoch] * 2, "equal batches"
    own = 3 * plan.size**2 * plan.batch_size // 2  # bytes of a worker's sources
    for whole, first, second in zip(straight, *halves, strict=True):
        assert first[:own] + second[:own] + first[own:] + second[own:] == whole
    [alone] = streamed(plan, range(2 * epoch), workers=1, micro_batches=4)
    assert alone == straight, "one worker takes the micro-batches of four in the order of their pairs"
    for of_two in zip(straight, *streamed(plan, range(2 * epoch), workers=2, micro_batches=4), strict=True):
        whole, first, second = (np.split(np.frombuffer(taken, np.uint8), 2) for taken in of_two)
        for pairs, firsts, seconds in zip(whole, first, second, strict=True):  # sources, then driving images
            turns = [part for both in zip(np.split(firsts, 2), np.split(seconds, 2), strict=True) for part in both]
            assert np.array_equal(np.concatenate(turns), pairs), "two take turns"
    [other] = streamed(plan_of(dataset, seed=1), range(epoch))
    assert not set(other) & set(straight), "another seed, other batches"


def test_a_dataset_in_a_store_streams_as_one_on_disk(dataset, s3, ray_session):
    filesystem, path = locate(f"{s3}/squares")
    fs.copy_files(str(dataset), path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=filesystem)
    local, remote = plan_of(dataset), plan_of(f"{s3}/squares")
    assert streamed(remote, range(6)) == streamed(local, range(6))


def test_a_task_keeps_only_what_is_drawn(dataset):
    plan = plan_of(dataset, repeats=2)
    steps = [plan.step_pairs(0)]
    found = datasets._read_pairs(plan, steps)
    assert sorted(found) == sorted((0, row, number) for row, number in steps[0][1].tolist())


def test_portions_share_the_memory_among_the_tasks(dataset):
    plan = plan_of(dataset)  # a step is 8 pairs of 6 KiB

    def mib(**resources):
        steps = steps_per_portion(plan, 4, ResourceConfig(workers=1, **resources))
        assert steps % 4 == 0
        return steps * 8 * 6 / 1024

    assert mib(data_cpus=1) == pytest.approx(256, abs=1)
    assert mib(data_cpus=7) == pytest.approx(128, abs=1)
    assert mib(data_cpus=1, data_memory_mib=64) == pytest.approx(32, abs=1)


def test_the_stream_needs_no_more_than_the_data_cpus(dataset, ray_session):
    data = stream(plan_of(dataset), first_step=0, last_step=8, resources=ResourceConfig(workers=1, data_cpus=0.25))
    others = ray.util.placement_group([{"CPU": ray.available_resources()["CPU"] - 0.25}])
    ray.get(others.ready(), timeout=60)
    rows = []
    waiting = threading.Thread(target=lambda: rows.extend(data.take_all()), daemon=True)
    waiting.start()
    waiting.join(60)
    ray.util.remove_placement_group(others)
    assert rows


def test_batches_of_other_sizes_do_not_divide(dataset):
    experiment = small_training(dataset)
    with pytest.raises(InputError, match="does not divide over 3 workers"):
        override(experiment, {"resources.workers": 3})
