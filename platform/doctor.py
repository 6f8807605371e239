"""`hdam doctor`: what this machine has, and what is missing for which command."""

import os
import shutil
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from hdam.platform.reports import plain_table

SHM_DIR = Path("/dev/shm")
CGROUP_DIR = Path("/sys/fs/cgroup")
GIB = 2**30
LEAST_PYTHON = (3, 11)
LEAST_CPUS = 2
LEAST_MEMORY_GIB = 4.0
LEAST_DISK_GIB = 5.0
LEAST_SHM_GIB = 1.0


class Finding(NamedTuple):
    """One line of the doctor's table."""

    subject: str
    found: str
    is_good: bool
    is_essential: bool
    consequence: str
    """What cannot be done, or works less well, while it is not good; and what to do about it."""


def examine() -> list[Finding]:
    """Every check, in the order in which a person reads them."""
    libraries = [
        check_library("ray", lacking="hdam train and hdam quickstart need it"),
        check_library("mlflow", lacking="hdam train, models, animate and quickstart need it"),
        check_library("av", lacking="hdam puppets, prepare, animate and quickstart read and write videos with it"),
        check_library("pyarrow", lacking="hdam prepare, train and quickstart keep shards with it"),
    ]
    places = [check_memory(), check_disk(), check_shm()]
    machine = [check_python(), check_torch(), check_device(), *libraries, check_cpus(), *places]
    return [*machine, check_perceptual(), *check_detectors()]


def show_findings(findings: list[Finding], console: Console) -> None:
    """Print `findings` as a table."""
    table = plain_table("", "What", "Found", "Meaning")
    for finding in findings:
        meaning = "" if finding.is_good else finding.consequence
        # As Text, since a path or a message with [brackets] is no markup.
        table.add_row(_mark(finding), *map(Text, (finding.subject, finding.found, meaning)))
    console.print(table)
    missing = [finding.subject for finding in findings if finding.is_essential and not finding.is_good]
    console.print(f"Missing: {', '.join(missing)}." if missing else "Everything essential is here.")


def check_python() -> Finding:
    """The interpreter's version."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    least = ".".join(str(part) for part in LEAST_PYTHON)
    return Finding("Python", found, sys.version_info >= LEAST_PYTHON, True, f"every command needs {least} or later")


def check_library(name: str, *, lacking: str) -> Finding:
    """Whether `name` can be imported, and its version; `lacking` says what cannot be done without it."""
    problem = _problem_of(lambda: import_module(name))
    if problem:
        return Finding(name, problem, False, True, f"{lacking}; install hdam again: pip install -e .")
    return Finding(name, metadata.version(name), True, True, "")


def check_torch() -> Finding:
    """Torch's version."""
    return check_library("torch", lacking="hdam train, animate and quickstart need it")


def check_device() -> Finding:
    """The device that torch would use."""
    problem = _problem_of(lambda: import_module("torch"))
    if problem:
        return Finding("device", "no torch", False, False, "")
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("device", f"cuda: {len(names)} x {names[0]}", True, False, "")
    if torch.backends.mps.is_available():
        return Finding("device", "mps", True, False, "")
    slow = "enough for hdam quickstart and small experiments; the 256-pixel ones need GPUs"
    return Finding("device", "cpu", False, False, slow)


def check_cpus() -> Finding:
    """CPUs that this process may use, and those that are idle now."""
    usable, load = usable_cpus(), os.getloadavg()[0]
    found = f"{usable:g} usable of {os.cpu_count()}, about {max(0.0, usable - load):.1f} idle"
    few = f"hdam train with 2 workers wants {LEAST_CPUS} CPUs; set resources.workers=1"
    return Finding("CPUs", found, usable >= LEAST_CPUS, False, few)


def check_memory() -> Finding:
    """Memory that this process may still take."""
    free, total = free_memory_gib()
    little = f"hdam train wants {LEAST_MEMORY_GIB:g} GiB free; use fewer workers or a smaller optim.batch_size"
    return Finding("memory", f"{free:.1f} of {total:.1f} GiB free", free >= LEAST_MEMORY_GIB, False, little)


def check_disk() -> Finding:
    """Room on the disk that takes the results."""
    from hdam.platform.tracking import results_dir

    folder = results_dir().absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free / GIB
    little = f"checkpoints and models want {LEAST_DISK_GIB:g} GiB; point HDAM_RESULTS at a larger disk"
    return Finding("disk", f"{free:.1f} GiB free at {folder}", free >= LEAST_DISK_GIB, False, little)


def check_shm() -> Finding:
    """Shared memory, where Ray keeps the batches."""
    if not SHM_DIR.is_dir():
        return Finding("/dev/shm", "not there", True, False, "")  # macOS: Ray takes files instead
    usage = shutil.disk_usage(SHM_DIR)
    found = f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free"
    little = "hdam train is slow with little of it; in Docker add --shm-size=2g"
    return Finding(str(SHM_DIR), found, usage.free / GIB >= LEAST_SHM_GIB, False, little)


def check_perceptual() -> Finding:
    """Whether weights for the perceptual loss were fetched."""
    from hdam.platform.weights.files import PERCEPTUAL_NETWORKS, find_weights

    found = [str(path) for path in map(find_weights, PERCEPTUAL_NETWORKS) if path is not None]
    lacking = (
        "hdam train with losses.perceptual.network=vgg19 needs some, or a file in losses.perceptual.weights; "
        f"hdam weights get vgg19{_torch_download()} fetches them; quickstart needs none (network=pixels)"
    )
    return Finding("VGG weights", ", ".join(found) or "not found", bool(found), False, lacking)


def check_detectors() -> list[Finding]:
    """Which detectors of faces, bodies and motion are here."""
    from hdam.platform.detection.catalogue import available_detectors

    return [
        Finding(
            f"{detector.name} detector",
            f"not found: {detector.reason}" if detector.reason else detector.version,
            not detector.reason,
            False,
            f"without it there is no {detector.purpose}; get it: {detector.remedy}",
        )
        for detector in available_detectors().values()
    ]


def usable_cpus() -> float:
    """CPUs after the process's affinity and the container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(float(allowed), _cgroup_cpus())


def free_memory_gib() -> tuple[float, float]:
    """GiB free and in all, after the container's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    info = Path("/proc/meminfo")
    if not info.is_file():
        return total, total
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024 / GIB
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    if limit is None or used is None:
        return free, total
    return min(free, (limit - used) / GIB), min(total, limit / GIB)


def _torch_download() -> str:
    """The option by which weights are taken from where torch keeps its downloads; empty where it has none."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch").expanduser()
    files = sorted((home / "hub" / "checkpoints").glob("vgg19-*.pth"))
    return f" --from {files[0]}" if files else ""


def _mark(finding: Finding) -> Text:
    if finding.is_good:
        return Text("ok", style="green")
    return Text("missing", style="red") if finding.is_essential else Text("note", style="yellow")


def _cgroup_cpus() -> float:
    quota = CGROUP_DIR / "cpu.max"
    if not quota.is_file():
        return float("inf")
    share, period = quota.read_text().split()
    return float("inf") if share == "max" else int(share) / int(period)


def _cgroup_bytes(name: str) -> int | None:
    path = CGROUP_DIR / name
    text = path.read_text().strip() if path.is_file() else "max"
    return None if text == "max" else int(text)


def _problem_of(attempt: Callable[[], object]) -> str:
    """What went wrong in `attempt`, or nothing."""
    try:
        attempt()
    except (ImportError, OSError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""
