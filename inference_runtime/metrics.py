"""What the server did, for Prometheus at `/metrics`.

Everything is counted in arrays of a fixed layout, `COUNTS`, one for each process of the server. Where these
lie in memory that the processes share, each writes its own and any of them can say what all have done. A
request's times are written down as they are, and put into histograms hundreds at a time: that costs a request
a fraction of a microsecond. The exposition format and its types are prometheus_client's, which is imported by
the first scrape.

What writes is for the loop's thread.
"""

from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Upper bounds of the histograms, in seconds, and in rows.
SECONDS = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
#: Of a request, in the order in which `Tally.answered` takes them.
PHASES = ("parse", "queue", "compute", "serialize", "total")
#: Requests, and batches, that are held as they are until there are so many.
_HELD = 512
#: What one process counts of one model, or of what is no model's.
COUNTS = np.dtype(
    [
        # Answers by HTTP status, which is the index.
        ("statuses", np.int64, 600),
        # Requests that the access log left out.
        ("suppressed", np.int64),
        ("load_seconds", np.float64),
        ("waiting", np.int64),
        # Odd while what follows is being changed by more than one entry.
        ("version", np.int64),
        ("phases", np.int64, (len(PHASES), len(SECONDS) + 1)),
        ("phase_sums", np.float64, len(PHASES)),
        ("rows", np.int64, (1, len(ROWS) + 1)),
        ("row_sums", np.float64, 1),
        # How many entries of the next are filled.
        ("requests", np.int64),
        ("times", np.float64, (_HELD, len(PHASES))),
        ("batches", np.int64),
        ("sizes", np.float64, (_HELD, 1)),
    ]
)
_TIMES = Struct(f"={len(PHASES)}d")
_pack = _TIMES.pack_into
#: Looks at another process's counts, while it changes them, before they are taken as they are.
_LOOKS = 100

Counts: TypeAlias = NDArray[Any]


class Tally:
    """What is counted of one model, or of what is no model's, by this process and its siblings."""

    def __init__(self, counts: Counts, place: int = 0) -> None:
        """`counts` has an entry of `COUNTS` for each process; this one writes that at `place`."""
        self._counts = counts
        self._own = counts[place]
        #: Answers by HTTP status. Views, as are the next: an array's own entries cost more to reach.
        self.statuses: memoryview = self._own["statuses"].data
        self._requests = counts["requests"][place : place + 1].data
        self._batches = counts["batches"][place : place + 1].data
        self._times = self._own["times"].data.cast("B")
        self._sizes = self._own["sizes"][:, 0].data
        #: As many as are held, where it is quicker to reach.
        self._held = 0
        #: How many requests wait, asked at each scrape.
        self.waiting: Callable[[], int] = int
        if self._own["version"] % 2:
            # Whoever was here before ended in the middle of it.
            self._own["version"] += 1
        self._fold()

    def answered(self, parse: float, queue: float, compute: float, serialize: float, total: float) -> None:
        """An inference was answered, in seconds."""
        held = self._held
        _pack(self._times, held * _TIMES.size, parse, queue, compute, serialize, total)
        self._held = self._requests[0] = held + 1
        if held == _HELD - 1:
            self._fold()

    def ran(self, rows: int) -> None:
        """A batch was run."""
        held = self._batches[0]
        self._sizes[held] = rows
        self._batches[0] = held + 1
        if held + 1 == _HELD:
            self._fold()

    def loaded(self, seconds: float) -> None:
        """The model was loaded, with its warm-up."""
        self._own["load_seconds"] = seconds

    def suppress(self, requests: int) -> None:
        """The access log left so many requests out."""
        self._own["suppressed"] += requests

    def publish(self) -> None:
        """Let the others know how many requests wait here."""
        self._own["waiting"] = self.waiting()

    def total(self) -> Any:
        """The counts of all processes, added; entries that were held are in the histograms."""
        self.publish()
        total = np.zeros(1, COUNTS)[0]
        for place in range(len(self._counts)):
            counts = self._seen(place)
            _fold(counts)
            for name in ("statuses", "suppressed", "waiting", "phases", "phase_sums", "rows", "row_sums"):
                total[name] += counts[name]
            total["load_seconds"] = max(total["load_seconds"], counts["load_seconds"])
        return total

    def _seen(self, place: int) -> Any:
        """A copy of a process's counts, made between two of its changes."""
        for _ in range(_LOOKS):
            before = int(self._counts["version"][place])
            seen = self._counts[place].copy()
            if before % 2 == 0 and before == self._counts["version"][place]:
                break
        return seen

    def _fold(self) -> None:
        self._own["version"] += 1
        _fold(self._own)
        self._held = 0
        self._own["version"] += 1


def _fold(counts: Any) -> None:
    """Put what is held into the histograms."""
    for held, values, bounds, histogram, sums in (
        ("requests", "times", SECONDS, "phases", "phase_sums"),
        ("batches", "sizes", ROWS, "rows", "row_sums"),
    ):
        number = int(counts[held])
        for column, own in enumerate(counts[values][:number].T if number else ()):
            places = np.searchsorted(bounds, own, "left")
            counts[histogram][column] += np.bincount(places, minlength=len(bounds) + 1)
            counts[sums][column] += own.sum()
        counts[held] = 0


class Metrics:
    """The whole server's: a collector, in prometheus_client's terms."""

    def __init__(self, shared: tuple[Counts, Counts] | None = None, place: int = 0) -> None:
        """`shared` are the counts of what is no model's, and of the one model that several processes serve;
        those of this process are at `place`.
        """
        self._shared = shared[1] if shared else None
        self._place = place
        self.models: dict[str, Tally] = {}
        #: What is of no model.
        self.server = Tally(shared[0], place) if shared else Tally(np.zeros(1, COUNTS))

    def model(self, name: str) -> Tally:
        """A model's, kept while the server runs, whether or not the model stays."""
        tally = self.models.get(name)
        if tally is None:
            if self._shared is not None and not self.models:
                tally = Tally(self._shared, self._place)
            else:
                tally = Tally(np.zeros(1, COUNTS))
            self.models[name] = tally
        return tally

    def publish(self) -> None:
        """Let other processes know what only this one can see. Called every second."""
        for tally in self.models.values():
            tally.publish()

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
        suppressed = 0
        for name, tally in (*self.models.items(), ("", self.server)):
            counts = tally.total()
            suppressed += int(counts["suppressed"])
            for status in np.flatnonzero(counts["statuses"]).tolist():
                requests.add_metric((name, str(status)), int(counts["statuses"][status]))
            if tally is self.server:
                continue
            for column, phase in enumerate(PHASES):
                buckets = _buckets(SECONDS, counts["phases"][column])
                phases.add_metric((name, phase), buckets, float(counts["phase_sums"][column]))
            rows.add_metric((name,), _buckets(ROWS, counts["rows"][0]), float(counts["row_sums"][0]))
            waiting.add_metric((name,), int(counts["waiting"]))
            load.add_metric((name,), float(counts["load_seconds"]))
        left_out = CounterMetricFamily("inference_log_suppressed", "Requests left out of the access log")
        left_out.add_metric((), suppressed)
        yield from (requests, phases, rows, waiting, load, left_out)


def _buckets(bounds: Sequence[float], counts: NDArray[Any]) -> list[tuple[str, float]]:
    """As prometheus_client takes them: cumulative counts by upper bound."""
    return list(zip([*map(str, bounds), "+Inf"], np.cumsum(counts).tolist(), strict=True))
