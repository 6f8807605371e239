"""The charts of a comparison; a model has the same colour and marker in all of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hdam.platform.compare.clips import ByClip
from hdam.platform.compare.entrants import Entrant, shorten
from hdam.platform.compare.scores import MetricScore
from hdam.platform.compare.table import title_of
from hdam.platform.evaluation.metrics import Metric, Protocol
from hdam.platform.evaluation.tables import PER_FRAME_NAME, read_table
from hdam.platform.pages.charts import INK, draw_grid, new_chart, series, to_svg
from hdam.platform.pages.page import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SCATTERED = 4
"""Models that are held against the first one clip by clip."""
LONGEST_LABEL = 44
"""Letters over a mean."""
LEAST_SHARE = 0.5
"""Of the clips must still run where the mean over them is drawn."""


def plot_means(score: MetricScore, labels: Sequence[str]) -> Chart:
    """Each model's mean as a dot on its interval."""
    with new_chart(3.7, 0.5 + 0.45 * len(labels)) as (figure, axes):
        for row, (label, each) in enumerate(zip(labels, score.models, strict=True)):
            look = series(row)
            told = shorten(label, LONGEST_LABEL) + (f": {each.reason}" if each.mean is None else "")
            axes.text(0, row - 0.3, told, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
            if each.mean is None:
                continue
            if each.interval is not None:
                axes.plot(each.interval, [row, row], color=look.light, linewidth=2.5, solid_capstyle="butt", alpha=0.6)
            axes.plot([each.mean], [row], look.marker, color=look.light, markersize=7)
        axes.set_yticks([])
        axes.set_ylim(len(labels) - 0.6, -0.6)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=5)
        draw_grid(axes, "x")
        title = title_of(score.metric) + (", across identities" if score.protocol == "cross" else "")
        means = [f"{label} {mean:.{score.metric.decimals}f}" for label, mean in _means(score, labels)]
        name = f"means-{score.protocol}-{score.metric.name}"
        return Chart(svg=to_svg(figure, name=name, description=f"{title}: {', '.join(means)}"), title=title)


def plot_clips(by_clip: ByClip, metric: Metric, labels: Sequence[str], shown: Mapping[str, int]) -> list[Chart]:
    """Every clip as a dot: the first model's mean against another one's; `shown` clips bear their number."""
    charts = []
    for place in range(1, min(len(labels), 1 + MOST_SCATTERED)):
        values = np.array([[each[0], each[place]] for each in by_clip.values()])
        better = values[:, 1] < values[:, 0] if metric.better == "lower" else values[:, 1] > values[:, 0]
        told = f"{labels[place]} is better in {int(better.sum())} of {len(values)} clips"
        with new_chart(3.7, 3.5) as (figure, axes):
            _scatter(axes, values, place)
            for clip_id in shown.keys() & by_clip.keys():
                spot = by_clip[clip_id][0], by_clip[clip_id][place]
                axes.annotate(str(shown[clip_id]), spot, xytext=(5, 4), textcoords="offset points", fontsize=9)
            axes.set_xlabel(_axis_name(metric, labels[0]))
            axes.set_ylabel(_axis_name(metric, labels[place]))
            name, description = f"clips-{metric.name}-{place}", f"{metric.title} clip by clip: {told}"
            svg = to_svg(figure, name=name, description=description)
        charts.append(Chart(svg=svg, title=f"{labels[place]} against {labels[0]}", caption=f"{told}."))
    return charts


def plot_course(entrants: Sequence[Entrant], protocol: Protocol, metric: Metric) -> Chart | None:
    """The mean over clips by frame number, which shows drift; None where nothing was measured."""
    courses = [course(each, protocol, metric.name) for each in entrants]
    if not any(len(each) for each in courses):
        return None
    with new_chart(5.2, 3.0) as (figure, axes):
        for place, (each, values) in enumerate(zip(entrants, courses, strict=True)):
            look = series(place)
            step = max(1, len(values) // 12)
            axes.plot(
                values, color=look.light, marker=look.marker, markevery=step, markersize=5, label=shorten(each.label)
            )
        if metric.name == "l1":
            still = course(entrants[0], protocol, "repeat_l1")
            axes.plot(still, color=INK, alpha=0.6, linestyle=(0, (4, 3)), linewidth=1.2, label="repeating the source")
        axes.set_xlabel("frame of the clip")
        axes.set_ylabel(_axis_name(metric))
        axes.margins(x=0.01)
        axes.locator_params(nbins=6)
        draw_grid(axes, "y")
        figure.legend(loc="outside upper left", ncols=2, fontsize=9, handlelength=2.2)
        title = f"{metric.title} over time"
        svg = to_svg(figure, name=f"course-{metric.name}", description=f"{title}, mean over clips by frame number")
        return Chart(svg=svg, title=title)


def course(entrant: Entrant, protocol: Protocol, name: str) -> NDArray[np.float64]:
    """The mean over clips of every frame number that at least half of the clips reach; NaN where none was measured."""
    table = read_table(entrant.folder / PER_FRAME_NAME)
    if name not in table.column_names:
        return np.empty(0)
    rows = [
        (row["frame"], row[name])
        for row in table.select(["protocol", "frame", name]).to_pylist()
        if row["protocol"] == protocol
    ]
    if not rows:
        return np.empty(0)
    frames = np.array([frame for frame, _ in rows])
    values = np.array([np.nan if value is None else value for _, value in rows], float)
    running = np.bincount(frames)
    length = int(np.flatnonzero(running >= LEAST_SHARE * running.max())[-1]) + 1
    measured = np.isfinite(values)
    totals = np.bincount(frames[measured], values[measured], minlength=len(running))
    counts = np.bincount(frames[measured], minlength=len(running))
    with np.errstate(invalid="ignore"):
        return (totals / counts)[:length]


def _scatter(axes: "Axes", values: NDArray[np.float64], place: int) -> None:
    """Dots of the first model against that of number `place`, on axes that are the same for both."""
    low, high = values.min(), values.max()
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=INK, linewidth=0.8, alpha=0.5)
    axes.plot(*values.T, series(place).marker, color=series(place).light, markersize=5, alpha=0.75)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.locator_params(nbins=5)
    draw_grid(axes, "both")


def _means(score: MetricScore, labels: Sequence[str]) -> list[tuple[str, float]]:
    return [(label, each.mean) for label, each in zip(labels, score.models, strict=True) if each.mean is not None]


def _axis_name(metric: Metric, label: str = "") -> str:
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.title}{unit}" + (f", {shorten(label)}" if label else "")
