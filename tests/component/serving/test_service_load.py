"""Versions change behind the door, come back, and follow an alias, under load from a tool that others wrote: not one request fails. h2load,
on kept connections: HTTP/1.1, and gRPC's HTTP/2, of which it sees HTTP's status alone. A gRPC call that fails has no message in its answer,
so the bytes of messages that came tell how many calls were answered."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from tests.component.service_process import ServiceProcess
from tests.component.serving.calls import a_name
from tests.component.serving.conftest import Registry, predict_request, tensor
from tests.component.serving.test_service import _Through
from tests.component.serving.test_service_code import live
from tests.component.serving.test_service_door import by_rest_until, rest_door
from tests.component.topic_log import TopicLog
from trainyard._model import Model
from trainyard._objects import MinioObjects
from trainyard.model.v1.model_pb2 import AliasMoved

H2LOAD = shutil.which("h2load")
pytestmark = [
    pytest.mark.component,
    pytest.mark.timeout(240),
    pytest.mark.skipif(H2LOAD is None, reason="no h2load here: apt-get install nghttp2-client"),
]
_REQUESTS = 500
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_DATA = re.compile(r"traffic: .* \((\d+)\) data")


class Load:
    """Requests to one address, again and again until it is over; what h2load counted each time."""

    def __init__(self, target: str, body: Path, *more: str) -> None:
        self._command = [H2LOAD or "", "-n", str(_REQUESTS), "-c", "4", "-d", str(body), target, *more]
        self._over = threading.Event()
        self._going: Future[list[str]] | None = None

    def once(self) -> str:
        return subprocess.run(self._command, capture_output=True, text=True, check=True).stdout

    def begin(self, pool: ThreadPoolExecutor) -> None:
        self._going = pool.submit(lambda: [self.once() for _ in iter(self._over.is_set, True)])

    def end(self) -> list[str]:
        self._over.set()
        assert self._going is not None
        return self._going.result(120)


def _answered(told: str) -> int:
    """Bytes of messages that came."""
    found = _DATA.search(told)
    assert found, told
    return int(found[1])


def test_an_update_a_rollback_and_an_alias_that_moves_fail_no_request_through_the_door(
    service: ServiceProcess, objects: MinioObjects, registry: Registry, topic_log: TopicLog, models: Path, tmp_path: Path
) -> None:
    space: Any = SimpleNamespace(_clients=_Through(service.channel), _objects=objects)
    model = a_name("loaded")
    registry.register(model, 1, models / "half" / "model")
    registry.register(model, 2, models / "half-3" / "model")

    def move(version: int) -> None:
        topic_log.publish(
            "trainyard.models", model, AliasMoved(submission_id=a_name("move"), model=model, alias="champion", version=version)
        )

    move(1)
    found = live(Model.deploy(space, a_name("under-load"), [f"{model}@champion"]))
    by_rest_until(found, 2.5)
    request, lost = (predict_request({"x": tensor(1, [1], float_val=[1.0])}, model=it).SerializeToString() for it in (model, "nobody"))
    with grpc.insecure_channel(found.door_grpc_address) as channel:
        size = 5 + len(channel.unary_unary(_PREDICT, bytes, bytes)(request))
    json, framed, wrong = tmp_path / "body.json", tmp_path / "body.grpc", tmp_path / "wrong.grpc"
    json.write_text('{"instances": [1.0]}')
    for file, message in ((framed, request), (wrong, lost)):
        file.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    as_grpc = "-H", "content-type: application/grpc", "-H", "te: trailers"
    target = f"http://{found.door_grpc_address}{_PREDICT}"
    by_rest = Load(f"{rest_door(found)}/v1/models/{model}:predict", json, "--h1", "-H", "content-type: application/json")
    by_grpc = Load(target, framed, *as_grpc)

    with ThreadPoolExecutor(2) as pool:
        by_rest.begin(pool)
        by_grpc.begin(pool)
        try:
            move(2)
            by_rest_until(found, 3.5)
            found.update_deployment_state()
            found.roll_back()
            by_rest_until(live(found), 2.5)
            found.update(models=[f"{model}:2"])
            by_rest_until(live(found), 3.5)
        finally:
            told = by_rest.end(), by_grpc.end()

    for run in (*told[0], *told[1]):
        assert f"{_REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in run
        assert f"status codes: {_REQUESTS} 2xx" in run
    assert {_answered(run) for run in told[1]} == {_REQUESTS * size}
    assert _answered(Load(target, wrong, *as_grpc).once()) == 0, "calls that fail are told apart"
    assert [it["deployment"] for it in found.deployments] == [1, 2, 3, 4]
