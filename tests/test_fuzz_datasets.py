"""Whatever lies in a dataset, reading it works or is refused in one line, and checking it names what is wrong."""

import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import VALUES, damaged, damaged_json
from fuzzing import DATASETS, assert_tried, fuzz, holding, trying
from media_files import write_dataset

from hdam.pipelines.examine import examine_shard
from hdam.pipelines.manifest import load_manifest, verify_shards
from hdam.pipelines.overview import describe, make_sheet
from hdam.pipelines.shards import SCHEMA, iter_clips
from hdam.pipelines.whole import examine_whole

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def dataset(here):
    (here / "five").mkdir()
    return write_dataset(here / "five")


def read_all(refused, dataset):
    """Everything that reads datasets. `hdam data verify` never refuses what has a manifest: it lists what is wrong."""

    def verify():
        manifest = load_manifest(dataset)
        found = [examine_shard(str(dataset), shard, size=8) for shard in manifest.shards]
        return [*map(str, examine_whole(manifest, found))]

    def decode():
        for clip in iter_clips(dataset):
            for index in range(clip.num_frames):
                clip.frame(index)
                if clip.part_masks is not None:
                    clip.part_mask(index)

    refused(lambda: describe(str(dataset)))
    refused(lambda: make_sheet(str(dataset)))
    refused(decode)
    refused(lambda: verify_shards(dataset, load_manifest(dataset)))
    refused(verify)


@fuzz("shard")
def test_shards(dataset, seed):
    shards = sorted((dataset / "shards").iterdir())
    path = shards[seed % len(shards)]
    with holding(path, damaged(path.read_bytes(), seed)), trying("shard") as refused:
        read_all(refused, dataset)


LISTS = (
    [],
    [None],
    [b""],
    [b"\xff\xd8\xff\xe0"],
    [[]],
    [[0.5]],
    [[None, 1.0]],
    [[0.0, float("nan")]] * 3,
    [0],
    [2**31 - 1],
)


@fuzz("row")
def test_rows(dataset, seed):
    """Shards that are sound Parquet files, with rows that are not sound."""
    rng = random.Random(seed)
    shards = sorted((dataset / "shards").iterdir())
    path = shards[seed % len(shards)]
    rows = pq.read_table(path).to_pylist()
    types = {field.name: field.type for field in SCHEMA}
    for name in rng.sample(SCHEMA.names, rng.choice((1, 1, 2))):
        rng.choice(rows)[name] = rng.choice((*VALUES, *LISTS))
        if rng.random() < 0.1:
            types[name] = rng.choice((pa.string(), pa.int64(), pa.binary(), pa.list_(pa.int32())))
    columns = {name: as_column([row[name] for row in rows], kind) for name, kind in types.items()}
    if rng.random() < 0.1:
        del columns[rng.choice(SCHEMA.names)]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=rng.choice((1, 1, 1, 4)))
    with holding(path, buffer.getvalue()), trying("row") as refused:
        read_all(refused, dataset)


def as_column(values, kind):
    """`values` as a column, those that don't fit into it left out."""
    fitting = []
    for value in values:
        try:
            fitting.append(pa.scalar(value, kind))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            fitting.append(pa.scalar(None, kind))
    return pa.array([scalar.as_py() for scalar in fitting], kind)


@fuzz("manifest")
def test_manifests(dataset, seed):
    path = dataset / "manifest.json"
    sound = path.read_bytes()
    data = damaged(sound, seed) if seed % 4 == 0 else damaged_json(json.loads(sound), seed)
    with holding(path, data), trying("manifest") as refused:
        read_all(refused, dataset)


def test_enough_was_tried():
    assert_tried(*DATASETS)
