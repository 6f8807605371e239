"""Metrics and pictures on their way to MLflow, on disk until it has them, so that neither its absence nor a killed
process costs any.

FOLDER/
  unsent.jsonl        what MLflow did not take yet, one JSON object a line, the oldest first; gone when all is sent
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hdam.pipelines.errors import first_line
from hdam.platform.tracking import cause_of, masked, tracking_uri

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from PIL.Image import Image

LOG = logging.getLogger("hdam")

UNSENT_NAME = "unsent.jsonl"
SECONDS_BETWEEN_FLUSHES = 5.0
SECONDS_AFTER_OUTAGE = 15.0
MOST_KEPT_METRICS = 200_000
METRICS_AT_ONCE = 1000


class _Metric(NamedTuple):
    metric: str
    value: float
    time: int
    step: int


class _Picture(NamedTuple):
    picture: str
    time: int
    step: int


_Item = _Metric | _Picture


class Outbox:
    """Sends the metrics and pictures of a run in batches, each kind in its order; keeps what MLflow does not take.

    What a killed process left in `folder` goes first. NaN arrives as NaN, and infinity as the largest number there
    is: MLflow's databases know none. A metric that is sent twice, because the answer was lost, is there once.
    """

    def __init__(
        self, client: "MlflowClient", run_id: str, *, folder: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._clock = clock
        self._file = _UnsentFile(folder / UNSENT_NAME)
        self._metrics, self._pictures = self._file.read()
        self._next_flush = 0.0
        self._is_away = False
        self._num_late = 0

    @property
    def num_kept(self) -> int:
        """Metrics and pictures that wait to be sent."""
        return len(self._metrics) + len(self._pictures)

    def add(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Take the metrics of a step, and send what waits every few seconds."""
        now = _milliseconds()
        new = [_Metric(name, float(value), now, step) for name, value in metrics.items()]
        self._metrics += new
        del self._metrics[:-MOST_KEPT_METRICS]
        self._take(new)

    def add_picture(self, path: Path, *, step: int) -> None:
        """Take a picture, which stays where it is until it is sent."""
        picture = _Picture(str(path.absolute()), _milliseconds(), step)
        self._pictures.append(picture)
        self._take([picture])

    def flush(self) -> None:
        """Send what waits; a failure is told once per outage."""
        from mlflow.exceptions import MlflowException

        try:
            self.send()
        except (MlflowException, OSError) as error:
            self._tell_outage(error)

    def send(self) -> None:
        """Send what waits; the first failure ends it and is raised: MlflowException or OSError. The rest is kept."""
        from mlflow.exceptions import MlflowException

        self._next_flush = self._clock() + SECONDS_BETWEEN_FLUSHES
        try:
            self._send_metrics()
            self._send_pictures()
        except (MlflowException, OSError):
            self._next_flush = self._clock() + SECONDS_AFTER_OUTAGE
            self._file.replace([*self._metrics, *self._pictures])
            raise
        self._end_outage()

    def close(self) -> None:
        """Send what waits for the last time, and tell what MLflow did not take."""
        self.flush()
        if not self.num_kept:
            return
        if self._file.is_complete:
            LOG.warning(
                "MLflow did not take the last %d metrics and pictures; they are in %s, "
                "and the same command sends them next time",
                self.num_kept,
                self._file.path,
            )
        else:
            LOG.warning("the last %d metrics and pictures are lost to MLflow", self.num_kept)

    def _take(self, new: Sequence[_Item]) -> None:
        self._file.append(new)  # first of all: the process may be killed before it sends them
        if self._clock() >= self._next_flush:
            self.flush()

    def _send_metrics(self) -> None:
        from mlflow.entities import Metric

        while self._metrics:
            batch = [Metric(*metric) for metric in self._metrics[:METRICS_AT_ONCE]]
            # Not in the background, whatever the environment says: MLflow would not tell what failed there.
            self._client.log_batch(self._run_id, metrics=batch, synchronous=True)
            del self._metrics[: len(batch)]
            self._num_late += len(batch)

    def _send_pictures(self) -> None:
        while self._pictures:
            picture = self._pictures[0]
            image = _read_image(Path(picture.picture))
            if image is not None:
                self._client.log_image(
                    self._run_id, image, key="transfer", step=picture.step, timestamp=picture.time, synchronous=True
                )
            del self._pictures[0]

    def _tell_outage(self, error: Exception) -> None:
        if not self._is_away:
            LOG.warning(
                "MLflow at %s does not take %s (%s); training goes on, "
                "they are kept in %s and sent when it answers again",
                masked(tracking_uri()),
                "metrics" if self._metrics else "pictures",
                cause_of(error),
                self._file.path,
            )
        self._is_away = True

    def _end_outage(self) -> None:
        if self._is_away:
            LOG.info("MLflow answers again; %d metrics were sent", self._num_late)
        elif self._file.was_left:
            LOG.info("%d metrics were sent, with those that an earlier process had left", self._num_late)
        self._file.remove()
        self._is_away = False
        self._num_late = 0


class _UnsentFile:
    """The file of what is unsent. A disk that takes nothing is told once, and raises nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.was_left = False
        """Whether an earlier process left it, and it is still there."""
        self.is_complete = True
        """Whether all that is kept in memory is in the file too."""
        self._partial = path.with_name(f".{path.name}.partial")
        self._has_warned = False

    def read(self) -> tuple[list[_Metric], list[_Picture]]:
        """What an earlier process left, without lines that it was killed at or a full disk cut."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return [], []
        self.was_left = True
        items = list(_parse(text))
        return (
            [item for item in items if isinstance(item, _Metric)],
            [item for item in items if isinstance(item, _Picture)],
        )

    def replace(self, items: Sequence[_Item]) -> None:
        """Write the file anew, under a temporary name first."""
        with self._guarded():
            self._partial.write_text(_lines(items), encoding="utf-8")
            self._partial.replace(self.path)
            self.is_complete = True

    def append(self, items: Sequence[_Item]) -> None:
        """Add to the file; where it lacks something, `replace` makes it complete again."""
        with self._guarded(), self.path.open("a", encoding="utf-8") as file:
            file.write(_lines(items))

    def remove(self) -> None:
        """Remove the file, when all is sent."""
        with self._guarded():
            for path in (self.path, self._partial):
                path.unlink(missing_ok=True)
            self.was_left, self.is_complete = False, True

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.is_complete = False
            if not self._has_warned:
                LOG.warning("%s cannot be written (%s); metrics are kept in memory alone", self.path, error.strerror)
            self._has_warned = True


def _lines(items: Sequence[_Item]) -> str:
    return "".join(f"{json.dumps(item._asdict())}\n" for item in items)


def _parse(text: str) -> Iterator[_Item]:
    for line in text.splitlines():
        try:
            fields = json.loads(line)
            yield _Picture(**fields) if "picture" in fields else _Metric(**fields)
        except (ValueError, TypeError):
            continue


def _read_image(path: Path) -> "Image | None":
    """The picture in memory, so that an error afterwards is MLflow's; None where there is none to be sent."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            return file.copy()
    except FileNotFoundError:
        return None
    except (OSError, SyntaxError) as error:  # Pillow raises the latter on a broken PNG chunk
        LOG.warning("%s is not sent to MLflow (%s)", path, first_line(error))
        return None


def _milliseconds() -> int:
    return int(time.time() * 1000)
