"""The charts of a sweep; where trials are lines, finished ones have the colour of their rank, others the text's."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.lines import Line2D

from hdam.platform.pages.charts import INK, PAPER, SERIES, draw_grid, new_chart, series, to_svg
from hdam.platform.pages.page import Chart
from hdam.platform.tune.differences import pooled_spread
from hdam.platform.tune.importance import Importance
from hdam.platform.tune.records import TrialRecord
from hdam.platform.tune.report import SweepReport, rounded, short_names
from hdam.platform.tune.scale import Scale, scale_of, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RAMP = LinearSegmentedColormap.from_list("good-to-bad", [SERIES[0].light, "#8a7f94", SERIES[1].light])
"""All of it is seen on light and on dark pages, also by who does not tell red from green."""
WIDTH = 7.0
LETTERS_PER_INCH = 13
"""Of tick labels, about."""
JITTER = 0.03
"""Of an axis: how far trials with the same value are set apart."""
GOLDEN = 0.618034


class Look(NamedTuple):
    """How trials that ended this way are drawn."""

    label: str
    line: Any
    marker: str


LOOKS: Mapping[str, Look] = {
    "stopped": Look("stopped early", (0, (5, 2)), "s"),
    "failed": Look("failed", (0, (1, 1.5)), "x"),
    "finished": Look("finished without the metric", (0, (3, 2, 1, 2)), "+"),
}
NOT_ENDED = Look("not ended", (0, (2, 3)), "d")
"""Of all but those with a metric."""


def plot_setting(report: SweepReport, name: str) -> Chart:
    """The metric against one setting: all finished trials, and the mean of every value with the spread over seeds."""
    metric, scale = report.sweep.metric, scale_of(_settings(report, name), report.space[name])
    with new_chart(3.7, 2.9) as (figure, axes):
        for number, seed in enumerate(seeds_told_apart(report)):
            scored = [(trial, value) for trial, value in _with_metric(report) if seed in (trial.seed, None)]
            axes.plot(
                [scale.place(trial.settings[name]) + _jitter(trial, scale) for trial, _ in scored],
                [value for _, value in scored],
                series(number).marker,
                color=series(number).light,
                markersize=5,
                alpha=0.7,
                label=f"seed {seed}",
            )
        for trial in _without_metric(report):
            place = scale.place(trial.settings[name]) + _jitter(trial, scale)
            axes.plot([place], [1.04], transform=axes.get_xaxis_transform(), clip_on=False, **_mark(trial))
        if len(seeds_told_apart(report)) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=len(SERIES), fontsize=9)
        means = _means(report, name, scale)
        for value, mean, spread in means:
            axes.errorbar(
                [scale.place(value)], [mean], [spread], marker="_", markersize=16, color=INK, linewidth=1.6, capsize=4
            )
        axes.set_xlim(-0.1, 1.1)
        width = round(3.0 * LETTERS_PER_INCH / max(len(scale.ticks), 1)) - 1
        axes.set_xticks([place for place, _ in scale.ticks], [wrapped(label, width) for _, label in scale.ticks])
        axes.set_ylabel(metric)
        axes.locator_params(axis="y", nbins=5)
        draw_grid(axes, "y")
        told = ", ".join(f"{rounded(value)}: {rounded(mean)}" for value, mean, _ in means)
        svg = to_svg(figure, name=f"setting-{_id(name)}", description=f"{metric} by {name}; means: {told}")
    return Chart(svg=svg, title=name, caption="Logarithmic axis." if scale.kind == "log" else "")


def seeds_told_apart(report: SweepReport) -> tuple[int | None, ...]:
    """Those that have a colour each; None, which stands for all, where there is one or there are too many."""
    seeds = report.sweep.seeds
    return seeds if 1 < len(seeds) <= len(SERIES) else (None,)


def plot_parallel(report: SweepReport) -> Chart | None:
    """Every trial as a line through its settings, to its metric where it has one; None where a line has no length."""
    scores = {trial.number: value for trial, value in _with_metric(report)}
    scales = [scale_of(_settings(report, name), report.space[name]) for name in report.searched]
    if scores:
        scales.append(scale_of(scores.values()))
    if len(scales) < 2:
        return None
    with new_chart(WIDTH, 3.9) as (figure, axes):
        for trial, look in _worst_first(report):
            values = [*(trial.settings[name] for name in report.searched), scores.get(trial.number)]
            places = [
                scale.place(value) + _jitter(trial, scale)
                for scale, value in zip(scales, values, strict=False)
                if value is not None or scale.kind == "listed"
            ]
            axes.plot(places, markevery=[-1], **look)
        names = [*short_names(report.searched), report.sweep.metric][: len(scales)]
        _draw_scales(axes, scales, names)
        axes.set_axis_off()
        axes.set_xlim(-0.25, len(scales) - 0.45)
        axes.set_ylim(-0.06, 1.04)
        _draw_legend(figure, report)
        description = f"{len(report.trials)} trials over {', '.join(names)}"
        return Chart(svg=to_svg(figure, name="parallel", description=description), title="All trials")


def plot_courses(report: SweepReport) -> Chart | None:
    """What was watched while the trials trained; None where no trial has told it twice."""
    if not any(len(trial.history) > 1 for trial in report.trials):
        return None
    with new_chart(WIDTH, 3.7) as (figure, axes):
        for trial, look in _worst_first(report):
            if trial.history:
                axes.plot(*zip(*trial.history, strict=True), markevery=[-1], **look)
        axes.set_xlabel("step")
        axes.set_ylabel(report.sweep.watched)
        axes.margins(x=0.02)
        axes.locator_params(axis="x", integer=True)
        draw_grid(axes, "y")
        _draw_legend(figure, report)
        title = f"{report.sweep.watched} of every trial"
        return Chart(svg=to_svg(figure, name="courses", description=f"{title}, by training step"), title=title)


def plot_importances(found: Mapping[str, Importance]) -> Chart:
    """A bar for every setting, and a mark where chance ends."""
    with new_chart(5.2, 0.55 + 0.5 * len(found)) as (figure, axes):
        for row, (name, each) in enumerate(found.items()):
            axes.text(0, row - 0.36, name, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
            axes.barh([row], [each.share], height=0.32, color=series(0).light)
            axes.plot([each.chance] * 2, [row - 0.24, row + 0.24], color=INK, linewidth=2)
        axes.set_yticks([])
        axes.set_ylim(len(found) - 0.55, -0.6)
        axes.set_xlim(0, 1.05 * max(1.0, *(each.chance for each in found.values())))
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("share of the importance of all settings")
        draw_grid(axes, "x")
        told = ", ".join(f"{name} {each.share:.2f}" for name, each in found.items())
        return Chart(
            svg=to_svg(figure, name="importance", description=f"Importance: {told}"), title="Share of each setting"
        )


def _settings(report: SweepReport, name: str) -> list[Any]:
    return [trial.settings[name] for trial in report.trials]


def _id(name: str) -> str:
    """For use as an id in the page."""
    return name.replace(".", "-")


def _means(report: SweepReport, name: str, scale: Scale) -> list[tuple[Any, float, float]]:
    """Values that more than one finished trial has, their means, and spreads over seeds (0 where there is none)."""
    if report.sweep.scheduler == "pbt":
        return []  # trials had other values on the way
    found = []
    rows = [row for row in report.rows if row.values]
    for place in sorted({scale.place(row.settings[name]) for row in rows}):
        same = [row for row in rows if scale.place(row.settings[name]) == place]
        values, spread = [value for row in same for value in row.values], pooled_spread(same)
        if len(values) > 1:
            found.append((same[0].settings[name], statistics.fmean(values), 0.0 if math.isnan(spread) else spread))
    return found


def _worst_first(report: SweepReport) -> Iterator[tuple[TrialRecord, dict[str, Any]]]:
    """All trials and their looks, so that good ones are drawn over bad ones, and over those without a metric."""
    alpha = max(0.3, min(0.9, 12 / len(report.trials)))
    for trial in _without_metric(report):
        yield trial, {**_mark(trial), "linestyle": _look(trial).line, "linewidth": 1.2, "alpha": 0.6 * alpha}
    ranked = sorted(_with_metric(report), key=lambda pair: pair[1], reverse=report.sweep.mode == "max")
    for rank, (trial, _) in reversed([*enumerate(ranked)]):
        share = rank / max(len(ranked) - 1, 1)
        is_best = rank == 0
        width, opacity = (2.6, 1.0) if is_best else (1.4, alpha)
        yield trial, {"color": to_hex(RAMP(share)), "linewidth": width, "alpha": opacity}


def _with_metric(report: SweepReport) -> list[tuple[TrialRecord, float]]:
    values = [(trial, trial.value(report.sweep.metric)) for trial in report.trials]
    return [(trial, value) for trial, value in values if value is not None]


def _without_metric(report: SweepReport) -> list[TrialRecord]:
    return [trial for trial in report.trials if trial.value(report.sweep.metric) is None]


def _look(trial: TrialRecord) -> Look:
    return LOOKS.get(trial.status, NOT_ENDED)


def _mark(trial: TrialRecord) -> dict[str, Any]:
    return {
        "color": INK,
        "marker": _look(trial).marker,
        "markersize": 4.5,
        "markerfacecolor": "none",
        "linestyle": "none",
        "alpha": 0.6,
    }


def _jitter(trial: TrialRecord, scale: Scale) -> float:
    """A little to the side, so that trials with the same value are told apart; 0 where values are not listed."""
    return JITTER * ((trial.number * GOLDEN) % 1 - 0.5) * 2 if scale.values else 0.0


def _draw_scales(axes: "Axes", scales: Sequence[Scale], names: Sequence[str]) -> None:
    """Upright axes with their names above and their ticks to the right."""
    letters = round(WIDTH * LETTERS_PER_INCH / (len(scales) + 0.5)) - 2
    for place, (scale, name) in enumerate(zip(scales, names, strict=True)):
        axes.plot([place, place], [0, 1], color=INK, linewidth=0.8, alpha=0.6)
        axes.text(place, 1.08, wrapped(name, letters), ha="center", va="bottom", fontsize=9)
        for height, label in scale.ticks:
            axes.plot([place - 0.04, place], [height] * 2, color=INK, linewidth=0.8)
            plate = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
            axes.text(place + 0.05, height, wrapped(label, letters), va="center", fontsize=8, bbox=plate, zorder=5)


def _draw_legend(figure: "Figure", report: SweepReport) -> None:
    """Which line means what, of those that are there."""
    num_finished = len(_with_metric(report))
    handles = [Line2D([], [], color=to_hex(RAMP(0.0)), linewidth=2.6, label="best")] if num_finished else []
    if num_finished > 1:
        handles.append(Line2D([], [], color=to_hex(RAMP(1.0)), linewidth=1.4, label="worst finished"))
    for look in dict.fromkeys(map(_look, _without_metric(report))):
        handles.append(Line2D([], [], color=INK, alpha=0.6, linestyle=look.line, marker=look.marker, markersize=4.5))
        handles[-1].set(label=look.label, markerfacecolor="none")
    figure.legend(handles=handles, loc="outside upper left", ncols=5, fontsize=9, handlelength=2.6)
