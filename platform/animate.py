"""Make a still image move like a driving video: streamed frame by frame, so that any length fits in memory.

The default mode is `relative`: the source keeps its own pose and shape and takes over the *change* since the first
driving frame, which is what people expect of faces and of anything that begins in about the same pose. `absolute`,
the default of the published demonstrations, puts every anchor where the driving video has it: right where source and
driving show the same object, or objects of the same build, in any pose. `avd`, for models
with an AVD network, lets the source take the driving pose and keep its own build.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdam.models.animation import Animator, Mode
from hdam.models.model import MotionModel
from hdam.models.structures import Transfer
from hdam.pipelines.errors import InputError
from hdam.pipelines.frame_codec import Pixels
from hdam.pipelines.media import WHITE, Media, open_media, read_frames, read_image
from hdam.pipelines.transform import cut, square_window
from hdam.pipelines.video_writer import FrameWriter, open_writer
from hdam.platform.figures import cell_scale, draw_structure, image_from, save_picture, tile
from hdam.platform.images import frames_to_images
from hdam.platform.model_folder import LoadedModel

NUM_PICTURES = 6
"""Moments in the structure picture."""
CELL_PIXELS = 256
"""Least width of one frame where anchors are drawn."""
LABELS = ("source", "driving", "result")


class AnimateReport(NamedTuple):
    """What was written."""

    out: Path
    structure: tuple[Path, ...]
    """Video and picture of the anchors; empty where they were not asked for."""
    grid: Path | None
    """Source, driving and result side by side."""
    num_frames: int
    fps: float
    seconds: float


class Moment(NamedTuple):
    """One driving frame and what became of it; images are [1, 3, size, size] in 0…1."""

    source: Tensor
    driving: Tensor
    transfer: Transfer


class View(NamedTuple):
    """Pictures of a moment that stand side by side."""

    draw: Callable[[Moment], list[Image.Image]]
    labels: tuple[str, ...] = LABELS
    """One over each picture; a single picture goes without."""

    def joined(self, moment: Moment) -> Image.Image:
        """All of them as one picture."""
        pictures = self.draw(moment)
        return pictures[0] if len(pictures) == 1 else tile([pictures], labels=self.labels)


def animate(
    loaded: LoadedModel,
    *,
    source: Path,
    driving: Path,
    out: Path,
    mode: Mode = "relative",
    structure: bool = False,
    grid: bool = False,
    on_frame: Callable[[int, int | None], None] | None = None,
) -> AnimateReport:
    """Write to `out` (`.mp4`, `.gif`, or no suffix for a folder of PNGs) the image `source` moving like `driving`.

    Both are cut to the square in their middle and resized to the model's size. The driving video's fps are kept, its
    audio in an mp4. `structure` adds `<out>_structure` as video and picture, `grid` adds `<out>_grid`. `on_frame`
    hears how many frames are done, and of how many, where the driving file says.
    Raises InputError for what cannot be read or written, and where an output would overwrite an input; nothing is
    left half-written.
    """
    started = time.monotonic()
    _check_names(out, inputs=(source, driving), has_structure=structure, has_grid=grid)
    if mode == "avd" and loaded.model.avd is None:
        raise InputError(f"--mode avd: {loaded.uri} has no AVD network; train one with model.has_avd: true")
    still, media = read_still(source, loaded), open_media(driving)
    views: dict[Path, View] = {out: View(_result_view)}
    if grid:
        views[_beside(out, "grid")] = View(_grid_view)
    picture = None
    if structure:
        views[_beside(out, "structure")] = view = _structure_view(loaded.model, still)
        picture = MomentPicture(view)
    images = (as_image(frame, size=loaded.experiment.data.size, device=still.device) for frame in read_frames(driving))
    stream = counted(moments(loaded.model, still, images, mode=mode), media.num_frames, on_frame)
    num_frames = write_views(stream, views, media=media, pictures=[picture] if picture else [])
    drawn = () if picture is None else (_beside(out, "structure"), picture.save(_picture_path(out)))
    seen = _beside(out, "grid") if grid else None
    seconds = time.monotonic() - started
    return AnimateReport(out=out, structure=drawn, grid=seen, num_frames=num_frames, fps=media.fps, seconds=seconds)


class MomentPicture:
    """A few moments, evenly spread over a video whose length nobody knows: when full, every other one is dropped."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._kept: list[list[Image.Image]] = []
        self._stride = 1
        self._count = 0

    def add(self, moment: Moment) -> None:
        """Consider the next moment."""
        if self._count % self._stride == 0:
            self._kept.append(self._view.draw(moment))
            if len(self._kept) > 2 * NUM_PICTURES:
                self._kept, self._stride = self._kept[::2], 2 * self._stride
        self._count += 1

    def save(self, path: Path) -> Path:
        """Write the moments to `path`, one below the other; returns `path`."""
        chosen = np.linspace(0, len(self._kept) - 1, min(NUM_PICTURES, len(self._kept))).round().astype(int)
        save_picture(tile([self._kept[number] for number in chosen], labels=self._view.labels), path)
        return path


def moments(model: MotionModel, still: Tensor, images: Iterable[Tensor], *, mode: Mode) -> Iterator[Moment]:
    """One moment per driving image, one in memory at a time; all images are [1, 3, size, size] in 0…1."""
    animator = Animator(model, still, mode=mode)
    for image in images:
        yield Moment(source=still, driving=image, transfer=animator.frame(image))


def read_still(path: Path, loaded: LoadedModel) -> Tensor:
    """The image at `path` as the model takes it, on the model's device. Raises InputError when it is no image."""
    device = next(loaded.model.parameters()).device
    return as_image(read_image(path), size=loaded.experiment.data.size, device=device)


def as_image(frame: Pixels, *, size: int, device: torch.device) -> Tensor:
    """The square in the middle of `frame` (uint8 [height, width, 3]) as [1, 3, size, size] in 0…1."""
    height, width = frame.shape[:2]
    window = square_window((height, width), crop=None, fit="crop")
    return frames_to_images(cut(frame, window, size=size, background=WHITE)[None], device)


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def write_views(
    stream: Iterable[Moment], views: Mapping[Path, View], *, media: Media, pictures: Sequence[MomentPicture]
) -> int:
    """Write every view of every moment, and offer each moment to `pictures`; returns how many moments there were."""
    count = 0
    with ExitStack() as stack:
        sinks: dict[Path, FrameWriter] = {}
        for moment in stream:
            count += 1
            for path, view in views.items():
                frame = np.asarray(view.joined(moment))
                if path not in sinks:  # the first frame tells a view's size
                    size = (frame.shape[0], frame.shape[1])
                    sinks[path] = stack.enter_context(
                        open_writer(path, fps=media.fps, size=size, audio_from=media.path)
                    )
                sinks[path].write(frame)
            for picture in pictures:
                picture.add(moment)
    return count


def counted(
    stream: Iterable[Moment], total: int | None, on_frame: Callable[[int, int | None], None] | None
) -> Iterator[Moment]:
    """The same moments; `on_frame` hears how many are done, and of how many."""
    for count, moment in enumerate(stream, start=1):
        yield moment
        if on_frame is not None:
            on_frame(count, total)


def _check_names(out: Path, *, inputs: tuple[Path, ...], has_structure: bool, has_grid: bool) -> None:
    """InputError where `out` names no file, or a file that would be written is an input under whatever name."""
    if not out.name:
        raise InputError(f"--out {out} names no file; expected a name such as result.mp4")
    written = [out]
    written += [_beside(out, "structure"), _picture_path(out)] if has_structure else []
    written += [_beside(out, "grid")] if has_grid else []
    for path in written:
        for given in inputs:
            if path.resolve() == given.resolve():
                raise InputError(f"--out {out} would overwrite the input {given} with {path}; choose another name")


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.stem}_{what}{out.suffix}")


def _picture_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}_structure.png")


def _result_view(moment: Moment) -> list[Image.Image]:
    return [image_from(moment.transfer.image[0])]


def _grid_view(moment: Moment) -> list[Image.Image]:
    scale = cell_scale(moment.source, pixels=CELL_PIXELS)
    images = (moment.source, moment.driving, moment.transfer.image)
    return [image_from(image[0], scale=scale) for image in images]


@torch.no_grad()
def _structure_view(model: MotionModel, still: Tensor) -> View:
    """Source, driving frame and result, each with its anchors."""
    scale, ignored = cell_scale(still, pixels=CELL_PIXELS), model.config.ignored
    tree = model.detect(still)
    first = draw_structure(still[0], tree, attention=model.attend(tree), ignored=ignored, scale=scale)

    @torch.no_grad()
    def view(moment: Moment) -> list[Image.Image]:
        # In relative mode the transfer holds the moved anchors; those of the driving frame itself are detected anew.
        seen = model.detect(moment.driving)
        moved = moment.transfer.driving._replace(intermediate=None, root=None)
        second = draw_structure(moment.driving[0], seen, attention=model.attend(seen), ignored=ignored, scale=scale)
        third = draw_structure(moment.transfer.image[0], moved, ignored=ignored, scale=scale)
        return [first, second, third]

    return View(view)
