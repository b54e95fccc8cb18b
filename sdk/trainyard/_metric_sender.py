"""A client's metrics on their way to Kafka: a call puts a point into a queue, a thread sends batches, each until it is acknowledged."""

from __future__ import annotations

import atexit
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from trainyard._logger import Point, complain
from trainyard._metric_limits import BATCH_BYTES, NAMES

if TYPE_CHECKING:
    from trainyard._cloudevents import Outgoing
    from trainyard._workspace import Workspace

TOPIC = "trainyard.metrics"
_LAST_WORDS_SECONDS, _RETRY_SECONDS, _GATHER_SECONDS = 10.0, 0.5, 0.02
_MOST = 5000
_IDLE_SECONDS = 2.0
_senders: WeakKeyDictionary[Workspace, MetricSender] = WeakKeyDictionary()
_making = threading.Lock()


class Publisher(Protocol):
    """Used by one thread."""

    def publish(self, events: Sequence[Outgoing]) -> None:
        """Returns when all are acknowledged; raises OSError or RuntimeError where they are not."""
        ...

    def close(self) -> None:
        """Until it is used again: nothing is held open by a client that has nothing to say."""
        ...


def sender_of(workspace: Workspace) -> MetricSender:
    """One for each workspace object."""
    with _making:
        if workspace not in _senders:
            _senders[workspace] = MetricSender(_Kafka(str(workspace._stack["kafka_bootstrap"])))
        return _senders[workspace]


class MetricSender:
    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._names: dict[str, set[str]] = {}
        """By run, what was logged up to now."""
        self._items: deque[tuple[str, int, Point]] = deque()
        self._news = threading.Event()
        self._empty = threading.Event()
        self._empty.set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, run_id: str, epoch: int, point: Point) -> None:
        with self._lock:
            self._empty.clear()
            self._items.append((run_id, epoch, point))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="trainyard-metrics", daemon=True)
                self._thread.start()
                atexit.register(self._at_exit)
        self._news.set()

    def flush(self, seconds: float) -> bool:
        """Whether all that was put lies in the log."""
        return self._empty.wait(seconds)

    def _at_exit(self) -> None:
        if not self.flush(_LAST_WORDS_SECONDS):
            complain("the last metrics were not sent: Kafka does not answer")

    def _work(self) -> None:
        while True:
            if not self._news.wait(_IDLE_SECONDS):
                self._publisher.close()
                self._news.wait()
            self._news.clear()
            time.sleep(_GATHER_SECONDS)
            while self._items:
                taken = [self._items.popleft() for _ in range(min(len(self._items), _MOST))]
                self._send(list(_batches(taken, self._names)))
            with self._lock:
                if not self._items:
                    self._empty.set()

    def _send(self, events: list[Outgoing]) -> None:
        """Repeated under the same ids while the broker is away."""
        told = False
        while True:
            try:
                self._publisher.publish(events)
                return
            except (OSError, RuntimeError) as error:
                if not told:
                    complain(f"metrics wait: {error}")
                told = True
                time.sleep(_RETRY_SECONDS)


def _batches(items: Sequence[tuple[str, int, Point]], names: dict[str, set[str]]) -> Iterator[Outgoing]:
    """What is no metric is told and left out."""
    from trainyard._points import checked

    waiting: dict[tuple[str, int], list[Any]] = {}
    sizes: dict[tuple[str, int], int] = {}
    for run_id, epoch, row in items:
        try:
            point, weight = checked(row)
            known = names.setdefault(run_id, set())
            if len(known) >= NAMES and row[0] not in known:
                raise ValueError(f"{row[0]!r} is one name too many: {NAMES} are kept")
            known.add(row[0])
        except (ValueError, TypeError, OverflowError) as error:
            complain(f"a metric was not logged: {error}")
            continue
        place = (run_id, epoch)
        if sizes.get(place, 0) + weight > BATCH_BYTES:
            yield _event(*place, waiting.pop(place))
            sizes[place] = 0
        waiting.setdefault(place, []).append(point)
        sizes[place] = sizes.get(place, 0) + weight
    for place, points in waiting.items():
        yield _event(*place, points)


def _event(run_id: str, epoch: int, points: list[Any]) -> Outgoing:
    from trainyard._cloudevents import Outgoing
    from trainyard.job.v1.telemetry_pb2 import MetricBatch

    batch = MetricBatch(run_id=run_id, epoch=epoch, points=points)
    return Outgoing(TOPIC, run_id, batch, str(uuid.uuid4()), "trainyard/sdk", datetime.now(UTC), correlation_id=run_id)


class _Kafka:
    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._made: Any = None

    def publish(self, events: Sequence[Outgoing]) -> None:
        from kafka import KafkaProducer
        from kafka.errors import KafkaError

        try:
            if self._made is None:
                self._made = KafkaProducer(
                    bootstrap_servers=self._bootstrap, enable_idempotence=True, acks="all", max_request_size=2_000_000
                )
            futures = [self._made.send(it.topic, key=it.key.encode(), value=it.value(), headers=it.headers()) for it in events]
            self._made.flush(timeout=30)
            for future in futures:
                future.get(timeout=30)
        except KafkaError as error:
            # After an error the producer's sequence is void.
            self.close()
            raise ConnectionError(f"Kafka at {self._bootstrap}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.close(timeout=1)
