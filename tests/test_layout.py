"""The house: which room knows what, and that `platform/` never shadows Python's own module."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from hdam.platform.pages import page

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("models", "pipelines", "experiments", "platform")

KNOWN = {
    "models": {"torch", "jaxtyping", "safetensors", "hdam.models"},
    "pipelines": {"numpy", "PIL", "pyarrow", "av", "simplejpeg", "hdam.pipelines"},
    "experiments": {"pydantic", "yaml", "hdam.experiments", "hdam.models.config", "hdam.pipelines"},
}
"""What each room may import, besides Python's own modules; platform may import everything."""

MLFLOW_FILES = {"tracking.py", "tracked_run.py", "outbox.py", "registry.py", "served_model.py"}


def imports(path):
    """Every module that a file imports, also inside functions; not what it names for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and is_for_types(node.test))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide the room"
            yield node.module


def is_for_types(test):
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def is_below(module, package):
    return module == package or module.startswith(f"{package}.")


def python(*arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pythons_own_platform_wins_at_the_root():
    assert python("-c", "import platform; print(platform.system())").strip()
    assert not list((ROOT / "platform").rglob("__init__.py"))
    assert not (ROOT / "tests" / "platform").exists()


def test_every_package_is_listed():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    files = [path for room in ROOMS for kind in ("*.py", "*.yaml") for path in (ROOT / room).rglob(kind)]
    folders = {path.parent.relative_to(ROOT) for path in files}
    assert sorted(setup["packages"]) == sorted("hdam." + ".".join(folder.parts) for folder in folders)
    assert setup["package-dir"] == {f"hdam.{room}": room for room in ROOMS}


def test_every_folder_but_platform_is_a_package():
    for room in set(ROOMS) - {"platform"}:
        folders = {path.parent for path in (ROOT / room).rglob("*.py")}
        assert all((folder / "__init__.py").is_file() for folder in folders)


def test_the_experiments_are_installed():
    installed, ours = resources.files("hdam.experiments"), ROOT / "experiments"
    for folder in (".", "base"):
        names = {entry.name for entry in installed.joinpath(folder).iterdir() if entry.name.endswith(".yaml")}
        assert names == {path.name for path in (ours / folder).glob("*.yaml")} != set()


def test_the_template_of_pages_is_installed():
    assert Path(page.__file__).with_name("page.html.jinja").is_file()


@pytest.mark.parametrize("room", KNOWN)
def test_a_room_imports_only_what_it_may_know(room):
    allowed = KNOWN[room]
    foreign = [
        f"{path.name}: {module}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for module in imports(path)
        if module.split(".")[0] not in sys.stdlib_module_names
        and not any(is_below(module, package) for package in allowed)
    ]
    assert not foreign


def test_mlflow_stays_in_its_files():
    room = ROOT / "platform"
    users = {path for path in room.rglob("*.py") if any(is_below(module, "mlflow") for module in imports(path))}
    assert {str(path.relative_to(room)) for path in users} == MLFLOW_FILES


def test_every_module_can_be_imported():
    modules = [
        "hdam." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if path.name not in ("__init__.py", "served_model.py")  # MLflow runs the latter, it is not imported
    ]
    script = f"import importlib; print(*{{importlib.import_module(name).__file__ for name in {modules}}}, sep='\\n')"
    found = python("-c", script).splitlines()
    assert len(found) == len(modules) > 50
    is_from_here = [Path(path).is_relative_to(ROOT) and "site-packages" not in path for path in found]
    assert not any(is_from_here) if os.environ.get("HDAM_FROM_WHEEL") else all(is_from_here)


def test_the_command_line_is_light_to_import():
    script = "import sys, hdam.platform.cli; print(*{'torch', 'ray', 'mlflow', 'pyarrow', 'av'} & set(sys.modules))"
    assert python("-c", script).strip() == ""
