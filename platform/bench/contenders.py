"""Three ways from stored clips to batches of float images on the device, all drawing pairs of the same clips."""

import functools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.data
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from hdam.experiments.experiment import DataConfig, ResourceConfig
from hdam.platform.animate import best_device
from hdam.platform.augmentation import augment, draw
from hdam.platform.cluster import ray_session
from hdam.platform.datasets import (
    ingest_config,
    make_bundles,
    open_dataset,
    steps_per_bundle,
    steps_per_portion,
    stream,
    unpack,
)
from hdam.platform.pair_plan import PairPlan, make_plan

Pair = tuple[Tensor, Tensor]
"""Source and driving on the device, float [pair, 3, height, width] in 0…1."""
Run = Callable[[int, int], Iterator[Pair]]
"""The batches from one step to another (left out)."""
START = "fork"
"""How a DataLoader starts its workers: its own choice on Linux, said because this process was started otherwise."""
ImageOp = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """What all contenders have to do."""

    data: DataConfig
    frames_dir: Path
    """The same clips as folders of PNG frames."""
    batch_size: int
    data_cpus: int
    """Processes beside the one that takes the batches."""
    seed: int = 0

    @property
    def resources(self) -> ResourceConfig:
        """One worker with as many data CPUs."""
        return ResourceConfig(workers=1, data_cpus=self.data_cpus)

    def plan(self) -> PairPlan:
        """The order of pairs of the two that read shards."""
        return make_plan(self.data, open_dataset(self.data), batch_size=self.batch_size, seed=self.seed)


@contextmanager
def our_stream(contest: Contest) -> Iterator[Run]:
    """As `hdam train` takes it: Ray Data tasks, a worker's share of the stream, augmentation on the device."""
    plan, resources = contest.plan(), contest.resources
    prefetched = -(-resources.prefetch_batches // steps_per_bundle(contest.batch_size, plan.size))

    def run(first_step: int, last_step: int) -> Iterator[Pair]:
        data = stream(plan, first_step=first_step, last_step=last_step, resources=resources)
        [shares] = ingest_config(resources).configure(
            {"train": data}, world_size=1, worker_handles=None, worker_node_ids=None
        )
        batches = unpack(shares["train"], prefetch_bundles=prefetched, first_step=first_step)
        yield from _augmented(batches, contest, first_step)

    with ray_session(resources):
        yield run


@contextmanager
def shard_loader(contest: Contest) -> Iterator[Run]:
    """A torch DataLoader over the same shards and the same plan; the augmentation is ours too."""
    plan = contest.plan()

    def run(first_step: int, last_step: int) -> Iterator[Pair]:
        portion = steps_per_portion(plan, 1, contest.resources)
        shards = ShardReader(plan, range(first_step, last_step), portion_steps=portion)
        loader = torch.utils.data.DataLoader(
            shards, batch_size=None, num_workers=contest.data_cpus, multiprocessing_context=START
        )
        yield from _augmented(iter(loader), contest, first_step)

    yield run


class ShardReader(torch.utils.data.IterableDataset[dict[str, Tensor]]):
    """Batches of a plan; each worker of the DataLoader makes an equal share of the steps."""

    def __init__(self, plan: PairPlan, steps: range, *, portion_steps: int) -> None:
        self.plan = plan
        self.steps = steps
        self.portion_steps = portion_steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """uint8 [pair, height, width, 3]."""
        info = torch.utils.data.get_worker_info()
        number, workers = (info.id, info.num_workers) if info else (0, 1)
        own = np.array_split(np.array(self.steps), workers)[number]
        for start in range(0, len(own), self.portion_steps):
            steps = range(own[start], own[min(start + self.portion_steps, len(own)) - 1] + 1)
            for bundle in make_bundles(self.plan, steps, micro_batches=1, bundle_steps=1):
                yield {name: torch.from_numpy(bundle[name][0, 0]) for name in ("source", "driving")}


def _augmented(batches: Iterator[dict[str, Any]], contest: Contest, first_step: int) -> Iterator[Pair]:
    device, generator = best_device(), torch.Generator().manual_seed(first_step)
    for batch in batches:
        source, driving = (batch[name].to(device, non_blocking=True) for name in ("source", "driving"))
        yield augment(source, driving, contest.data, draw(len(source), contest.data, generator=generator))


@contextmanager
def frame_folders(contest: Contest) -> Iterator[Run]:
    """In the manner of the published code: two random PNG frames per item, changed one by one on the CPU."""
    device = best_device()

    def run(first_step: int, last_step: int) -> Iterator[Pair]:
        num_pairs = (last_step - first_step) * contest.batch_size
        loader = torch.utils.data.DataLoader(
            FramePairs(contest.frames_dir, contest.data, num_pairs),
            batch_size=contest.batch_size,
            shuffle=True,
            num_workers=contest.data_cpus,
            multiprocessing_context=START,
        )
        for batch in loader:
            yield batch["source"].to(device), batch["driving"].to(device)

    yield run


class FramePairs(torch.utils.data.Dataset[dict[str, NDArray[np.float32]]]):
    """An item is two random frames of one clip."""

    def __init__(self, folder: Path, data: DataConfig, num_pairs: int) -> None:
        self.clips = sorted(entry.path for entry in os.scandir(folder))
        self.data = data
        self.num_pairs = num_pairs

    def __len__(self) -> int:
        return self.num_pairs

    def __getitem__(self, index: int) -> dict[str, NDArray[np.float32]]:
        """float32 [3, height, width] in 0…1."""
        clip = self.clips[index % len(self.clips)]
        paths = [entry.path for entry in os.scandir(clip)]
        drawn = np.sort(np.random.choice(len(paths), replace=True, size=2))
        frames = [_read_float(paths[index]) for index in drawn]
        frames = self._jitter(self._flip(frames))
        source, driving = (np.array(frame, np.float32).transpose(2, 0, 1) for frame in frames)
        return {"source": source, "driving": driving}

    def _flip(self, frames: list[NDArray[Any]]) -> list[NDArray[Any]]:
        if random.random() < self.data.time_flip:
            return frames[::-1]
        if random.random() < self.data.horizontal_flip:
            return [np.fliplr(frame) for frame in frames]
        return frames

    def _jitter(self, frames: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """In 8 bits by Pillow, and back to floats."""
        operations = _draw_operations(self.data)
        changed = []
        for frame in frames:
            image = Image.fromarray(np.rint(frame * 255).astype(np.uint8))
            for operation in operations:
                image = operation(image)
            changed.append((np.array(image) / 255).astype(np.float32))
        return changed


def _read_float(path: str) -> NDArray[np.float32]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(np.float32) / np.float32(255)


def _draw_operations(data: DataConfig) -> list[ImageOp]:
    def enhance(image: Image.Image, enhancer: Callable[[Image.Image], Any], factor: float) -> Image.Image:
        changed: Image.Image = enhancer(image).enhance(factor)
        return changed

    widths = {
        ImageEnhance.Brightness: data.brightness,
        ImageEnhance.Color: data.saturation,
        ImageEnhance.Contrast: data.contrast,
    }
    operations: list[ImageOp] = [
        functools.partial(enhance, enhancer=enhancer, factor=random.uniform(1 - width, 1 + width))
        for enhancer, width in widths.items()
    ]
    shift = random.uniform(-data.hue, data.hue)
    operations.append(functools.partial(_turn_hue, shift=shift))
    random.shuffle(operations)
    return operations


def _turn_hue(image: Image.Image, shift: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.array(shift * 255).astype(np.int64).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(turned, "L"), saturation, value)).convert("RGB")


CONTENDERS: dict[str, Callable[[Contest], AbstractContextManager[Run]]] = {
    "stream": our_stream,
    "shard_loader": shard_loader,
    "frame_folders": frame_folders,
}
"""(a), (b) and (c) by the names that the report gives them."""


def check_pair(source: Tensor, driving: Tensor, *, size: int) -> None:
    """Whether a batch is what every contender has to deliver."""
    assert source.shape == driving.shape == (len(source), 3, size, size), source.shape
    assert source.dtype == driving.dtype == torch.float32, source.dtype
    assert source.device.type == best_device().type, source.device
