"""Sources and datasets in a store: the same as on disk, against a real HTTP server of S3 on this machine."""

import os
import time

import pytest
from media_files import assert_one_line, write_clips_of_each_kind
from pyarrow import fs

from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import arriving, locate
from hdam.pipelines.manifest import load_manifest, verify_shards
from hdam.pipelines.prepare import prepare
from hdam.pipelines.prepare_options import PrepareOptions
from hdam.pipelines.shards import iter_clips
from hdam.platform.preparing import ray_tasks

OPTIONS = PrepareOptions(size=16, codec="png", max_chunk_frames=4)


def contents(address):
    """Name to bytes of everything below an address."""
    filesystem, root = locate(address)
    found = {}
    for info in filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True)):
        if info.type == fs.FileType.File:
            with filesystem.open_input_stream(info.path) as stream:
                found[info.path[len(root) + 1 :]] = stream.read()
    return found


def upload(folder, address):
    filesystem, root = locate(address)
    fs.copy_files(str(folder), root, source_filesystem=fs.LocalFileSystem(), destination_filesystem=filesystem)


@pytest.fixture
def videos(tmp_path):
    return write_clips_of_each_kind(tmp_path / "My Videos")


@pytest.fixture
def place(s3, request):
    """An address of its own for each test."""
    return f"{s3}/{request.node.name}"


def test_a_dataset_in_a_store_equals_one_on_disk(videos, tmp_path, place):
    upload(videos, f"{place}/My Videos")
    (videos / "text.mp4").write_text("I am no film")
    local = prepare(videos, tmp_path / "data", options=OPTIONS)
    report = prepare(videos, f"{place}/data", options=OPTIONS)
    assert contents(f"{place}/data") == contents(str(tmp_path / "data"))
    assert report.manifest == local.manifest == load_manifest(f"{place}/data")
    verify_shards(f"{place}/data", report.manifest)
    there, here = (list(iter_clips(dataset)) for dataset in (f"{place}/data", tmp_path / "data"))
    assert [(clip.clip_id, clip.frames) for clip in there] == [(clip.clip_id, clip.frames) for clip in here]
    assert prepare(videos, f"{place}/data", options=OPTIONS, on_progress=pytest.fail).was_ready

    (videos / "text.mp4").unlink()
    from_store = prepare(f"{place}/My Videos", tmp_path / "again", options=OPTIONS)
    assert {shard.sha256 for shard in from_store.manifest.shards} == {shard.sha256 for shard in local.manifest.shards}


def test_file_addresses_are_paths(videos, tmp_path):
    report = prepare(videos.as_uri(), (tmp_path / "a data set").as_uri(), options=OPTIONS)
    assert load_manifest(tmp_path / "a data set") == report.manifest


def test_an_interrupted_upload_is_no_dataset_and_goes_on(videos, tmp_path, place):
    def stop(progress):
        if (progress.phase, progress.done) == ("shards", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(videos, f"{place}/data", options=OPTIONS, on_progress=stop)
    names = list(contents(f"{place}/data"))
    assert sum(name.startswith("shards/") for name in names) == 3 and "manifest.json" not in names
    assert sum(name.startswith(".partial/clips/") for name in names) == 5
    with pytest.raises(InputError, match="no prepared dataset"):
        load_manifest(f"{place}/data")
    seen = []
    prepare(videos, f"{place}/data", options=OPTIONS, on_progress=seen.append)
    assert seen[0].num_ready == 5 and not any(progress.num_frames for progress in seen)
    prepare(videos, tmp_path / "data", options=OPTIONS)
    assert contents(f"{place}/data") == contents(str(tmp_path / "data"))


def test_overwriting_leaves_no_old_shards(videos, place):
    first = prepare(videos, f"{place}/data", options=OPTIONS)
    with pytest.raises(InputError, match="of other inputs"):
        prepare(videos / "bob.gif", f"{place}/data", options=OPTIONS)
    second = prepare(videos / "bob.gif", f"{place}/data", options=OPTIONS, overwrite=True)
    assert len(second.manifest.shards) < len(first.manifest.shards)
    names = {name for name in contents(f"{place}/data") if name.startswith("shards/")}
    assert names == {shard.path for shard in second.manifest.shards}


def test_what_is_no_dataset_is_left_alone(videos, place):
    filesystem, path = locate(f"{place}/thesis/chapter#1 %20.txt")
    with arriving(filesystem, path) as local:
        local.write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not empty and no dataset"):
            prepare(videos, f"{place}/thesis", options=OPTIONS, overwrite=overwrite)
    assert contents(f"{place}/thesis") == {"chapter#1 %20.txt": b"dear"}


@pytest.mark.usefixtures("ray_session")
def test_ray_writes_to_a_store(videos, tmp_path, place):
    upload(videos, f"{place}/videos")
    prepare(f"{place}/videos", tmp_path / "data", options=OPTIONS)
    with ray_tasks(min_bytes=0) as run_tasks:
        prepare(f"{place}/videos", f"{place}/data", options=OPTIONS, run_tasks=run_tasks)
    assert contents(f"{place}/data") == contents(str(tmp_path / "data"))


def test_a_bucket_that_is_absent_is_named(videos, s3):
    with pytest.raises(InputError) as error:
        prepare(videos, "s3://no-such-bucket/data", options=OPTIONS)
    assert_one_line(error, "no bucket 'no-such-bucket'")
    with pytest.raises(InputError) as error:
        load_manifest("s3://no-such-bucket/data")
    assert_one_line(error, "s3://no-such-bucket/data")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_a_wrong_endpoint_is_told_within_seconds(videos, s3_endpoint, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for call in (
        lambda: prepare(videos, "s3://bucket/data", options=OPTIONS),
        lambda: prepare("s3://bucket/videos", videos / "data", options=OPTIONS),
        lambda: load_manifest("s3://bucket/data"),
    ):
        started = time.monotonic()
        with pytest.raises(InputError) as error:
            call()
        assert_one_line(error, "s3://bucket", "AWS_ENDPOINT_URL")
        assert time.monotonic() - started < 20


@pytest.mark.parametrize("address", ["s3://", "s3:///data", "file://host/data", "nonsense://bucket/data"])
def test_addresses_that_nothing_opens(address):
    with pytest.raises(InputError) as error:
        load_manifest(address)
    assert_one_line(error, address)


def test_a_failing_upload_keeps_finished_clips(videos, place, monkeypatch):
    endpoint = os.environ["AWS_ENDPOINT_URL"]

    def hang_up(progress):
        if (progress.phase, progress.done) == ("shards", 2):
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    with pytest.raises(InputError) as error:
        prepare(videos, f"{place}/data", options=OPTIONS, on_progress=hang_up)
    assert_one_line(error, "the store failed", "AWS_ENDPOINT_URL", "finished clips are kept", "the same command")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    seen = []
    prepare(videos, f"{place}/data", options=OPTIONS, on_progress=seen.append)
    assert seen[0].num_ready == 5
