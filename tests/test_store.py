"""The shared store: what one disk has uploaded, another one finds; whole, in time, and from one writer at a time."""

import json
import os
import threading

import pytest
from media_files import assert_one_line
from processes import wait_until
from stored_checkpoints import STAGE, keep, upload, uploader_of

from hdam.pipelines.errors import InputError
from hdam.platform.checkpoints import SEAL_NAME, STATE_NAME, newest_checkpoint, read_checkpoint, step_of
from hdam.platform.locks import holding
from hdam.platform.sharing import holds, store, uploader
from hdam.platform.sharing.checkpoints import (
    TakenOverError,
    best_known,
    brought,
    fetch_newest,
    newest_step,
    stored_checkpoints,
)
from hdam.platform.sharing.holds import held
from hdam.platform.sharing.store import Place, StoreError, check_store, patiently, place_of

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(params=["s3", "folder"])
def place(request, s3, tmp_path):
    return Place(f"{s3}/{request.node.name}" if request.param == "s3" else str(tmp_path / "mounted"))


def test_files_come_and_go_whole(place, tmp_path):
    (tmp_path / "here").write_bytes(b"abc")
    assert place.names() == [] and place.read("a") is None and not place.get("a", tmp_path / "there")
    place.put(tmp_path / "here", "folder/a")
    place.write("b", b"de")
    assert place.names() == ["b", "folder"] and place.read("b") == b"de" and place.is_there()
    assert place.get("folder/a", tmp_path / "new" / "there")
    assert (tmp_path / "new" / "there").read_bytes() == b"abc"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["there"], "nothing half-written is left"
    place.remove("folder")
    place.remove("b")
    place.remove("b")
    assert place.names() == []


def test_what_is_read_while_it_is_written_is_one_of_its_versions(place):
    versions = [json.dumps({"beat": "9" * length}).encode() for length in (1, 900, 30)]
    place.write("beat", versions[0])
    is_over = threading.Event()

    def write():
        while not is_over.is_set():
            for version in versions:
                place.write("beat", version)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {place.read("beat") for _ in range(150)} <= set(versions)
    finally:
        is_over.set()
        writer.join()


def test_without_a_store_there_is_no_place(results, monkeypatch):
    monkeypatch.delenv(store.VARIABLE, raising=False)
    assert place_of(results / STAGE) is None
    check_store()
    with holding(results / STAGE):
        assert [path.name for path in (results / STAGE).iterdir()] == [".lock"]
    monkeypatch.setenv(store.VARIABLE, "s3://bucket/folder/")
    assert place_of(results / STAGE) == Place(f"s3://bucket/folder/{STAGE}")
    assert place_of(results.parent / "elsewhere") is None


@pytest.mark.parametrize(
    ("address", "word"), [("s3://no-such-bucket/a", "no such bucket"), ("nonsense://a", "address")]
)
def test_a_store_that_nothing_can_be_written_to_is_told(s3, monkeypatch, address, word):
    monkeypatch.setenv(store.VARIABLE, address)
    with pytest.raises(InputError) as error:
        check_store()
    assert_one_line(error, address, word)


def test_a_store_that_does_not_answer_is_told(shared, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
    with pytest.raises(InputError) as error:
        check_store()
    assert_one_line(error, shared.address, "no store answers there", store.VARIABLE)


def test_another_disk_goes_on_from_the_newest_whole_checkpoint(shared, disks):
    place = place_of(disks("first"))
    for step, score in ((1, 0.1), (2, 0.5), (3, 0.4)):
        first = keep(disks("first"), step, score=score)
    upload(disks("first"), place)
    place.put(first / STATE_NAME, f"step-00000004/{STATE_NAME}")  # a worker was killed before the seal
    assert newest_step(disks("second"), place) == 3
    fetched = fetch_newest(disks("second"), place)
    assert fetched == disks("second") / "step-00000003"
    assert {path.name: path.read_bytes() for path in fetched.iterdir()} == {
        path.name: path.read_bytes() for path in first.iterdir()
    }
    assert read_checkpoint(fetched)["weight"][0] == 3
    assert best_known(disks("second"), place) == "step-00000001", "the best stays, however old"


def test_the_store_keeps_what_a_disk_would_keep(shared, disks):
    place, run_dir = place_of(disks("first")), disks("first")
    for step, score in ((1, 0.1), (2, 0.5), (3, 0.4), (4, 0.3)):
        keep(run_dir, step, score=score)
        upload(run_dir, place)
    place.write(f"step-00000002/{STATE_NAME}", b"left over")
    upload(run_dir, place)
    assert [name for name in place.names() if name != holds.HOLD_NAME] == [f"step-0000000{step}" for step in (1, 3, 4)]
    keep(disks("second"), 5, score=0.9)  # knows nothing of those before
    upload(disks("second"), place)
    assert sorted(stored_checkpoints(place)) == [f"step-0000000{step}" for step in (1, 4, 5)]


def test_a_damaged_checkpoint_of_the_store_is_passed_over_by_all(shared, disks, caplog):
    place = place_of(disks("first"))
    for step in (1, 2):
        keep(disks("first"), step)
    upload(disks("first"), place)
    content = place.read(f"step-00000002/{STATE_NAME}")
    place.write(f"step-00000002/{STATE_NAME}", content[:-1] + bytes([content[-1] ^ 1]))
    assert step_of(fetch_newest(disks("second"), place)) == 1
    assert f"{place.address}/step-00000002 is damaged" in caplog.text
    assert newest_step(disks("second"), place) == 2, "a reader's own disk may have done it"
    with held(place, "me", is_waiting=True):
        assert step_of(fetch_newest(disks("third"), place, attempt="me")) == 1
    assert newest_step(disks("third"), place) == 1, "so that stream and workers agree on where they begin"


@pytest.mark.parametrize("seal", [b"", b"[]", b'{"step": 2}'])
def test_a_broken_seal_is_as_none(shared, disks, seal):
    place = place_of(disks("first"))
    for step in (1, 2):
        keep(disks("first"), step, score=0.5)
    upload(disks("first"), place)
    place.write(f"step-00000002/{SEAL_NAME}", seal)
    assert newest_step(disks("second"), place) == 1
    assert step_of(fetch_newest(disks("second"), place)) == 1 and best_known(disks("second"), place) == "step-00000001"
    upload(disks("second"), place)
    assert not place.folder("step-00000002").is_there()


def test_the_checkpoint_of_the_store_counts_not_one_of_the_same_step_here(shared, disks):
    place = place_of(disks("first"))
    keep(disks("first"), 3, weight=0.1)  # its upload was cut off, and the training went on elsewhere
    keep(disks("second"), 3, weight=0.2)
    upload(disks("second"), place)
    for fetch in (fetch_newest, lambda run_dir, place: brought(run_dir / "step-00000003", place)):
        assert read_checkpoint(fetch(disks("first"), place))["weight"][0] == pytest.approx(0.2)


def test_what_another_training_left_on_a_disk_is_set_aside(shared, disks, caplog):
    place = place_of(disks("first"))
    keep(disks("first"), 500, lineage="before")
    keep(disks("second"), 1, lineage="now")
    upload(disks("second"), place, lineage="now")
    upload(disks("first"), place, lineage="now")
    assert sorted(stored_checkpoints(place)) == ["step-00000001"]
    assert read_checkpoint(disks("first") / "set_aside" / "before" / "step-00000500")["weight"][0] == 500
    assert newest_checkpoint(disks("first")) is None and "of another training of this stage" in caplog.text


def test_a_slow_store_has_the_newest_that_it_could_get(shared, disks, monkeypatch):
    """Checkpoints come faster than uploads, and remove those before them from the disk."""
    run_dir, put = disks("first"), Place.put
    place, later = place_of(run_dir), iter(range(4, 12))

    def put_slowly(self, file, name):
        if file.name == STATE_NAME and (step := next(later, None)):
            keep(run_dir, step)
            keep(run_dir, 100 * step)
        put(self, file, name)

    for step in (1, 2, 3):
        keep(run_dir, step)
    monkeypatch.setattr(Place, "put", put_slowly)
    upload(run_dir, place)
    assert sorted(stored_checkpoints(place)) == ["step-00001000", "step-00001100"]
    assert {path.name for path in run_dir.iterdir()} == {"step-00001000", "step-00001100"}


def test_uploads_wait_for_a_store_that_is_away_and_the_training_does_not(shared, disks, monkeypatch):
    run_dir, told, endpoint = disks("first"), [], os.environ["AWS_ENDPOINT_URL"]
    place, heard = place_of(run_dir), threading.Event()

    def tell(text):
        told.append(text)
        heard.set()

    with held(place, "me", is_waiting=True):
        uploads = uploader_of(run_dir, place, attempt="me", tell=tell)
        keep(run_dir, 1)
        uploads.upload()
        assert wait_until(lambda: newest_step(run_dir, place) == 1, seconds=60)
        monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
        for step in (2, 3, 4):
            keep(run_dir, step)
            uploads.upload()
        assert heard.wait(60)
        assert step_of(newest_checkpoint(run_dir)) == 4
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        uploads.finish()
    assert sorted(stored_checkpoints(place)) == ["step-00000003", "step-00000004"]
    assert len(told) == 1 and "no store answers there" in told[0] and "uploaded when it answers" in told[0]


@pytest.mark.parametrize(
    ("code", "is_lasting"),
    [
        ("ACCESS_DENIED during PutObject operation: No response body.", True),
        ("INVALID_ACCESS_KEY_ID during ListObjectsV2", True),
        ("UNKNOWN (HTTP status 400) during ListObjectsV2: Unable to parse ExceptionName: ExpiredToken", True),
        ("UNKNOWN (HTTP status 507) during PutObject: XMinioStorageFull", True),
        ("NETWORK_CONNECTION during HeadObject operation: curlCode: 28, Timeout was reached", False),
        ("SLOW_DOWN during PutObject", False),
        ("UNKNOWN (HTTP status 503) during HeadObject", False),
        ("UNKNOWN (HTTP status 429) during HeadObject", False),
    ],
)
def test_refusals_are_told_at_once_and_outages_waited_for(shared, monkeypatch, code, is_lasting):
    tried = []

    def fail(*_):
        tried.append(1)
        if len(tried) == 1:
            raise OSError(f"When doing something: AWS Error {code}")
        return "done"

    monkeypatch.setattr(store, "SHORTEST_PAUSE", 0.01)

    def work():
        with shared._asking():
            return fail()

    if is_lasting:
        with pytest.raises(StoreError) as error:
            patiently(work)
        assert_one_line(error, shared.address)
    else:
        assert patiently(work) == "done"
    assert len(tried) == (1 if is_lasting else 2)


def test_a_bucket_that_is_gone_is_not_an_empty_one(s3, tmp_path):
    place = Place("s3://no-such-bucket/a")
    for ask in (place.names, lambda: place.read("a"), lambda: place.get("a", tmp_path / "a")):
        with pytest.raises(StoreError, match="no such bucket") as error:
            ask()
        assert error.value.is_lasting


def test_a_full_disk_here_is_not_the_fault_of_the_store(shared, small_disk):
    shared.write("large", bytes(20 << 20))
    with pytest.raises(StoreError, match=r"no place on this machine's disk .*; make room in") as error:
        shared.get("large", small_disk / "large")
    assert error.value.is_lasting and not list(small_disk.glob("*large*"))


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("relative/folder", "the whole path"),
        ("s3://KEY:SECRET@bucket/a", "credentials in"),
        ("abfss://:SECRET@account/a", "credentials in"),
    ],
)
def test_addresses_that_each_process_would_read_otherwise_or_that_hold_keys(monkeypatch, address, word):
    monkeypatch.setenv(store.VARIABLE, address)
    with pytest.raises(InputError) as error:
        check_store()
    assert_one_line(error, word)
    assert "SECRET" not in str(error.value)


def test_a_store_that_stays_away_ends_the_training_with_a_word(shared, disks, monkeypatch):
    run_dir = disks("first")
    place = place_of(run_dir)
    monkeypatch.setattr(uploader, "SECONDS_OF_PATIENCE", 0.0)
    with held(place, "me", is_waiting=True):
        uploads = uploader_of(run_dir, place, attempt="me")
        keep(run_dir, 1)
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", NOWHERE)
            uploads.upload()
            with pytest.raises(StoreError, match="no store answers there"):
                uploads.finish()
    assert step_of(newest_checkpoint(run_dir)) == 1


def test_an_attempt_that_was_taken_over_uploads_nothing(shared, disks):
    run_dir = disks("first")
    place = place_of(run_dir)
    keep(run_dir, 1)
    with held(place, "newer", is_waiting=True):
        uploads = uploader_of(run_dir, place, attempt="older")
        uploads.upload()
        with pytest.raises(TakenOverError, match="another attempt has taken over"):
            uploads.finish()
    assert place.names() == [], "neither state nor seal"
