"""The broker is killed under load and comes back on the same data: whoever works waits, and nothing is lost or doubled."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import cache, kafka
from services.chassis.loop.kafka_client import KafkaPublisher, KafkaReader
from services.chassis.records import NewRecord, Place, Unavailable
from services.chassis.topics import make_topics
from tests.component.chassis.under_fault import CountingService, Load, assert_each_took_effect_once, eventually
from tests.conftest import await_port, free_port

pytestmark = [
    pytest.mark.component,
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("sockets_collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


# A client that the broker died under notices it when its request's time is up.
_PATIENCE_SECONDS = 150.0


class Broker:
    """One of the test's own, so that it may die."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._port, self._controller_port = free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        jars, properties = cache.part("kafka"), kafka.write_properties(self._home, self._port, self._controller_port)
        with properties.open("a") as file:
            # A broker that comes back is let in only when the session of the one that was killed is over: 9 s by default.
            file.write("broker.session.timeout.ms=2000\nbroker.heartbeat.interval.ms=500\n")
        kafka.format_once(jars, properties)
        with (self._home / "kafka.log").open("ab") as log:
            process = self._process = subprocess.Popen(kafka.command(jars, "kafka.Kafka", str(properties)), stdout=log, stderr=log)
        await_port(self._port, lambda: process.poll() is None)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.kill()


@pytest.mark.parametrize("loop", ["faust", "kafka"])
def test_a_broker_that_dies_and_comes_back_costs_nothing(
    loop: str, broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = CountingService(tmp_path, broker.bootstrap, LOOP=loop)
    load = Load(broker.bootstrap, service.topic).start()
    try:
        _delivers_by_its_loop(service)

        for _ in range(2):
            broker.kill()
            broker.start()
            _delivers_by_its_loop(service)
        load.stop()

        assert_each_took_effect_once(load, service, broker.bootstrap)
        assert service.is_alive()
        with capsys.disabled():
            print(f"\n  {loop}: broker killed twice under {len(load.sent)} events: {service.told()}")
    finally:
        load.stop()
        service.close()


def _delivers_by_its_loop(service: CountingService) -> None:
    """What it read at its start, or fetched by itself, says nothing of the loop: one that has not begun yet begins with the broker, or
    ends the process, and a supervisor's part is not what is tested here."""
    eventually(lambda: "started  " in service.log(), "it has started", _PATIENCE_SECONDS)
    told = ""
    while told != service.told():
        told, before = service.told(), len(service.effects())
        eventually(lambda before=before: len(service.effects()) > before + 100, f"it goes on ({told})", _PATIENCE_SECONDS)  # type: ignore[misc]


def test_a_read_that_the_broker_dies_under_says_so_and_the_reader_works_again(broker: Broker) -> None:
    make_topics(broker.bootstrap)
    publisher = KafkaPublisher(broker.bootstrap)
    ((place, _), *_) = publisher.publish([NewRecord("trainyard.jobs", b"key", bytes(100_000)) for _ in range(150)])
    publisher.close()
    reader = KafkaReader(broker.bootstrap, timeout_seconds=2.0)
    end = reader.ends(["trainyard.jobs"])[place]
    reading = reader.read(Place(*place), 0, end)
    next(reading)

    broker.kill()
    with pytest.raises(Unavailable):
        list(reading)
    with pytest.raises(Unavailable):
        reader.ends(["trainyard.jobs"])
    broker.start()

    eventually(lambda: _end(reader, place) == end, "the reader answers again")
    assert len(list(reader.read(place, 0, end))) == end
    reader.close()


def _end(reader: KafkaReader, place: Place) -> int:
    try:
        return reader.ends([place.topic])[place]
    except Unavailable:
        return -1
