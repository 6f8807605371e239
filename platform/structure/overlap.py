"""How intermediate anchors lie to motion anchors over a split (supplementary, section 3), measured and told."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from hdam.models.model import MotionModel
from hdam.models.overlap import OVERLAP, Overlap, measure_overlap
from hdam.models.structure_scores import SIDE
from hdam.pipelines.errors import InputError
from hdam.pipelines.manifest import check_size, load_manifest
from hdam.platform.model_folder import LoadedModel
from hdam.platform.reports import plain_table
from hdam.platform.structure.report import describe, number_or_none, save_table
from hdam.platform.structure.truth import ClipFrames, read_frames


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlapRow:
    """One intermediate anchor over all pairs; lengths as shares of the image's side."""

    intermediate: int
    nearest: int
    """The motion anchor that is nearest most often."""
    nearest_share: float
    """How often it is."""
    distance: float
    """Mean distance to the nearest motion anchor of each driving frame."""
    overlap: float
    """Share of the pairs in which that one is nearer than the threshold in both images (eq. 6)."""
    residual: float | None
    """Mean residual of eq. (8); None where all attention is on the nearest one."""


@torch.no_grad()
def measure_dataset(
    loaded: LoadedModel,
    dataset: str,
    *,
    split: str = "test",
    num_frames: int = 16,
    threshold: float = OVERLAP / SIDE,
    on_clip: Callable[[int, int | None], None] = lambda done, total: None,  # noqa: ARG005
) -> list[OverlapRow]:
    """A row for each intermediate anchor; the pairs are the first frame of a clip and some later ones.

    `threshold` is a share of the image's side. Raises InputError for a model without intermediate anchors or with all
    motion anchors ignored, and for a dataset of another size or without clips.
    """
    model = loaded.model
    if not model.config.anchors.num_intermediate:
        raise InputError(f"{loaded.uri} is a {model.config.variant} without intermediate anchors; only HDAM has some")
    if len(set(model.config.ignored)) == model.config.anchors.num_motion:
        raise InputError(f"{loaded.uri}: all its motion anchors are abnormal, so none is attended")
    check_size(dataset, loaded.experiment.data.size)
    device, found = next(model.parameters()).device, []
    for frames in read_frames(dataset, split, num_frames=num_frames, device=device):
        found.append(_measure(model, frames, threshold=SIDE * threshold))
        on_clip(len(found), None)
    if not found:
        raise InputError(f"{dataset}: split '{split}' holds no clip of two frames")
    joined = Overlap(*(torch.cat(tensors).cpu() for tensors in zip(*found, strict=True)))
    return [_row(joined, index) for index in range(joined.nearest.shape[1])]


def show_overlap(rows: list[OverlapRow], console: Console, *, threshold: float) -> None:
    """The table, and what its columns mean."""
    columns = ("Intermediate", "Nearest", "Share", "Distance %", "Overlap", "Eq. 8 %")
    table = plain_table(*columns, right=columns)
    for row in rows:
        residual = "–" if row.residual is None else f"{100 * row.residual:.2f}"
        cells = (f"{row.nearest}", f"{row.nearest_share:.0%}", f"{100 * row.distance:.2f}", f"{row.overlap:.0%}")
        table.add_row(str(row.intermediate), *map(Text, (*cells, residual)))
    console.print(table)
    note = (
        f"Distance to the nearest motion anchor and residual of eq. (8) in % of the image's side; anchors overlap "
        f"that are nearer than {100 * threshold:g} % in both images."
    )
    console.print(Text(note), soft_wrap=True)


def save_overlap(
    loaded: LoadedModel, rows: list[OverlapRow], dataset: str, path: Path, *, threshold: float
) -> tuple[Path, Path]:
    """Write the JSON file `path`, and beside it the same as CSV; returns both."""
    manifest = load_manifest(dataset)
    values = [dataclasses.asdict(row) for row in rows]
    content = {
        **describe(loaded),
        "dataset": {"name": manifest.name, "fingerprint": manifest.fingerprint},
        "threshold": threshold,
        "intermediate": values,
    }
    return save_table(content, values, path)


def _measure(model: MotionModel, frames: ClipFrames, *, threshold: float) -> Overlap:
    driving = model.detect(frames.driving)
    source = model.detect(frames.source.expand(len(frames.driving), -1, -1, -1))
    attention = model.attend(driving)
    assert attention is not None, "a model with intermediate anchors attends to motion anchors"
    return measure_overlap(source, driving, attention, ignored=model.config.ignored, threshold=threshold)


def _row(found: Overlap, index: int) -> OverlapRow:
    votes = found.nearest[:, index].bincount()
    residual = found.residual[:, index].nanmean().item() / SIDE
    return OverlapRow(
        intermediate=index,
        nearest=int(votes.argmax()),
        nearest_share=(votes.max() / votes.sum()).item(),
        distance=found.distance[:, index].mean().item() / SIDE,
        overlap=found.is_overlap[:, index].float().mean().item(),
        residual=number_or_none(residual),
    )
