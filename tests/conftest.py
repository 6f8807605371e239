"""Fixtures shared by all tests: where the reference material lies, and one Ray session for those who need it."""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

# Before anything imports hdam.models: every shape that a signature there states is checked whenever it is called.
jaxtyping.install_import_hook("hdam.models", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def _reference(path: Path) -> Path:
    """`path` if it is there; else skip for outsiders, and fail in CI, where it must be."""
    if path.exists():
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(f"reference material not found at {path}; CI needs it beside the repository", pytrace=False)
    pytest.skip(f"reference material not found at {path}")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference tensors."""
    return _reference(SHARED / "golden")


@pytest.fixture(scope="session")
def clips() -> Path:
    """Folder of real clips with their manifest.csv."""
    return _reference(SHARED / "clips")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for all tests that need it; it takes seconds to start."""
    from hdam.experiments.experiment import ResourceConfig
    from hdam.platform import cluster

    with cluster.ray_session(ResourceConfig()):
        yield
