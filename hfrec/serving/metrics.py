"""What Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from .models import ServedModel

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("hfrec_requests", "Answers by path and status.", ["path", "status"], registry=own)
        self.seconds = Histogram("hfrec_request_seconds", "Time to answer.", ["path"], buckets=_SECONDS, registry=own)
        self.rows = Histogram("hfrec_batch_rows", "Queries answered together.", buckets=_ROWS, registry=own)
        self.batch_seconds = Histogram("hfrec_batch_seconds", "Time of a batch.", buckets=_SECONDS, registry=own)
        self.queue = Gauge("hfrec_queue_rows", "Histories that wait.", registry=own)
        self.lists = Counter("hfrec_recommendations", "Lists recommended.", registry=own)
        self.unknown = Counter("hfrec_unknown_items", "Items of histories that the model does not know.", registry=own)
        self.events = Counter("hfrec_events", "Events by what became of them.", ["result"], registry=own)
        self.reloads = Counter("hfrec_reloads", "Swaps of the model by outcome.", ["result"], registry=own)
        self.model = Gauge("hfrec_model_info", "1 for the model that serves.", ["version", "kind"], registry=own)

        # Looking labels up takes longer than counting.
        self._of_path: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer of a route and its time."""
        if (path, status) not in self._of_path:
            self._of_path[path, status] = self.requests.labels(path, status), self.seconds.labels(path)
        count, times = self._of_path[path, status]
        count.inc()
        times.observe(seconds)

    def serves(self, model: ServedModel) -> None:
        """Name the model."""
        self.model.clear()
        self.model.labels(model.version, model.kind).set(1)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
