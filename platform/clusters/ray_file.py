"""A file for `ray up`: what Ray's own check says, and what it does not look at."""

import importlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hdam.platform.clusters.check import Problem

LOG = logging.getLogger("hdam")
WHEEL = "hdam-*.whl"
STORES = ("HDAM_STORE", "HDAM_RESULTS")
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def check_ray_file(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong; paths of this machine count from the current folder, as they do for `ray up`."""
    said = list(_ask_ray(settings))
    yield from said
    if not said:  # what follows relies on the shape that Ray asks for
        yield from _check_nodes(settings)
        yield from _check_wheel(settings)
        yield from _check_environment(settings)


def _ask_ray(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """Ray's schema and its rules, which are not public; it stops at the first problem."""
    provider = settings.get("provider")
    if not isinstance(provider, dict) or "type" not in provider:
        yield Problem("provider.type", str(provider), "aws, gcp, azure, …, or external with a module")
        return
    try:
        import jsonschema
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError as error:
        LOG.warning("Ray's own check of cluster files is not where it was (%s): only ours is done", error)
        return
    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)  # what it fills in is no concern of this file
    try:
        validate_config(prepare_config(dict(settings)))
    except jsonschema.ValidationError as error:
        yield Problem(".".join(map(str, error.absolute_path)), str(error.instance), error.message)
    except NotImplementedError:
        yield Problem("provider.type", str(provider["type"]), "a provider that Ray knows: aws, gcp, azure, external, …")
    except Exception as error:  # Ray raises what it happens to meet
        yield Problem("", f"what Ray refuses ({type(error).__name__})", str(error) or "a file that Ray takes")


def _check_nodes(settings: Mapping[str, Any]) -> Iterator[Problem]:
    types, head = settings.get("available_node_types", {}), settings.get("head_node_type", "")
    cpus = types.get(head, {}).get("resources", {}).get("CPU", "as many as it has")
    if cpus != 0:
        yield Problem(f"available_node_types.{head}.resources.CPU", str(cpus), "0: the head only coordinates")
    workers = {name: each for name, each in types.items() if name != head and each.get("max_workers", 1) > 0}
    if not any(_has_work(each["resources"]) for each in workers.values()):
        yield Problem(
            "available_node_types", ", ".join(types), "besides the head a type with CPUs or GPUs and max_workers"
        )
    provider = settings["provider"]
    if provider["type"] == "external":
        yield from _check_module(str(provider.get("module", "")))


def _has_work(resources: Mapping[str, int]) -> bool:
    """Without resources, Ray looks up what the machine has."""
    return not resources or resources.get("CPU", 0) > 0 or resources.get("GPU", 0) > 0


def _check_module(path: str) -> Iterator[Problem]:
    module, _, name = path.rpartition(".")
    try:
        is_there = hasattr(importlib.import_module(module), name)
    except (ImportError, ValueError) as error:
        yield Problem("provider.module", path, f"a class that can be imported here ({error})")
        return
    if not is_there:
        yield Problem("provider.module", path, f"a class of {module}")


def _check_wheel(settings: Mapping[str, Any]) -> Iterator[Problem]:
    mounts = settings.get("file_mounts", {})
    folders = {
        there: here for there, here in mounts.items() if any(_installs(line, there) for line in _lines(settings))
    }
    if not folders:
        found = ", ".join(mounts) or "no file_mounts"
        yield Problem("setup_commands", found, f"a pip install of {WHEEL} from a folder of file_mounts")
    for there, here in mounts.items():
        place = Path(here).expanduser()
        if there in folders and not list(place.glob(WHEEL)):
            yield Problem(
                f"file_mounts.{there}", f"no {WHEEL} in {here}", "one: python -m build --wheel --outdir dist ."
            )
        elif there not in folders and not place.exists():
            advice = ": RAY_AUTH_MODE=token ray get-auth-token --generate" if place.name == "auth_token" else ""
            yield Problem(f"file_mounts.{there}", f"no {here} on this machine", f"a file or folder{advice}")


def _installs(line: str, folder: str) -> bool:
    return "pip install" in line and ".whl" in line and Path(folder).name in line


def _check_environment(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """What every process should find; it is set by commands, so that their text has to do."""
    lines = [line for line in _lines(settings) if not line.lstrip().startswith("#")]

    def sets(name: str) -> bool:
        return any(f"{name}=" in line for line in lines)

    if not any(map(sets, STORES)):
        yield Problem(
            "setup_commands", "neither HDAM_STORE nor HDAM_RESULTS", "a store or a disk that all machines see"
        )
    if not sets("MLFLOW_TRACKING_URI"):
        yield Problem(
            "setup_commands", "no MLFLOW_TRACKING_URI", "the address of a tracking server that all machines reach"
        )
    if not any("RAY_AUTH_MODE=token" in line for line in lines):
        yield Problem("setup_commands", "no RAY_AUTH_MODE=token", "it: else Ray serves whoever reaches its ports")
    elif not any(Path(there).name == "auth_token" for there in settings.get("file_mounts", {})):
        yield Problem("file_mounts", "no .ray/auth_token", "the token that RAY_AUTH_MODE=token asks for")


def _lines(settings: Mapping[str, Any]) -> list[str]:
    """Of all commands."""
    return [str(line) for name in COMMANDS for line in settings.get(name) or ()]
