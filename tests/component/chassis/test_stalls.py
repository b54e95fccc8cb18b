"""A worker that keeps its heartbeat and does nothing: fetched around where that helps, ended where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.chassis.guard import EXIT_CODE
from services.chassis.loop.kafka_client import KafkaPublisher
from services.chassis.records import NewRecord
from tests.component.chassis.under_fault import CountingService, Load, assert_each_took_effect_once, eventually
from tests.unit.chassis.small_service import an_event, cancel

pytestmark = [pytest.mark.component, pytest.mark.faults, pytest.mark.timeout(100)]
Start = Callable[..., CountingService]


@pytest.fixture
def start(tmp_path: Path, kafka_bootstrap: str) -> Iterator[Start]:
    services: list[CountingService] = []

    def start(*arguments: str, **settings: str) -> CountingService:
        services.append(CountingService(tmp_path, kafka_bootstrap, *arguments, **settings))
        return services[-1]

    yield start
    for service in services:
        service.close()


def test_a_loop_that_falls_silent_is_fetched_around_without_a_restart(start: Start, kafka_bootstrap: str) -> None:
    service = start("20")
    load = Load(kafka_bootstrap, service.topic)

    for _ in range(4):
        load.burst(50)
        eventually(lambda: len(service.effects()) == len(load.sent), f"all take effect ({service.told()})")

    assert service.is_alive()
    assert "fetched what the loop skipped" in service.log()
    assert_each_took_effect_once(load, service, kafka_bootstrap)


def test_a_handler_that_hangs_for_ever_ends_the_process_and_tells_where(start: Start, kafka_bootstrap: str) -> None:
    service = start(STALL_SECONDS="2")
    load = Load(kafka_bootstrap, service.topic)
    load.burst(10)
    eventually(lambda: len(service.effects()) == 10, "the service works")

    _publish(kafka_bootstrap, an_event(cancel("run-0", "hang"), topic=service.topic))
    code = service.wait(30)

    log = service.log()
    assert code == EXIT_CODE
    assert "no progress while records wait" in log
    assert "counting_service.py" in log and "in react" in log


def _publish(bootstrap: str, record: NewRecord) -> None:
    publisher = KafkaPublisher(bootstrap)
    publisher.publish([record])
    publisher.close()
