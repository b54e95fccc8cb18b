"""What the fault tests share: a supervised service, a load of events, and the check that each took effect once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import yaml
from google.protobuf.message import Message
from kafka.admin import KafkaAdminClient, NewTopic

from services.chassis.loop.kafka_client import KafkaPublisher, KafkaReader
from services.chassis.records import NewRecord, Unavailable
from services.chassis.topics import make_topics
from trainyard._cloudevents import Outgoing, Received, decode, derived_id
from trainyard.job.v1.job_pb2 import CancelRun, RunCancelRequested, RunQueued, RunWarned

REPO = Path(__file__).resolve().parents[3]
PARTITIONS = 4
_RUNS = 12


def eventually(condition: Callable[[], bool], what: str, seconds: float = 50.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)


class CountingService:
    """The service as a process, with its state in a folder; `supervised` starts it anew whenever it ends."""

    def __init__(self, home: Path, bootstrap: str, *arguments: str, **settings: str) -> None:
        self.name = f"counting-{uuid.uuid4().hex[:8]}"
        self.topic = f"faults-{self.name}"
        self.home = home
        self.codes: list[int] = []
        _make_topic(bootstrap, self.topic)
        row = {"partitions": PARTITIONS, "key": "run id", "retention": "forever", "owner": self.name, "packages": ["trainyard.job.v1"]}
        (home / "topics.yaml").write_text(yaml.safe_dump({"topics": {self.topic: row}}))
        named = {"KAFKA_BOOTSTRAP": bootstrap, "HOME": str(home), **settings}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TRAINYARD_")},
            **{f"TRAINYARD_{name}": value for name, value in named.items()},
            "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "sdk")]),
        }
        self._command = [sys.executable, "-m", "tests.component.chassis.counting_service", self.name, self.topic, *arguments]
        self._process = self._start()
        self._over = False
        self._supervisor: threading.Thread | None = None

    def supervised(self) -> CountingService:
        self._supervisor = threading.Thread(target=self._supervise)
        self._supervisor.start()
        return self

    def kill(self) -> None:
        """Returns when the next process is there."""
        process = self._process
        process.kill()
        eventually(lambda: self._process is not process, "the supervisor starts it anew")

    def wait(self, seconds: float) -> int:
        """For its end by itself; returns the exit code."""
        return self._process.wait(seconds)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._over = True
        self._process.kill()
        self._process.wait(30)
        if self._supervisor is not None:
            self._supervisor.join(30)

    def effects(self) -> Mapping[str, int]:
        """How often each event took effect, by its id."""
        with closing(sqlite3.connect(self.home / "db" / f"{self.name}.db", timeout=10)) as connection:
            try:
                return {
                    key: int(content) for key, content in connection.execute("SELECT key, content FROM documents WHERE kind = 'effect'")
                }
            except sqlite3.OperationalError:  # it has not made its tables yet
                return {}

    def log(self) -> str:
        return (self.home / "service.log").read_text(errors="replace")

    def told(self) -> str:
        """What the guards met."""
        log = self.log()
        lines = {"gaps": "gap in a partition", "fetches": "fetched what the loop skipped", "starts": "caught up"}
        return ", ".join(f"{name} {log.count(text)}" for name, text in lines.items()) + f", exits {self.codes}"

    def _start(self) -> subprocess.Popen[bytes]:
        (self.home / "db").mkdir(exist_ok=True)
        with (self.home / "service.log").open("ab") as log:
            return subprocess.Popen(self._command, cwd=self.home, env=self._environment, stdout=log, stderr=log)

    def _supervise(self) -> None:
        while True:
            code = self._process.wait()
            if self._over:
                return
            self.codes.append(code)
            self._process = self._start()


class Load:
    """Requests and facts of some runs, published from a thread until stopped. An outage is waited for."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.sent: dict[str, Message] = {}
        self._bootstrap = bootstrap
        self._topic = topic
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._publish_for_ever)

    def start(self) -> Load:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def burst(self, count: int) -> None:
        """At once, and acknowledged when it returns."""
        publisher = KafkaPublisher(self._bootstrap)
        publisher.publish([self._next() for _ in range(count)])
        publisher.close()

    def _publish_for_ever(self) -> None:
        publisher = KafkaPublisher(self._bootstrap, timeout_seconds=5.0)
        while not self._stopped.wait(0.02):
            records = [self._next() for _ in range(4)]
            while True:
                try:
                    publisher.publish(records)
                    break
                except Unavailable:
                    # Some may lie in the log: the same events once more, as a client that saw no answer does.
                    continue
        publisher.close()

    def _next(self) -> NewRecord:
        number = len(self.sent)
        run_id = f"run-{number % _RUNS}"
        message = RunQueued(run_id=run_id, number=number) if number % 3 else CancelRun(run_id=run_id, reason=str(number))
        event = Outgoing(self._topic, run_id, message, str(uuid.uuid4()), "a test", datetime.now(UTC))
        self.sent[event.event_id] = message
        return NewRecord(self._topic, run_id.encode(), event.value(), tuple(event.headers()))


def assert_each_took_effect_once(load: Load, service: CountingService, bootstrap: str) -> None:
    """Waits until all has arrived, then looks at the documents and at every answer in the log."""
    eventually(lambda: len(service.effects()) >= len(load.sent), f"{len(load.sent)} events take effect ({service.told()})")
    expected = _expected_answers(load)
    answers: dict[str, set[tuple[object, ...]]] = {}

    def all_are_there() -> bool:
        answers.clear()
        for event, content in _answers(bootstrap, service.topic):
            answers.setdefault(event.event_id, set()).add(content)
        return answers.keys() >= expected.keys()

    eventually(all_are_there, "every answer lies in the log")

    effects = service.effects()
    assert effects == dict.fromkeys(load.sent, 1)
    assert answers.keys() == expected.keys()
    assert all(len(contents) == 1 for contents in answers.values()), "an answer was sent with two contents"
    _assert_numbers_have_no_holes(load, answers)


def _expected_answers(load: Load) -> dict[str, str]:
    """Ids of the answers, with the requests they answer."""
    kinds = (RunCancelRequested, RunWarned)
    requests = [event_id for event_id, message in load.sent.items() if isinstance(message, CancelRun)]
    return {derived_id(event_id, kind.DESCRIPTOR.full_name, 0): event_id for event_id in requests for kind in kinds}


def _answers(bootstrap: str, topic: str) -> list[tuple[Received, tuple[object, ...]]]:
    reader = KafkaReader(bootstrap)
    found: list[tuple[Received, tuple[object, ...]]] = []
    for place, end in reader.ends([topic]).items():
        for record in reader.read(place, 0, end):
            event = decode(record.topic, record.partition, record.offset, record.key, record.value, record.headers)
            if event.causation_id:
                found.append((event, (event.key, event.causation_id, record.value, record.headers)))
    reader.close()
    return found


def _assert_numbers_have_no_holes(load: Load, answers: Mapping[str, set[tuple[object, ...]]]) -> None:
    """Each answer tells how many requests its run has had: any that was lost or doubled on the way shows."""
    told: dict[str, list[int]] = {}
    for ((_, _, value, _),) in answers.values():
        message = RunCancelRequested.FromString(bytes(value))  # type: ignore[call-overload]
        told.setdefault(message.run_id, []).append(int(message.reason))
    for run_id, numbers in told.items():
        count = sum(isinstance(message, CancelRun) and message.run_id == run_id for message in load.sent.values())
        assert sorted(numbers) == sorted([*range(1, count + 1)] * 2), f"{run_id}: {sorted(numbers)} for {count} requests"


def _make_topic(bootstrap: str, topic: str) -> None:
    make_topics(bootstrap)
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    settings = {"message.timestamp.type": "LogAppendTime"}
    admin.create_topics([NewTopic(name=topic, num_partitions=PARTITIONS, replication_factor=1, topic_configs=settings)])
    admin.close()
