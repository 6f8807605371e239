"""`hdam data show` and `hdam data verify`: what they say of a sound dataset, and of every way to be broken."""

import json
from dataclasses import asdict, replace

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import write_dataset
from PIL import Image
from pyarrow import fs
from typer.testing import CliRunner

from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import locate
from hdam.pipelines.manifest import load_manifest
from hdam.pipelines.overview import clip_places, describe, histogram, make_sheet, place_sheet
from hdam.platform.cli import app


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path)


@pytest.fixture
def hdam(tmp_path, monkeypatch):
    """Runs a command in an empty folder and returns its result."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_sound_dataset_is_told_in_one_line(hdam, dataset):
    found = hdam("data", "verify", dataset, "--cpus", 2)
    assert found.exit_code == 0, found.output
    (line,) = found.stdout.splitlines()
    assert line.startswith("all is well: 38 frames in ") and line.endswith("frames/s")


def test_a_missing_dataset_is_a_mistake(hdam, tmp_path):
    for command in (["show"], ["verify"]):
        found = hdam("data", *command, tmp_path / "none")
        assert found.exit_code == 2
        assert "no such dataset" in found.stderr and len(found.stderr.splitlines()) == 1
    assert hdam("data", "verify", write_dataset(tmp_path), "--cpus", 0).exit_code == 2


def test_a_changed_byte_is_named_by_shard_row_clip_and_frame(hdam, dataset):
    shard = load_manifest(dataset).shards_of("train")[0]
    path = dataset / shard.path
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 0xFF  # within the first frame of the shard's first row
    path.write_bytes(content)
    row = pq.read_table(path, columns=["clip_id", "frame_index"]).slice(0, 1).to_pylist()[0]
    found = hdam("data", "verify", dataset)
    assert found.exit_code == 1, found.output
    checksum, frame, verdict = found.stdout.splitlines()
    assert checksum.startswith(f"{shard.path}: has checksum")
    assert frame.startswith(f"{shard.path}, row 0, clip {row['clip_id']}, frame {row['frame_index'][0]}: cannot be dec")
    assert verdict.startswith("2 fault(s) found: 38 frames")


def test_show_tells_numbers_and_points_to_the_sheet(hdam, dataset):
    found = hdam("data", "show", dataset)
    assert found.exit_code == 0, found.output
    lines = [" ".join(line.split()) for line in found.stdout.splitlines()]
    assert "Split Clips Identities Rows Frames MiB" in lines and "frames of a clip 2 9 13" in lines
    assert f"Fingerprint {load_manifest(dataset).fingerprint}" in lines and "Prepared with size 8" in lines
    assert lines[-1] == f"Look at {dataset / 'contact_sheet.png'}"
    assert Image.open(dataset / "contact_sheet.png").size[0] > 100  # there was none, so it was made


def test_show_as_json(hdam, dataset):
    (dataset / "rejected.csv").write_text('file,reason\r\na.mp4,"two\nlines"\r\nb.mp4,none\r\n')
    found = hdam("data", "show", dataset, "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    manifest = load_manifest(dataset)
    assert told["counts"] == asdict(manifest.counts) and told["options"] == {"size": 8}
    assert told["clip_frames"] == {"lowest": 2, "median": 9, "highest": 13}
    assert told["clips_per_identity"] == {"lowest": 1, "median": 2, "highest": 2}
    assert told["clip_seconds"]["highest"] == pytest.approx(13 / 25)
    assert sum(part["clips"] for part in told["histogram"]) == 5
    assert told["bytes_per_frame"] == pytest.approx(manifest.counts.num_bytes / 38)
    assert told["num_rejected"] == 2
    assert told["contact_sheet"] == str(dataset / "contact_sheet.png")


def test_the_sheet_goes_where_it_can(hdam, dataset, tmp_path):
    assert hdam("data", "show", dataset, "--out", tmp_path / "sheet.png").exit_code == 0
    assert (tmp_path / "sheet.png").is_file() and not (dataset / "contact_sheet.png").exists()
    found = hdam("data", "show", dataset, "--out", tmp_path / "no" / "sheet.png")
    assert found.exit_code == 2 and "--out" in found.stderr
    (dataset / "contact_sheet.png").mkdir()  # so nothing can be written there
    found = hdam("data", "show", dataset)
    assert found.exit_code == 0, found.output
    assert (tmp_path / "here" / "five_contact_sheet.png").is_file()
    assert found.stdout.splitlines()[-1] == "Look at five_contact_sheet.png"


def test_datasets_are_looked_at_by_address(hdam, dataset):
    assert hdam("data", "verify", dataset.as_uri(), "--cpus", 1).exit_code == 0
    assert replace(describe(dataset.as_uri()), dataset="") == replace(describe(str(dataset)), dataset="")
    assert place_sheet(dataset.as_uri(), None) == dataset / "contact_sheet.png"


def test_datasets_in_a_store_are_looked_at(hdam, dataset, s3):
    address = f"{s3}/five"
    store, root = locate(address)
    fs.copy_files(str(dataset), root, destination_filesystem=store)
    found = hdam("data", "show", address)
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1] == "Look at five_contact_sheet.png"
    with Image.open("five_contact_sheet.png") as sheet:
        assert sheet.size[0] > 100
    found = hdam("data", "verify", address, "--cpus", 2)
    assert found.exit_code == 0, found.output
    shard = load_manifest(address).shards[0].path
    store.delete_file(f"{root}/{shard}")
    found = hdam("data", "verify", address, "--cpus", 2)
    assert found.exit_code == 1 and found.stdout.startswith(f"{shard}: is missing"), found.output
    found = hdam("data", "show", f"{s3}/none")
    assert found.exit_code == 2 and len(found.stderr.splitlines()) == 1, found.output


def test_places_lead_to_the_first_chunk(dataset):
    manifest = load_manifest(dataset)
    for place in clip_places(str(dataset), manifest):
        row = pq.read_table(dataset / place.shard).slice(place.row, 1).to_pylist()[0]
        assert (row["clip_id"], row["chunk"]) == (place.clip_id, 0)
    assert make_sheet(str(dataset)).size[1] > 3 * 96


def test_a_damaged_shard_is_one_line_for_show(dataset):
    shard = load_manifest(dataset).shards[0]
    (dataset / shard.path).write_text("none")
    with pytest.raises(InputError, match="damaged"):
        describe(str(dataset))


@given(st.lists(st.integers(1, 3000), max_size=30), st.integers(1, 12))
def test_every_length_is_in_one_bin(lengths, num_bins):
    bins = histogram(lengths, num_bins=num_bins)
    assert len(bins) <= num_bins
    assert [part.clips for part in bins] == [sum(b.first <= n <= b.last for n in lengths) for b in bins]
    assert sum(part.clips for part in bins) == len(lengths)
