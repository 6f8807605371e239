"""Which metrics are measured: those that are asked for, or all for which there is what they need."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hdam.pipelines.errors import InputError
from hdam.platform.evaluation.instruments import Availability, available_instruments
from hdam.platform.evaluation.metrics import METRICS, Instrument, Metric
from hdam.platform.evaluation.plan import EvaluationSettings
from hdam.platform.evaluation.results import Missing


class Choice(NamedTuple):
    """The metrics of an evaluation."""

    names: list[str]
    """In the order of the tables."""
    instruments: Mapping[str, str]
    """By metric, name and version of what it looks through."""
    missing: Sequence[Missing]
    """Those left out, and why; never one that was asked for."""


def choose_metrics(settings: EvaluationSettings, *, size: int) -> Choice:
    """The metrics of the settings' protocols for frames of `size` pixels.

    Raises InputError for an unknown name, and for a metric that is asked for and cannot be measured.
    """
    for name in settings.metrics:
        if name not in METRICS:
            raise InputError(f"--metrics {name}: no such metric; there are {', '.join(METRICS)}")
    here = available_instruments()
    names, instruments, missing = [], {}, []
    for metric in METRICS.values():
        if settings.metrics and metric.name not in settings.metrics:
            continue
        if not set(metric.protocols) & set(settings.protocols):
            if settings.metrics:
                raise InputError(f"--metrics {metric.name}: needs --protocol {metric.protocols[0]}")
            continue
        lack = _lack(metric, here, size)
        if lack is None:
            names.append(metric.name)
            if metric.instrument is not None:
                instruments[metric.name] = here[metric.instrument].version
        elif settings.metrics:
            raise InputError(f"--metrics {metric.name}: {lack.reason}; {lack.remedy}")
        else:
            missing.append(lack)
    if not names:
        raise InputError("none of the metrics can be measured; see hdam detectors list and hdam weights list")
    return Choice(names, instruments, missing)


def _lack(metric: Metric, here: Mapping[Instrument, Availability], size: int) -> Missing | None:
    """What a metric lacks; None where it can be measured."""
    if size < metric.least_side:
        return Missing(
            metric=metric.name,
            reason=f"frames of {size} pixels are too small",
            remedy=f"prepare with --size {metric.least_side} or more",
        )
    if metric.instrument is None or not here[metric.instrument].reason:
        return None
    found = here[metric.instrument]
    return Missing(metric=metric.name, reason=found.reason, remedy=f"get it: {found.remedy}")
