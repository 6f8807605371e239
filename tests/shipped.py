"""The shipped files: experiments, sweeps, and the comment that each begins with."""

from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parent.parent / "experiments"
FILES = sorted(FOLDER.glob("*.yaml"))
HEADER = ("Question", "Table", "Expected", "Hardware", "Time", "Command")


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def stem(path):
    return path.stem


def header(path):
    """The parts of the comment that a file begins with, each joined to one line."""
    parts = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return parts
        label, text = line[2:13].strip(), line[13:].strip()
        if label:
            parts[label] = text
        else:
            parts[list(parts)[-1]] += f" {text}"
    return parts


EXPERIMENTS = [path for path in FILES if not path.stem.startswith(("sweep_", "ablate_", "search_"))]
SWEEPS = [path for path in FILES if path not in EXPERIMENTS]
