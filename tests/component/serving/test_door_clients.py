"""Clients that others wrote, from the package index and unmodified, through the door: a process before two servers, each with one version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import httpx
import pytest

from deploy.local import assemble
from services.serving.door.grpc_door import MAX_STREAMS
from tests.component.serving.conftest import REPO, WIRE, Running, TensorFlow, running, started
from tests.component.serving.test_v2_clients import python_with, told_by

pytestmark = [pytest.mark.component, pytest.mark.timeout(400)]
_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_NEW = "2.73.0"


class Door:
    """Where it answers, and the table that it goes by. "half" is split between versions 3, which adds 2, and 4, which adds 3."""

    def __init__(self, door: Running, table: Path, servers: list[Running]) -> None:
        self.grpc = door.grpc_address
        self.rest = door.rest
        self._table = table
        self._backends = [
            {"deployment": number, "version": number + 2, "grpc": it.grpc_address, "rest": it.rest.removeprefix("http://")}
            for number, it in enumerate(servers, 1)
        ]

    def split(self, percent: float) -> None:
        row = {"model": "half", "has_code": False, "main": self._backends[0]}
        if percent:
            row |= {"beside": self._backends[1], "percent": percent}
        new = self._table.with_suffix(".new")
        new.write_text(json.dumps({"halves": row}))
        new.replace(self._table)


@pytest.fixture(scope="module")
def behind(tensorflow: TensorFlow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The door has nothing of TensorFlow: one line of it is enough."""
    if not tensorflow.is_newest:
        pytest.skip("as with the newest line of TensorFlow")
    table = tmp_path_factory.mktemp("door") / "door.json"
    with ExitStack() as all_of_them:
        servers = [
            all_of_them.enter_context(running(tensorflow.python, tensorflow.models / name / "model", "--version", str(version)))
            for name, version in (("half", 3), ("half-3", 4))
        ]
        words = [sys.executable, "-m", "services.serving.door", f"--table={table}", "--grpc-port=0", "--rest-port=0"]
        door = all_of_them.enter_context(started(words, PYTHONPATH=os.pathsep.join([str(REPO), str(REPO / "sdk")])))
        yield Door(door, table, servers)


@pytest.fixture(scope="module")
def triton(behind: Door) -> Any:
    behind.split(0)
    return told_by(python_with(f"tritonclient[grpc,http]=={_NEW}"), "client_triton.py", behind.grpc, behind.rest.removeprefix("http://"))


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_tritons_clients_learn_what_is_behind_the_door(triton: Any, way: str) -> None:
    about = triton[way]["about"]

    assert (about["live"], about["ready"]) == (True, True)
    assert about["model ready"] == [True, True, False, False]
    assert about["server"]["name"] == "trainyard-door"
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(about["server"]["extensions"])
    assert (about["model"]["name"], about["model"]["versions"]) == ("half", ["3"])
    (entry,) = about["index"]["models"] if way == "grpc" else about["index"]
    assert (entry["name"], entry["version"], entry["state"]) == ("half", "3", "READY")


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_tritons_clients_infer_through_the_door(triton: Any, way: str) -> None:
    inferred = triton[way]["inferred"]

    assert (inferred["y"], inferred["id"], inferred["version"]) == ([2.5, 4.0], "42", "3")
    assert inferred["tagged"] == {"names": ["twice", "text"], "twice": [2, 1 << 41], "text": ["a1", "\xff\x001099511627776"]}
    assert all(inferred["kinds"].values()), inferred["kinds"]
    assert triton[way]["packed"] == {"gzip": True, "deflate": True}
    assert triton[f"{way}.aio"] == {"live": True, "all right": True}
    assert triton[way]["errors"]["input"][1].endswith("unexpected inference input 'z' for model 'half'")
    assert "no endpoint serves a model 'none'" in triton[way]["errors"]["model"][1]


def test_tritons_clients_stream_through_the_door_and_a_wrong_request_is_told_in_its_place(triton: Any) -> None:
    assert triton["streamed"][:3] == [["1.0", [2.5]], ["2.0", [3.0]], ["3.0", [3.5]]]
    assert "no endpoint serves a model 'none'" in triton["streamed"][3]


def test_tensorflow_servings_clients_reach_the_version_that_they_name(behind: Door, tensorflow: TensorFlow) -> None:
    (packages,) = assemble.tools("serving-api").glob("lib/python*/site-packages")
    behind.split(50)

    script = Path(__file__).with_name("client_serving.py")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages)}
    done = subprocess.run([tensorflow.python, script, behind.grpc], capture_output=True, text=True, env=environment)

    assert done.returncode == 0, done.stderr
    heard = json.loads(done.stdout)
    assert (heard["version 3"], heard["version 4"]) == ([[3, 2.5]], [[4, 3.5]])
    assert (heard["status 3"], heard["status 4"]) == ([[3, 30]], [[4, 30]])
    assert (heard["metadata 3"], heard["metadata 4"], heard["any"]) == (3, 4, [3, 4])
    assert heard["lost version"][0] == heard["unknown"][0] == "NOT_FOUND"


def test_rest_reaches_the_version_that_it_names_in_a_split(behind: Door) -> None:
    behind.split(50)
    infer = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}

    def by_name(version: int) -> float:
        return float(
            httpx.post(f"{behind.rest}/v1/models/half/versions/{version}:predict", json={"instances": [1.0]}).json()["predictions"][0]
        )

    def by_endpoint(version: int) -> float:
        told = httpx.post(f"{behind.rest}/endpoints/halves/v2/models/half/versions/{version}/infer", json=infer).json()
        return float(told["outputs"][0]["data"][0])

    for ask in (by_name, by_endpoint):
        assert [ask(version) for version in (3, 4) * 10] == [2.5, 3.5] * 10
    assert [(it["name"], it["version"]) for it in httpx.post(f"{behind.rest}/v2/repository/index").json()] == [("half", "3"), ("half", "4")]
    assert httpx.get(f"{behind.rest}/v2/").json()["name"] == "trainyard-door"
    assert httpx.post(f"{behind.rest}/v2/repository/models/half/unload").status_code == 404


def test_a_stream_takes_each_request_to_the_version_that_it_names_and_garbage_ends_nothing(behind: Door) -> None:
    behind.split(50)
    answer = WIRE.message("inference.ModelStreamInferResponse")

    with grpc.insecure_channel(behind.grpc) as channel:
        sent = [infer("3"), b"\xff\xff", infer("4"), infer("9", id="lost"), *(infer(version) for version in ("3", "4") * 10)]
        told = [answer.FromString(it) for it in channel.stream_stream(_STREAM, bytes, bytes)(iter(sent), timeout=60)]

    versions = [it.infer_response.model_version if not it.error_message else it.error_message[:26] for it in told]
    assert versions[:3] == ["3", "the request cannot be read", "4"]
    assert told[3].infer_response.id == "lost" and "9" in told[3].error_message
    assert versions[4:] == ["3", "4"] * 10


def test_streams_are_bounded_and_leave_room_for_calls(behind: Door) -> None:
    behind.split(0)
    answer, held = WIRE.message("inference.ModelStreamInferResponse"), list[Any]()

    with ExitStack() as open_ones:
        channel = open_ones.enter_context(grpc.insecure_channel(behind.grpc))
        stream = channel.stream_stream(_STREAM, bytes, bytes)
        for _ in range(MAX_STREAMS):
            requests = OneAndWait(infer(""))
            open_ones.callback(requests.end)
            held.append(stream(requests, timeout=60))  # a call that nobody holds is canceled
            assert not answer.FromString(next(held[-1])).error_message
        with pytest.raises(grpc.RpcError) as caught:
            next(stream(iter([infer("")]), timeout=60))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert channel.unary_unary(_INFER, bytes, bytes)(infer(""), timeout=60)


class OneAndWait:
    """A request of a stream that stays open after it."""

    def __init__(self, request: bytes) -> None:
        self._requests = iter([request])
        self._over = Event()
        self.end = self._over.set

    def __iter__(self) -> OneAndWait:
        return self

    def __next__(self) -> bytes:
        for request in self._requests:
            return request
        self._over.wait()
        raise StopIteration


def infer(version: str, **fields: Any) -> bytes:
    request = WIRE.message("inference.ModelInferRequest")(model_name="half", model_version=version, **fields)
    x = request.inputs.add(name="x", datatype="FP32", shape=[1])
    x.contents.fp32_contents.append(1.0)
    return bytes(request.SerializeToString())
