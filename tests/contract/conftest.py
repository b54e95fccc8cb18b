"""The log, once as Kafka and once as its twin in memory: what holds for one must hold for the other."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from kafka.admin import KafkaAdminClient, NewTopic

from services.chassis.loop.faust_loop import FaustLoop
from services.chassis.loop.kafka_client import KafkaLoop, KafkaPublisher, KafkaReader
from services.chassis.loop.memory import MemoryLog, MemoryLoop, MemoryPublisher, MemoryReader
from services.chassis.records import EventLoop, LogReader, Publisher
from tests.conftest import free_port

PARTITIONS = 3
MakeLoop = Callable[[], EventLoop]


@dataclass
class Log:
    """Two empty topics of three partitions, and the ways to them. `loop` makes loops that go on where the one before was."""

    topic: str
    other_topic: str
    reader: LogReader
    publisher: Publisher
    loop: MakeLoop


@dataclass
class Away:
    """The ways to a log that does not answer."""

    reader: LogReader
    publisher: Publisher


@pytest.fixture
def kafka_log(kafka_bootstrap: str) -> Iterator[Log]:
    log = _on_kafka(kafka_bootstrap)
    yield log
    log.reader.close()
    log.publisher.close()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.component)])
def log(request: pytest.FixtureRequest) -> Log:
    return _in_memory() if request.param == "memory" else request.getfixturevalue("kafka_log")


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.component), pytest.param("faust", marks=pytest.mark.component)])
def looped(request: pytest.FixtureRequest) -> Log:
    """By the loop under test."""
    if request.param == "memory":
        return _in_memory()
    log: Log = request.getfixturevalue("kafka_log")
    bootstrap = request.getfixturevalue("kafka_bootstrap")
    if request.param == "faust":
        app = f"contract-{uuid.uuid4().hex}"
        log.loop = lambda: FaustLoop(bootstrap, app, [log.topic, log.other_topic])
    return log


# See the fixture sockets_collected.
_collected = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(params=["memory", pytest.param("kafka", marks=[pytest.mark.component, _collected])])
def away(request: pytest.FixtureRequest) -> Iterator[Away]:
    if request.param == "memory":
        log = MemoryLog({"t": 1})
        log.down = True
        yield Away(MemoryReader(log), MemoryPublisher(log))
        return
    nowhere = f"127.0.0.1:{free_port()}"
    request.getfixturevalue("sockets_collected")
    yield Away(KafkaReader(nowhere, timeout_seconds=1.0), KafkaPublisher(nowhere, timeout_seconds=1.0))


def _in_memory() -> Log:
    log = MemoryLog({"t": PARTITIONS, "u": PARTITIONS})
    return Log("t", "u", MemoryReader(log), MemoryPublisher(log), lambda: MemoryLoop(log, ["t", "u"], lambda place: 0))


def _on_kafka(bootstrap: str) -> Log:
    topics = [f"contract-{uuid.uuid4().hex}" for _ in range(2)]
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics(
        [
            NewTopic(name=topic, num_partitions=PARTITIONS, replication_factor=1, topic_configs={"message.timestamp.type": "LogAppendTime"})
            for topic in topics
        ]
    )
    admin.close()
    topic, other = topics
    return Log(topic, other, KafkaReader(bootstrap), KafkaPublisher(bootstrap), lambda: KafkaLoop(bootstrap, topics, lambda place: 0))
