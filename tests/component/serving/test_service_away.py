"""The object store goes away while a new version is fetched: what answers goes on, and the new one comes once the store is back. No registry
runs here at all: what it has told is in the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.component.service_process import running as service_running
from tests.component.serving.calls import HEALTHY, a_name, a_request, clear, deployed, until, until_state
from tests.component.serving.conftest import BUCKET, Registry, settings_of
from tests.component.serving.test_server_store import SECRET, USER, Store
from tests.component.topic_log import TopicLog
from trainyard._environment_cache import default_cache
from trainyard._objects import MinioObjects
from trainyard.endpoint.v1 import endpoint_pb2 as pb
from trainyard.endpoint.v1.endpoint_pb2_grpc import EndpointServiceStub

pytestmark = [pytest.mark.component, pytest.mark.timeout(240)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.kill()


def test_while_the_object_store_is_away_the_last_good_version_answers_over_a_kill_too_and_then_the_new_one(
    store: Store, kafka_bootstrap: str, topic_log: TopicLog, models: Path, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{store.port}"
    objects = MinioObjects(address, USER, SECRET, BUCKET)
    objects.make_bucket()
    registry, model, name = Registry(objects, topic_log), a_name("away"), a_name("away")
    registry.register(model, 1, models / "half" / "model")
    registry.register(model, 2, models / "half-3" / "model")
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    cache.mkdir()
    for kept in ("environments", "uv"):
        (cache / kept).symlink_to(default_cache() / kept)
    with service_running("serving", home, kafka_bootstrap, **settings_of((address, USER, SECRET), cache)) as service:
        stub = EndpointServiceStub(service.channel)
        clear(stub)
        first = deployed(stub, name, model)
        store.kill()
        stub.DeployEndpoint(a_request(name, model, 2, overwrite=True))

        def waits() -> bool:
            return "waiting for the object store" in stub.GetEndpoint(pb.GetEndpointRequest(endpoint=name)).endpoint.why

        until(waits, "the wait for the object store")
        before = answer(first.scoring_uri)
        service.kill()
        alone = answer(first.scoring_uri)
        service.start()
        until(waits, "the wait for the object store, again")
        meanwhile = answer(first.scoring_uri)
        store.start()
        until_state(stub, name, HEALTHY, 2)

        assert (before, alone, meanwhile) == (2.5, 2.5, 2.5)
        until(lambda: answer(first.scoring_uri) == 3.5, "the new version, once the old one has drained")


def answer(uri: str) -> float:
    got = httpx.post(uri, json={"instances": [1.0]}, timeout=30)
    return float(got.json()["predictions"][0])
