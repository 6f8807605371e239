"""The manifest of a dataset: counts, fingerprint, and every way for its files not to match it."""

import json

import pytest
from media_files import SPLITS, store, write_dataset

from hdam.pipelines.assemble import assemble
from hdam.pipelines.errors import InputError, first_line
from hdam.pipelines.manifest import SCHEMA_VERSION, load_manifest, verify_shards
from hdam.pipelines.shards import read_rows


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path)


def test_counts_add_up(dataset):
    manifest = load_manifest(dataset)
    assert (manifest.counts.clips, manifest.counts.identities, manifest.counts.frames) == (5, 3, 38)
    for name in ("clips", "identities", "rows", "frames", "num_bytes"):
        assert getattr(manifest.counts, name) == sum(getattr(counts, name) for counts in manifest.splits.values())
    assert manifest.counts.num_bytes == sum(path.stat().st_size for path in (dataset / "shards").iterdir())
    verify_shards(dataset, manifest)


def test_fingerprint_follows_the_content(tmp_path):
    def fingerprint(name, *, num_frames=3, options=None, seed=0):
        (tmp_path / name).mkdir()
        chunks = store(tmp_path, 0, "ada", num_frames)
        options = options or {"size": 8}
        return assemble(tmp_path / name, chunks, splits=SPLITS, name=name, options=options, seed=seed).fingerprint

    first = fingerprint("a")
    assert first == fingerprint("b")
    assert len({first, fingerprint("c", num_frames=4), fingerprint("d", options={"size": 8, "fit": "pad"})}) == 3


def test_a_tampered_shard_is_named(dataset):
    manifest = load_manifest(dataset)
    path = dataset / manifest.shards[1].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    verify_shards(dataset, manifest, depth="sizes")
    with pytest.raises(InputError, match=rf"{path.name} has checksum .* expects .* prepare it again"):
        verify_shards(dataset, manifest)
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"{path.name} has {len(content) - 1} bytes, .* expects {len(content)}"):
        verify_shards(dataset, manifest, depth="sizes")
    path.unlink()
    with pytest.raises(InputError, match=rf"{path.name} is missing"):
        verify_shards(dataset, manifest, depth="sizes")
    with pytest.raises(InputError, match=rf"{path.name} is missing"):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "is broken"),
        ("[]", "is broken"),
        ("{}", "schema_version"),
        ('{"schema_version": 1, "name": "a"}', "is broken"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}), "update hdam"),
    ],
)
def test_a_broken_manifest_is_one_clear_line(tmp_path, text, word):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=word) as error:
        load_manifest(tmp_path)
    assert "\n" not in str(error.value) and "manifest.json" in str(error.value)


@pytest.mark.parametrize(
    ("message", "line"), [("one\ntwo", "one"), ("\n one\n", "one"), ("", "OSError"), ("\n", "OSError")]
)
def test_errors_are_quoted_by_their_first_line(message, line):
    assert first_line(OSError(message)) == line


def test_missing_datasets_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="no such dataset"):
        load_manifest(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no manifest\.json"):
        load_manifest(tmp_path)
