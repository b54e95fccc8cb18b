"""What is counted of one version since it was loaded: calls, rows, runs, and the time they took."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate, repeat

from services.serving.model_server.served import Statistics, Timing

# As TensorFlow Serving's own histograms of latency: 10 microseconds, and 1.8 times as much from each to the next, to 20 minutes.
MICROSECONDS = tuple(accumulate(repeat(1.8, 32), float.__mul__, initial=10.0))


class Histogram:
    """Not thread safe: whoever holds it has a lock."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = MICROSECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> Histogram:
        made = Histogram(self.bounds)
        made.counts, made.total = self.counts.copy(), self.total
        return made


# Callers choose how many rows a call has.
_MOST_SIZES = 256


class Meter:
    """Thread safe."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._lock = threading.Lock()
        self._last_ms = self._rows = self._runs = 0
        self._success = [0, 0]
        self._fail = [0, 0]
        self._batches: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        self._queue = Histogram()
        self._compute = Histogram()
        self._sums = [0, 0]  # nanoseconds in the queue and in the graph

    def succeeded(self, rows: int, queue_ns: int, compute_ns: int) -> None:
        with self._lock:
            self._count_call(rows, queue_ns, compute_ns)

    def ran_alone(self, rows: int, nanoseconds: int) -> None:
        """A call that succeeded with a run of its own: `ran` and `succeeded` in one step."""
        with self._lock:
            self._count_run(rows, nanoseconds)
            self._count_call(rows, 0, nanoseconds)

    def failed(self, nanoseconds: int) -> None:
        with self._lock:
            self._fail[0] += 1
            self._fail[1] += nanoseconds

    def ran(self, rows: int, nanoseconds: int) -> None:
        """One run of the graph, for one call or for several."""
        with self._lock:
            self._count_run(rows, nanoseconds)

    def _count_call(self, rows: int, queue_ns: int, compute_ns: int) -> None:
        self._last_ms = time.time_ns() // 1_000_000
        self._rows += rows
        self._success[0] += 1
        self._success[1] += queue_ns + compute_ns
        self._sums[0] += queue_ns
        self._sums[1] += compute_ns
        self._queue.observe(queue_ns / 1000)
        self._compute.observe(compute_ns / 1000)

    def _count_run(self, rows: int, nanoseconds: int) -> None:
        self._runs += 1
        if rows not in self._batches and len(self._batches) >= _MOST_SIZES:
            rows = 1 << max(rows - 1, 0).bit_length()
        batch = self._batches[rows]
        batch[0] += 1
        batch[1] += nanoseconds

    def statistics(self) -> Statistics:
        with self._lock:
            calls = self._success[0]
            return Statistics(
                version=self._version,
                last_inference_ms=self._last_ms,
                inferences=self._rows,
                executions=self._runs,
                success=Timing(*self._success),
                fail=Timing(*self._fail),
                queue=Timing(calls, self._sums[0]),
                compute=Timing(calls, self._sums[1]),
                batches={size: Timing(*counted) for size, counted in sorted(self._batches.items())},
            )

    def histograms(self) -> tuple[Histogram, Histogram]:
        """Microseconds in the queue, and in the graph."""
        with self._lock:
            return self._queue.copy(), self._compute.copy()
