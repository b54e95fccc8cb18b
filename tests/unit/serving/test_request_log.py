"""From the servers' spools to trainyard.inference: whose calls they are, what happens while Kafka is away, and after a crash."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
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
from services.serving.shelf import Shelf
from tests.unit.serving.builders import after, deleted, live, starting
from trainyard.endpoint.v1 import endpoint_pb2, inference_pb2


class Kafka:
    def __init__(self) -> None:
        self.records: list[NewRecord] = []
        self.away = False
        self.dies = False
        self.chokes_on = b"what chokes it"

    def publish(self, records: Sequence[NewRecord]) -> list[tuple[Place, int]]:
        if self.away:
            raise Unavailable("away")
        if any(self.chokes_on in (it.value or b"") for it in records):
            raise ValueError("nobody thought of that")
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
    """Of a service that knows the endpoint digits, with one deployment."""
    spools = SampleSpools(tmp_path)
    spools.know(an_endpoint())
    return spools


@pytest.fixture
def store() -> Store:
    return Store("sqlite://")


@pytest.fixture
def log(spools: SampleSpools, kafka: Kafka, store: Store) -> RequestLog:
    return RequestLog(spools, kafka, store)


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
    (folder / ABOUT).write_text(json.dumps({"rate": 1, "model": "another", "version": 7, "endpoint": "another"}))
    (folder / "0.samples").write_bytes(b"\xff" * 100)
    sampled(tmp_path, b"two", endpoint="NOT-A-NAME")
    (tmp_path / "samples" / "elsewhere-1").symlink_to(tmp_path)

    log.publish()

    (message,) = kafka.messages
    assert (message.endpoint, message.model, message.version) == ("digits", "mnist", 1)


@pytest.mark.parametrize("name", ["digits-99999999999999999999", "digits-2", "digits-01", "digits-١", "digits-0", "letters-1"])
def test_folders_of_no_known_deployment_are_not_read(tmp_path: Path, log: RequestLog, kafka: Kafka, name: str) -> None:
    forged = sampled(tmp_path, b"forged").rename(tmp_path / "samples" / name)
    sampled(tmp_path, b"one")

    log.publish()

    assert [it.request.content for it in kafka.messages] == [b"one"]
    assert len(spool.closed(forged)) == 1


def deep(path: Path) -> None:
    path.write_text("[" * 200_000)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("spoil", [deep, os.mkfifo, endless], ids=["deep", "pipe", "endless"])
def test_nothing_is_read_back_of_what_a_script_may_have_put_in_the_place_of_the_rate(
    tmp_path: Path, log: RequestLog, kafka: Kafka, spools: SampleSpools, spoil: Callable[[Path], None]
) -> None:
    spoil(sampled(tmp_path, b"one") / ABOUT)

    log.publish()
    spools.forget_all_but(set())

    assert [(it.model, it.version) for it in kafka.messages] == [("mnist", 1)]


def test_after_a_restart_the_documents_tell_what_was_served_and_a_number_without_them_has_no_model(
    tmp_path: Path, kafka: Kafka, store: Store
) -> None:
    endpoint = after(starting(), live(), starting(2, version=2), live(2), starting(3, version=3), starting(4, version=4), deleted())
    with store.transaction() as transaction:
        Shelf(transaction.documents).keep(endpoint)
    for number in (1, 2, 3, 4):
        sampled(tmp_path, b"%d" % number, deployment=number)
    log = RequestLog(SampleSpools(tmp_path), kafka, store)

    log._look()

    assert [(it.deployment, it.model, it.version) for it in kafka.messages] == [
        (1, "mnist", 1),
        (2, "mnist", 2),
        (3, "", 0),
        (4, "mnist", 4),
    ]


def test_a_file_that_cannot_be_published_is_passed_over_and_keeps_no_other_one(tmp_path: Path, log: RequestLog, kafka: Kafka) -> None:
    kafka.chokes_on = b"choke"
    folder = sampled(tmp_path, b"choke")
    sampled(tmp_path, b"one")
    (folder / "0.samples").mkdir()

    log.publish()
    log.publish()

    assert [it.request.content for it in kafka.messages] == [b"one"]
    assert len(spool.closed(folder)) == 2


def test_what_cannot_be_removed_is_published_once(tmp_path: Path, log: RequestLog, kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError("read-only folder")

    sampled(tmp_path, b"one")
    monkeypatch.setattr(Path, "unlink", refuse)

    assert (log.publish(), log.publish(), log.publish()) == (1, 0, 0)

    assert [it.request.content for it in kafka.messages] == [b"one"]


def test_a_folder_that_cannot_be_read_keeps_no_other_one(
    tmp_path: Path, spools: SampleSpools, log: RequestLog, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    spools.know(after(starting(), live(), starting(2)))
    locked = sampled(tmp_path, b"one")
    sampled(tmp_path, b"two", deployment=2)
    closed = spool.closed

    def refuse(folder: Path) -> list[Path]:
        if folder == locked:
            raise PermissionError(folder)
        return closed(folder)

    monkeypatch.setattr(spool, "closed", refuse)

    log.publish()

    assert [it.request.content for it in kafka.messages] == [b"two"]


def test_a_folder_full_of_files_is_emptied_in_several_looks_the_oldest_first(tmp_path: Path, log: RequestLog, kafka: Kafka) -> None:
    folder = sampled(tmp_path, b"x")
    (content,) = (path.read_bytes() for path in spool.closed(folder))
    for number in range(99):
        (folder / f"{number:03}.samples").write_bytes(content)

    counts = [log.publish() for _ in range(3)]

    assert counts == [64, 36, 0]


async def test_whatever_the_request_log_meets_does_not_end_it_and_it_holds_no_loop(
    tmp_path: Path, kafka: Kafka, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, again = [], asyncio.Event()
    loop = asyncio.get_running_loop()

    class Broken(SampleSpools):
        def forget_all_but(self, kept: Collection[tuple[str, int]]) -> None:
            threads.append(threading.current_thread())
            if len(threads) > 1:
                loop.call_soon_threadsafe(again.set)
            raise RuntimeError("nobody thought of that")

    monkeypatch.setattr("services.serving.request_log._LOOK_SECONDS", 0)
    running = asyncio.create_task(RequestLog(Broken(tmp_path), kafka, store).run())
    waiting = asyncio.create_task(again.wait())

    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)

    assert not running.done()
    assert threading.main_thread() not in threads
    running.cancel()


def test_the_rate_stands_in_the_folders_of_those_that_serve(tmp_path: Path, spools: SampleSpools) -> None:
    spools.keep(an_endpoint(0.5))
    first = json.loads((spool_folder(tmp_path, "digits", 1) / ABOUT).read_text())

    spools.keep(an_endpoint(0))

    assert first == {"rate": 0.5}
    assert json.loads((spool_folder(tmp_path, "digits", 1) / ABOUT).read_text())["rate"] == 0


def test_where_a_script_put_something_else_the_rate_is_set_once_that_is_gone(tmp_path: Path, spools: SampleSpools) -> None:
    folder = spool_folder(tmp_path, "digits", 1)
    folder.parent.mkdir()
    folder.write_bytes(b"no folder")

    spools.keep(an_endpoint())
    folder.unlink()
    spools.keep(an_endpoint())

    assert (folder / ABOUT).exists()


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
