"""What an evaluation consists of: one item for every clip and protocol."""

from dataclasses import dataclass
from typing import NamedTuple

from hdam.models.animation import Mode
from hdam.pipelines.errors import InputError
from hdam.pipelines.seeds import stable_hash
from hdam.pipelines.shards import ClipPlace, find_clips
from hdam.platform.evaluation.metrics import BOTH, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """What is evaluated; other settings give another evaluation."""

    split: str = "test"
    protocols: tuple[Protocol, ...] = BOTH
    metrics: tuple[str, ...] = ()
    """Names; empty: all for which there is what they need."""
    cross_mode: Mode = "relative"
    """How the source of another identity follows the clip."""
    seed: int = 0
    """Decides which identity follows which clip."""
    max_clips: int | None = None
    """Only so many clips, chosen by the seed; None: all."""


class Item(NamedTuple):
    """A clip that is followed."""

    protocol: Protocol
    driving: ClipPlace
    source: ClipPlace
    """The clip whose frame 0 follows."""

    @property
    def name(self) -> str:
        """Unique among the items; a relative path without a suffix."""
        return f"{self.protocol}/{self.driving.clip_id}"


def plan_items(dataset: str, settings: EvaluationSettings) -> list[Item]:
    """The items of all protocols, clips in the order of their ids.

    Raises InputError where the split holds no clip, or where clips of a single identity shall follow each other and
    nothing else is asked for.
    """
    clips = find_clips(dataset, settings.split)
    if not clips:
        raise InputError(f"{dataset}: split '{settings.split}' holds no clip; prepare with a larger --test-share")
    chosen = _choose(clips, settings)
    items = [Item("reconstruction", clip, clip) for clip in chosen if "reconstruction" in settings.protocols]
    if "cross" in settings.protocols:
        items += [Item("cross", clip, source) for clip in chosen if (source := _partner(clip, clips, settings.seed))]
    if not items:
        raise InputError(
            f"{dataset}: split '{settings.split}' shows {clips[0].identity} alone, and --protocol cross needs two "
            "identities; evaluate with --protocol reconstruction, or prepare with a larger --test-share"
        )
    return items


def _choose(clips: list[ClipPlace], settings: EvaluationSettings) -> list[ClipPlace]:
    if settings.max_clips is None:
        return clips
    shuffled = sorted(clips, key=lambda clip: stable_hash("evaluated clip", settings.seed, clip.clip_id))
    return sorted(shuffled[: settings.max_clips], key=lambda clip: clip.clip_id)


def _partner(clip: ClipPlace, clips: list[ClipPlace], seed: int) -> ClipPlace | None:
    """A clip of another identity; None where there is none."""
    others = [other for other in clips if other.identity != clip.identity]
    return others[stable_hash("cross source", seed, clip.clip_id) % len(others)] if others else None
