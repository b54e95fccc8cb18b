"""From the servers' spools to trainyard.inference: whose calls they are, what happens while Kafka is away, and after a crash."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.chassis.records import NewRecord, Place, Unavailable
from services.chassis.store import Store
from services.serving.adapters.sample_spools import SampleSpools, spool_folder
from services.serving.domain.endpoint import Endpoint
from services.serving.request_log import RequestLog
from services.serving.sampling import spool
from services.serving.sampling.call import SCRIPT, Body, Call, to_bytes
from services.serving.sampling.sampler import ABOUT
from services.serving.sampling.spool import Spool
from tests.unit.serving.builders import after, live, starting
from trainyard.endpoint.v1 import endpoint_pb2, inference_pb2


class Kafka:
    def __init__(self) -> None:
        self.records: list[NewRecord] = []
        self.away = False
        self.dies = False

    def publish(self, records: Sequence[NewRecord]) -> list[tuple[Place, int]]:
        if self.away:
            raise Unavailable("away")
        self.records += records
        if self.dies:
            raise SystemExit
        return []

    def close(self) -> None: ...

    @property
    def messages(self) -> list[inference_pb2.InferenceSampled]:
        return [inference_pb2.InferenceSampled.FromString(it.value or b"") for it in self.records]

    @property
    def ids(self) -> list[bytes]:
        return [dict(it.headers)["ce_id"] for it in self.records]


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def spools(tmp_path: Path) -> SampleSpools:
    return SampleSpools(tmp_path)


@pytest.fixture
def log(spools: SampleSpools, kafka: Kafka) -> RequestLog:
    return RequestLog(spools, kafka, Store("sqlite://"))


def an_endpoint(rate: float = 1.0) -> Endpoint:
    return after(starting(settings=endpoint_pb2.EndpointSettings(sample_rate=rate)), live())


def sampled(home: Path, *requests: bytes, endpoint: str = "digits", deployment: int = 1) -> Path:
    folder = spool_folder(home, endpoint, deployment)
    folder.mkdir(parents=True, exist_ok=True)
    writing = Spool(folder)
    for request in requests:
        writing.append(to_bytes(Call(SCRIPT, "POST", "/score", 200, time.time_ns(), 1000, Body(request, "text/plain"), Body(b"{}"))))
    writing.close()
    return folder


def test_a_sample_is_an_event_of_its_endpoint_under_an_id_of_its_own(
    tmp_path: Path, spools: SampleSpools, log: RequestLog, kafka: Kafka
) -> None:
    spools.keep(an_endpoint())
    sampled(tmp_path, b"one", b"two")

    assert log.publish() == 2

    first, second = kafka.messages
    assert (kafka.records[0].topic, kafka.records[0].key) == ("trainyard.inference", b"digits")
    assert (first.endpoint, first.deployment, first.model, first.version) == ("digits", 1, "mnist", 1)
    assert (first.request.content, second.request.content, first.request.content_type) == (b"one", b"two", "text/plain")
    assert kafka.ids == [first.sample_id.encode(), second.sample_id.encode()]
    assert log.publish() == 0


def test_while_kafka_is_away_samples_stay_and_then_come_once(tmp_path: Path, log: RequestLog, kafka: Kafka) -> None:
    folder = sampled(tmp_path, b"one")
    kafka.away = True
    with pytest.raises(Unavailable):
        log.publish()
    assert len(spool.closed(folder)) == 1

    kafka.away = False
    log.publish()

    assert [it.request.content for it in kafka.messages] == [b"one"]
    assert spool.closed(folder) == []


def test_a_crash_between_the_log_and_the_spool_sends_the_same_ids_again(tmp_path: Path, log: RequestLog, kafka: Kafka) -> None:
    sampled(tmp_path, b"one", b"two")
    kafka.dies = True
    with pytest.raises(SystemExit):
        log.publish()

    kafka.dies = False
    log.publish()

    assert len(kafka.ids) == 4
    assert kafka.ids[:2] == kafka.ids[2:]


def test_what_a_script_wrote_there_is_believed_for_nobody_else(tmp_path: Path, log: RequestLog, kafka: Kafka) -> None:
    folder = sampled(tmp_path, b"one")
    (folder / ABOUT).write_text(json.dumps({"rate": 1, "model": ["x"], "version": "y", "endpoint": "another"}))
    (folder / "0.samples").write_bytes(b"\xff" * 100)
    sampled(tmp_path, b"two", endpoint="NOT-A-NAME")
    (tmp_path / "samples" / "elsewhere-1").symlink_to(tmp_path)

    log.publish()

    (message,) = kafka.messages
    assert (message.endpoint, message.model, message.version) == ("digits", "", 0)


def test_the_rate_and_what_is_served_stand_in_the_folders_of_those_that_serve(tmp_path: Path, spools: SampleSpools) -> None:
    spools.keep(an_endpoint(0.5))
    first = json.loads((spool_folder(tmp_path, "digits", 1) / ABOUT).read_text())

    spools.keep(an_endpoint(0))

    assert first == {"rate": 0.5, "model": "mnist", "version": 1}
    assert json.loads((spool_folder(tmp_path, "digits", 1) / ABOUT).read_text())["rate"] == 0


def test_folders_that_nobody_wants_go_once_they_are_empty_and_old(tmp_path: Path, spools: SampleSpools, log: RequestLog) -> None:
    spools.keep(an_endpoint())
    folder = sampled(tmp_path, b"one")

    spools.forget_all_but({("digits", 1)})
    os.utime(folder, (0, 0))
    spools.forget_all_but(set())
    assert folder.exists()  # it holds samples still
    log.publish()
    spools.forget_all_but(set())
    assert folder.exists()  # a server that drains may write still
    os.utime(folder, (0, 0))
    spools.forget_all_but({("digits", 1)})
    assert folder.exists()
    spools.forget_all_but(set())

    assert not folder.exists()
    spools.keep(an_endpoint())
    assert (folder / ABOUT).exists()
