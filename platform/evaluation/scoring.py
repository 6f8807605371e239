"""One item of an evaluation, from reading the clip to its file of numbers and its video."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hdam.models.joint_metrics import FrameScores
from hdam.pipelines.shards import read_clip
from hdam.pipelines.video_writer import open_writer
from hdam.platform.evaluation.instruments import Instruments
from hdam.platform.evaluation.measure import Seen, measure
from hdam.platform.evaluation.metrics import METRICS
from hdam.platform.evaluation.painting import Frames, follow_itself, follow_other
from hdam.platform.evaluation.plan import EvaluationSettings, Item
from hdam.platform.evaluation.results import VIDEOS_DIR
from hdam.platform.evaluation.tables import FRAMES_DIR, frame_table, write_table
from hdam.platform.figures import cell_scale, image_from, tile
from hdam.platform.images import frames_to_images
from hdam.platform.model_folder import read_model
from hdam.platform.sharing.files import fetch_files
from hdam.platform.sharing.store import Place, patiently

MODEL_DIR = "model"
"""The model, until the evaluation is finished."""
LABELS = ("source", "driving", "result")


def make_scorer(
    dataset: str,
    settings: EvaluationSettings,
    metrics: Sequence[str],
    folder: Path,
    place: Place | None = None,
    *,
    may_use_gpu: bool = True,
) -> Callable[[Item], Item]:
    """What scores an item and writes it into `folder`: made once in every process, with the model that lies there.

    With a `place` in the shared store, the model is fetched from it, the item's files are uploaded, and this disk keeps
    none of them. Raises StoreError where the store is away for minutes, as what is made does.
    """
    device = torch.device("cuda" if may_use_gpu and torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)  # so that sums are rounded in the same way whatever else this machine does
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    with _at_hand(folder, place) as here:
        if place is not None:
            patiently(lambda: fetch_files(here / MODEL_DIR, place.folder(MODEL_DIR)))
        model, _ = read_model(here / MODEL_DIR)
    model.to(device)
    instruments = Instruments(device)

    def score(item: Item) -> Item:
        wanted = [METRICS[name] for name in metrics if item.protocol in METRICS[name].protocols]
        clip = read_clip(dataset, item.driving)
        driving = np.stack([clip.frame(number) for number in range(clip.num_frames)])
        source = driving[:1] if item.source == item.driving else read_clip(dataset, item.source).frame(0)[None]
        if item.protocol == "reconstruction":
            painted = follow_itself(model, driving)
        else:
            painted = follow_other(model, source[0], driving, mode=settings.cross_mode)
        truth = driving if item.protocol == "reconstruction" else None
        seen = Seen(result=painted.frames, source=source, truth=truth)
        scores = measure(seen, wanted, instruments, device=device)
        broken = torch.from_numpy(~painted.is_sound)
        told = {name: _with_broken(found, broken) for name, found in scores.items()}
        video, frames = files_of(item)
        with _at_hand(folder, place) as here:
            _write_video(here / video, seen, driving, fps=clip.fps)
            write_table(here / frames, frame_table(item, told, metrics))
            for name in (video, frames) if place is not None else ():
                patiently(lambda name=name: place.put(here / name, name))  # type: ignore[misc, union-attr]
        return item

    return score


@contextmanager
def _at_hand(folder: Path, place: Place | None) -> Iterator[Path]:
    """Where this process reads and writes: `folder`, or with a store a folder that goes when it has done so."""
    if place is None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="hdam-evaluation-") as own:
        yield Path(own)


def files_of(item: Item) -> tuple[str, str]:
    """The video and the table of an item, within the folder of an evaluation; the table is written last."""
    return f"{VIDEOS_DIR}/{item.name}.mp4", f"{FRAMES_DIR}/{item.name}.parquet"


def _with_broken(scores: FrameScores, is_broken: Tensor) -> FrameScores:
    """A frame that is no picture has no number, rather than that of the picture that a file would hold."""
    return FrameScores(scores.value.masked_fill(is_broken, torch.nan), scores.is_measured | is_broken)


def _write_video(path: Path, seen: Seen, driving: Frames, *, fps: float) -> None:
    """Source, driving and result side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = (
        _side_by_side(seen.source[0], driving_frame, result_frame)
        for driving_frame, result_frame in zip(driving, seen.result, strict=True)
    )
    first = next(pictures)
    with open_writer(path, fps=fps, size=(first.shape[0], first.shape[1])) as writer:
        for picture in chain([first], pictures):
            writer.write(picture)


def _side_by_side(*frames: Frames) -> Frames:
    images = frames_to_images(np.stack(frames), torch.device("cpu"))
    scale = cell_scale(images)
    return np.asarray(tile([[image_from(image, scale=scale) for image in images]], labels=LABELS))
