"""The dataset service as a process, on a real broker and real HTTP servers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from services.chassis.records import NewRecord
from tests.component.dataset.source_server import FILES, SourceServer, etag
from tests.component.service_process import ServiceProcess
from tests.component.topic_log import TopicLog
from tests.conftest import free_port
from trainyard._errors import TrainyardException, from_rpc
from trainyard.dataset.v1.dataset_pb2 import (
    DatasetRejected,
    DatasetVersionRegistered,
    GetDatasetRequest,
    ListDatasetsRequest,
    RegisterDataset,
    SourceFile,
)
from trainyard.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from trainyard.event.v1.dead_letter_pb2 import DeadLetter

pytestmark = pytest.mark.component
TOPIC = "trainyard.datasets"
SECONDS = 60.0
Refusal = tuple[grpc.StatusCode, TrainyardException]


def refusal(call: Callable[[], Any]) -> Refusal:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), from_rpc(error.value)


def a_request(name: str, *urls: str, submission_id: str = "", **fields: Any) -> RegisterDataset:
    return RegisterDataset(submission_id=submission_id or f"{name}-1", name=name, urls=urls, **fields)


def register(datasets: DatasetServiceStub, request: RegisterDataset) -> Any:
    return datasets.RegisterDataset(request, timeout=SECONDS)


def answers(topic_log: TopicLog, name: str) -> list[Any]:
    """The service's facts on a dataset as they lie in the log."""
    found = [event.message for event in topic_log.events(TOPIC) if event.key == name]
    return [message for message in found if isinstance(message, (DatasetVersionRegistered, DatasetRejected))]


def exists(datasets: DatasetServiceStub, name: str, version: int = 0) -> bool:
    try:
        datasets.GetDataset(GetDatasetRequest(name=name, version=version), timeout=SECONDS)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND
        return False
    return True


def test_a_dataset_is_registered_with_what_its_urls_hold(datasets: DatasetServiceStub, server: SourceServer) -> None:
    urls = [server.url("files/train.gz"), server.url("redirect/2/files/test.gz")]

    answer = register(datasets, a_request("found", *urls, description="digits", tags={"kind": "images"}))

    dataset = answer.dataset
    assert not answer.repeated_submission
    assert (dataset.name, dataset.version, dataset.description, dict(dataset.tags)) == ("found", 1, "digits", {"kind": "images"})
    assert list(dataset.files) == [
        SourceFile(
            url=url,
            path=url.replace("http://", "http/"),
            size_bytes=len(FILES[name]),
            etag=etag(name),
            sha256=hashlib.sha256(FILES[name]).hexdigest(),
        )
        for url, name in zip(urls, ["train.gz", "test.gz"], strict=True)
    ]
    assert datasets.GetDataset(GetDatasetRequest(name="found"), timeout=SECONDS).dataset == dataset
    assert dataset in datasets.ListDatasets(ListDatasetsRequest(), timeout=SECONDS).datasets


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("files/absent", "404 Not Found"),
        ("truncated", "the body ended after 10 of 20 bytes"),
        ("loop", "redirects more than 5 times"),
        ("elsewhere", "neither http nor https"),
    ],
)
def test_a_source_that_cannot_be_read_is_told_and_nothing_is_registered(
    datasets: DatasetServiceStub, topic_log: TopicLog, server: SourceServer, path: str, why: str
) -> None:
    name, url = f"unreachable {path.replace('/', '-')}", server.url(path)

    status, error = refusal(lambda: register(datasets, a_request(name, server.url("files/train.gz"), url)))

    assert (status, error.code, error.target) == (grpc.StatusCode.FAILED_PRECONDITION, "SourceUnreachable", url)
    assert why in error.message
    assert not exists(datasets, name)
    assert [type(fact) for fact in answers(topic_log, name)] == [DatasetRejected]


def test_a_server_that_is_not_there_and_a_host_that_no_one_knows_are_told_apart(datasets: DatasetServiceStub) -> None:
    refused = refusal(lambda: register(datasets, a_request("nobody", f"http://127.0.0.1:{free_port()}/a")))
    unknown = refusal(lambda: register(datasets, a_request("unknown", "http://no-such-host.invalid/a")))

    assert "the connection was refused" in refused[1].message
    assert "its host's name was not found" in unknown[1].message


def test_a_request_that_is_wrong_in_itself_is_refused_as_such(datasets: DatasetServiceStub) -> None:
    bad_url = refusal(lambda: register(datasets, a_request("bad", "http://h/%2e%2e/a")))
    no_id = refusal(lambda: register(datasets, RegisterDataset(name="bad", urls=["http://h/a"])))

    assert (bad_url[0], bad_url[1].code, bad_url[1].target) == (grpc.StatusCode.INVALID_ARGUMENT, "UserError", "http://h/%2e%2e/a")
    assert (no_id[0], no_id[1].code) == (grpc.StatusCode.INVALID_ARGUMENT, "UserError")


def test_an_existing_name_is_refused_unless_a_new_version_is_asked_for(datasets: DatasetServiceStub, server: SourceServer) -> None:
    url = server.url("files/train.gz")
    register(datasets, a_request("twice", url))

    status, error = refusal(lambda: register(datasets, a_request("twice", url, submission_id="twice-2")))
    again = register(datasets, a_request("twice", url, submission_id="twice-3", create_new_version=True))

    assert (status, error.code, error.target) == (grpc.StatusCode.ALREADY_EXISTS, "AlreadyExists", "twice")
    assert again.dataset.version == 2
    assert datasets.GetDataset(GetDatasetRequest(name="twice", version=1), timeout=SECONDS).dataset.version == 1


def test_one_submission_is_one_version_by_whatever_way_it_comes(
    datasets: DatasetServiceStub, topic_log: TopicLog, server: SourceServer
) -> None:
    request = a_request("one submission", server.url("files/train.gz"), create_new_version=True)

    topic_log.publish(TOPIC, request.name, request)
    first, second = register(datasets, request), register(datasets, request)
    topic_log.publish(TOPIC, request.name, request)
    other = register(datasets, a_request(request.name, *request.urls, submission_id="another", create_new_version=True))

    assert (first.dataset.version, first.repeated_submission) == (1, True)
    assert (second.dataset, second.repeated_submission) == (first.dataset, True)
    assert (other.dataset.version, other.repeated_submission) == (2, False)
    assert [fact.version for fact in answers(topic_log, request.name)] == [1, 2]


def test_requests_that_race_get_versions_without_holes(datasets: DatasetServiceStub, server: SourceServer) -> None:
    url = server.url("files/train.gz")
    requests = [a_request("race", url, submission_id=f"race-{number}", create_new_version=True) for number in range(8)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda request: register(datasets, request).dataset.version, requests))

    assert sorted(found) == list(range(1, 9))


def test_of_requests_that_race_for_a_new_name_one_gets_it(datasets: DatasetServiceStub, server: SourceServer) -> None:
    calls = [datasets.RegisterDataset.future(a_request("prize", server.url("gated/a"), submission_id=f"prize-{n}")) for n in range(3)]
    server.reached(3)

    server.gate.set()
    codes = [call.code() for call in calls]

    assert sorted(code.name for code in codes) == ["ALREADY_EXISTS", "ALREADY_EXISTS", "OK"]
    assert not exists(datasets, "prize", 2)


def test_a_caller_that_hung_up_may_ask_again_with_the_same_submission(datasets: DatasetServiceStub, server: SourceServer) -> None:
    request = a_request("slow", server.url("gated/a"))
    call = datasets.RegisterDataset.future(request, timeout=SECONDS)
    server.reached()
    call.cancel()

    server.gate.set()
    answer = register(datasets, request)

    assert (answer.dataset.version, answer.repeated_submission) == (1, True)


def test_an_unknown_name_is_told_with_what_there_is_the_closest_first(datasets: DatasetServiceStub, server: SourceServer) -> None:
    register(datasets, a_request("flowers-of-spring", server.url("files/train.gz")))

    no_name = refusal(lambda: datasets.GetDataset(GetDatasetRequest(name="flowers-of-sprig"), timeout=SECONDS))
    no_version = refusal(lambda: datasets.GetDataset(GetDatasetRequest(name="flowers-of-spring", version=7), timeout=SECONDS))

    assert (no_name[0], no_name[1].code) == (grpc.StatusCode.NOT_FOUND, "DatasetNotFound")
    assert "there is: flowers-of-spring" in no_name[1].message
    assert no_version[1].target == "flowers-of-spring:7"
    assert "its latest is 1" in no_version[1].message


def test_garbled_bytes_become_a_dead_letter_and_the_service_lives_on(
    datasets: DatasetServiceStub, topic_log: TopicLog, server: SourceServer
) -> None:
    headers = (("ce_id", b"garbled"), ("ce_type", b"trainyard.dataset.v1.RegisterDataset"))
    placed = topic_log.publish_raw([NewRecord(TOPIC, b"garbled", b"\xff\xfe\xfd", headers), NewRecord(TOPIC, b"garbled", b"no headers")])

    answer = register(datasets, a_request("garbled", server.url("files/train.gz")))

    assert answer.dataset.version == 1
    letters = [event.message for event in topic_log.events("trainyard.deadletters") if isinstance(event.message, DeadLetter)]
    assert {(letter.partition, letter.offset) for letter in letters if letter.topic == TOPIC} >= {(p.partition, at) for p, at in placed}


def test_killed_in_the_middle_of_a_probe_it_registers_one_version_after_its_restart(
    service: ServiceProcess, datasets: DatasetServiceStub, topic_log: TopicLog, server: SourceServer
) -> None:
    request = a_request("killed", server.url("gated/a"))
    call = datasets.RegisterDataset.future(request, timeout=SECONDS)
    server.reached()
    service.kill()
    assert call.code() is grpc.StatusCode.UNAVAILABLE

    service.start()
    server.reached()
    server.gate.set()
    answer = register(datasets, request)

    assert (answer.dataset.version, answer.repeated_submission) == (1, True)
    assert [type(fact) for fact in answers(topic_log, "killed")] == [DatasetVersionRegistered]
    assert not exists(datasets, "killed", 2)


def test_a_lost_database_is_filled_again_by_replay(service: ServiceProcess, datasets: DatasetServiceStub, server: SourceServer) -> None:
    register(datasets, a_request("kept", server.url("files/train.gz"), tags={"a": "b", "c": "d"}))
    refusal(lambda: register(datasets, a_request("kept", server.url("files/train.gz"), submission_id="kept-2")))
    assert service.stop() == 0
    before = service.documents()

    service.forget()
    service.start()

    assert ("version", "kept:1") in before
    assert service.documents() == before
