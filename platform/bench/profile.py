"""`hdam bench data --profile`: what the time of the stream goes into, function by function."""

import cProfile
import io
import pstats
from pathlib import Path

import torch

from hdam.platform.animate import best_device
from hdam.platform.augmentation import augment, draw
from hdam.platform.bench.contenders import Contest
from hdam.platform.datasets import make_bundles, steps_per_bundle

SHOWN_FUNCTIONS = 25
BUNDLES = 4


def write_profile(contest: Contest, path: Path) -> None:
    """Profile the two halves of the stream one after the other, without Ray between them, and write what was found."""
    plan = contest.plan()
    bundle_steps = steps_per_bundle(contest.batch_size, plan.size)
    with cProfile.Profile() as making:
        bundles = list(make_bundles(plan, range(BUNDLES * bundle_steps), micro_batches=1, bundle_steps=bundle_steps))
    batches = [
        tuple(torch.from_numpy(frames) for frames in pair)
        for bundle in bundles
        for pair in zip(bundle["source"][0], bundle["driving"][0], strict=True)
    ]
    with cProfile.Profile() as changing:
        for source, driving in batches:
            frames = (source.to(best_device()), driving.to(best_device()))
            draws = draw(len(source), contest.data, generator=torch.Generator())
            augment(*frames, contest.data, draws)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    num_pairs = len(batches) * contest.batch_size
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {"reading and decoding, in a data task": making, "augmentation, in the worker": changing}
    path.write_text("\n".join(_table(title, part, num_pairs) for title, part in parts.items()), encoding="utf-8")


def _table(title: str, profile: cProfile.Profile, num_pairs: int) -> str:
    text = io.StringIO()
    stats = pstats.Stats(profile, stream=text)
    milliseconds = 1000 * stats.total_tt / num_pairs  # type: ignore[attr-defined]
    text.write(f"{title}: {num_pairs} pairs, {milliseconds:.2f} ms each (the profiler's own time among it)\n")
    stats.sort_stats("tottime").print_stats(SHOWN_FUNCTIONS)
    return text.getvalue()
