"""What the server did, for Prometheus at `/metrics`.

Requests are counted by appending to lists, which are put into histograms thousands at a time: that costs a
request a fraction of a microsecond. The exposition format and its types are prometheus_client's, which is
imported by the first scrape.

Methods of `ModelMetrics` are for the loop's thread.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Upper bounds of the histograms, in seconds, and in rows.
SECONDS = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
#: Of a request, in the order in which `ModelMetrics.answered` takes them.
PHASES = ("parse", "queue", "compute", "serialize", "total")
_FOLDED = 4096 * len(PHASES)


class Histogram:
    """Counts of values by their upper bounds; `columns` of them side by side."""

    def __init__(self, bounds: Sequence[float], columns: int = 1) -> None:
        self._bounds = np.array(bounds)
        self._counts = np.zeros((columns, len(bounds) + 1), np.int64)
        self._sums = np.zeros(columns)

    def fold(self, values: list[float]) -> None:
        """Count the values, which go by columns in turn, and empty the list."""
        for column, own in enumerate(np.array(values, np.float64).reshape(-1, len(self._sums)).T):
            places = np.searchsorted(self._bounds, own, "left")
            self._counts[column] += np.bincount(places, minlength=len(self._bounds) + 1)
            self._sums[column] += own.sum()
        values.clear()

    def buckets(self, column: int) -> tuple[list[tuple[str, float]], float]:
        """As prometheus_client takes them: cumulative counts by upper bound, and the sum of the values."""
        bounds = [*map(str, self._bounds.tolist()), "+Inf"]
        counts = np.cumsum(self._counts[column]).tolist()
        return list(zip(bounds, counts, strict=True)), float(self._sums[column])


class ModelMetrics:
    """One model's."""

    def __init__(self) -> None:
        #: Answers by HTTP status.
        self.statuses: Counter[int] = Counter()
        #: Seconds of the last load, with its warm-up.
        self.load_seconds = 0.0
        #: How many requests wait, asked at each scrape.
        self.waiting: Callable[[], int] = int
        self.phases = Histogram(SECONDS, len(PHASES))
        self.rows = Histogram(ROWS)
        self._values: list[float] = []
        self._batches: list[float] = []

    def answered(self, parse: float, queue: float, compute: float, serialize: float, total: float) -> None:
        """An inference was answered, in seconds."""
        values = self._values
        values += (parse, queue, compute, serialize, total)
        if len(values) >= _FOLDED:
            self.phases.fold(values)

    def ran(self, rows: int) -> None:
        """A batch was run."""
        self._batches.append(rows)
        if len(self._batches) >= _FOLDED:
            self.rows.fold(self._batches)

    def fold(self) -> None:
        """Count what was appended."""
        self.phases.fold(self._values)
        self.rows.fold(self._batches)


class Metrics:
    """The whole server's: a collector, in prometheus_client's terms."""

    def __init__(self) -> None:
        self.models: dict[str, ModelMetrics] = {}
        #: Answers that are of no model, by HTTP status.
        self.statuses: Counter[int] = Counter()
        #: Requests that the access log left out.
        self.suppressed = 0

    def model(self, name: str) -> ModelMetrics:
        """A model's, kept while the server runs, whether or not the model stays."""
        return self.models.setdefault(name, ModelMetrics())

    def exposed(self) -> tuple[str, bytes]:
        """Content type and body of `/metrics`."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        registry = CollectorRegistry()
        registry.register(self)
        return CONTENT_TYPE_LATEST, generate_latest(registry)

    def describe(self) -> Iterator[Any]:
        """Nothing: registering would collect otherwise."""
        return iter(())

    def collect(self) -> "Iterator[Metric]":
        """Every metric as it is now."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        requests = CounterMetricFamily(
            "inference_requests", "Answered requests by HTTP status", labels=("model", "status")
        )
        phases = HistogramMetricFamily(
            "inference_phase_seconds",
            "Of an answered inference: parsing, waiting, computing (its batch), serializing, all",
            labels=("model", "phase"),
        )
        rows = HistogramMetricFamily("inference_batch_rows", "Rows of a batch", labels=("model",))
        waiting = GaugeMetricFamily("inference_queue_depth", "Requests that wait", labels=("model",))
        load = GaugeMetricFamily(
            "inference_model_load_seconds", "Time of the last load, with warm-up", labels=("model",)
        )
        for name, model in self.models.items():
            model.fold()
            for status, count in sorted(model.statuses.items()):
                requests.add_metric((name, str(status)), count)
            for column, phase in enumerate(PHASES):
                phases.add_metric((name, phase), *model.phases.buckets(column))
            rows.add_metric((name,), *model.rows.buckets(0))
            waiting.add_metric((name,), model.waiting())
            load.add_metric((name,), model.load_seconds)
        for status, count in sorted(self.statuses.items()):
            requests.add_metric(("", str(status)), count)
        suppressed = CounterMetricFamily("inference_log_suppressed", "Requests left out of the access log")
        suppressed.add_metric((), self.suppressed)
        yield from (requests, phases, rows, waiting, load, suppressed)
