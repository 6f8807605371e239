"""What other processes are doing, for tests that kill them."""

import os
import subprocess
import time


def descendants(pid):
    """(pid, command line) of every process below `pid`."""
    listing = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [(int(child), int(parent), command) for child, parent, command in map(split_line, listing.splitlines())]
    below, size = {pid}, 0
    while len(below) > size:
        size = len(below)
        below |= {child for child, parent, _ in rows if parent in below}
    return [(child, command) for child, _, command in rows if child in below - {pid}]


def is_of_training(command):
    """Ray's own agents take up to a minute to notice that they are alone; what trains has to go at once."""
    return any(name in command for name in ("raylet/raylet ", "gcs_server ", "RayTrainWorker", "TrainController"))


def split_line(line):
    child, parent, *command = line.split(None, 2)
    return child, parent, " ".join(command)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(is_true, *, seconds):
    deadline = time.monotonic() + seconds
    while not (found := is_true()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
