"""What Prometheus reads: TensorFlow Serving's names for what it counts too, and ours for the rest."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from services.serving.model_server.meter import Histogram, Meter
from services.serving.model_server.served import Statistics

_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip
# Names come from callers: more than so many models are counted as one, or they would fill our memory.
_MOST_MODELS = 1000
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Measured(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def meter(self) -> Meter: ...


class Metrics:
    """Thread safe."""

    def __init__(
        self, loaded: Callable[[], Sequence[Measured]], ready: Callable[[], bool], under_way: Callable[[], int] = lambda: 0
    ) -> None:
        """`under_way`: calls that have a version and are not answered yet."""
        self._loaded = loaded
        self._ready = ready
        self._under_way = under_way
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._latencies: dict[tuple[str, str, str], Histogram] = {}
        self._models: set[str] = set()

    def observe(self, model: str, call: str, entrypoint: str, code: int, nanoseconds: int) -> None:
        """A request was answered. `code`: canonical, 0 = well."""
        with self._lock:
            if model not in self._models:
                if len(self._models) >= _MOST_MODELS:
                    model = "(others)"
                self._models.add(model)
            self._requests[model, code] += 1
            histogram = self._latencies.get((model, call, entrypoint))
            if histogram is None:
                histogram = self._latencies[model, call, entrypoint] = Histogram()
            histogram.observe(nanoseconds / 1000)

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        with self._lock:
            requests = sorted(self._requests.items())
            latencies = sorted((key, histogram.copy()) for key, histogram in self._latencies.items())
        yield "# TYPE :tensorflow:serving:request_count counter"
        for (model, code), count in requests:
            status = _CODES[code] if 0 <= code < len(_CODES) else str(code)
            yield f":tensorflow:serving:request_count{_labels(model_name=model, status=status)} {count}"
        yield "# TYPE :tensorflow:serving:request_latency histogram"
        for (model, call, entrypoint), histogram in latencies:
            yield from _histogram(":tensorflow:serving:request_latency", histogram, model_name=model, API=call, entrypoint=entrypoint)
        yield from self._of_versions()
        yield from self._of_process()

    def _of_versions(self) -> Iterator[str]:
        measured = [(it.name, it.version, it.meter.statistics(), *it.meter.histograms()) for it in self._loaded()]
        yield "# TYPE :tensorflow:serving:runtime_latency histogram"
        for model, version, _, _, compute in measured:
            yield from _histogram(":tensorflow:serving:runtime_latency", compute, model_name=model, version=str(version))
        yield "# TYPE trainyard_serving_queue_latency histogram"
        for model, version, _, queue, _ in measured:
            yield from _histogram("trainyard_serving_queue_latency", queue, model_name=model, version=str(version))
        for name, value in _COUNTERS.items():
            yield f"# TYPE {name} counter"
            for model, version, counted, _, _ in measured:
                yield f"{name}{_labels(model_name=model, version=str(version))} {value(counted)}"
        yield "# TYPE trainyard_serving_batches_total counter"
        for model, version, counted, _, _ in measured:
            for size, timing in counted.batches.items():
                labels = _labels(model_name=model, version=str(version), size=str(size))
                yield f"trainyard_serving_batches_total{labels} {timing.count}"
        yield "# TYPE trainyard_serving_loaded_versions gauge"
        counts: dict[str, int] = defaultdict(int)
        for model, *_ in measured:
            counts[model] += 1
        for model, count in sorted(counts.items()):
            yield f"trainyard_serving_loaded_versions{_labels(model_name=model)} {count}"

    def _of_process(self) -> Iterator[str]:
        yield "# TYPE trainyard_serving_ready gauge"
        yield f"trainyard_serving_ready {int(self._ready())}"
        # A call counts when it is answered, which may take long.
        yield "# TYPE trainyard_serving_under_way gauge"
        yield f"trainyard_serving_under_way {self._under_way()}"
        used = resource.getrusage(resource.RUSAGE_SELF)
        yield "# TYPE process_cpu_seconds_total counter"
        yield f"process_cpu_seconds_total {used.ru_utime + used.ru_stime:.3f}"
        memory = _memory_bytes()
        if memory is not None:
            yield "# TYPE process_resident_memory_bytes gauge"
            yield f"process_resident_memory_bytes {memory}"


_COUNTERS: Mapping[str, Callable[[Statistics], int]] = {
    "trainyard_serving_rows_total": lambda it: it.inferences,
    "trainyard_serving_runs_total": lambda it: it.executions,
    "trainyard_serving_failures_total": lambda it: it.fail.count,
}


def _memory_bytes() -> int | None:
    if sys.platform != "linux":
        return None
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _histogram(name: str, histogram: Histogram, **labels: str) -> Iterator[str]:
    below = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        yield f"{name}_bucket{_labels(**labels, le='+Inf' if bound == float('inf') else f'{bound:.6g}')} {below}"
    yield f"{name}_sum{_labels(**labels)} {histogram.total:.1f}"
    yield f"{name}_count{_labels(**labels)} {below}"
