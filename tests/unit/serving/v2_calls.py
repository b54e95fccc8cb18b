"""Calls to the Open Inference fronts without a socket: what a request is answered with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from services.serving.model_server import v2_grpc, v2_types
from services.serving.model_server.http_messages import Answer, Headers, Request
from services.serving.model_server.v2_rest import HEADER_LENGTH, InferenceRoute
from services.serving.model_server.wire import Wire
from tests.unit.serving.fake_models import FakeModels

WIRE = Wire()
INFER_REQUEST, INFER_RESPONSE = WIRE.message("inference.ModelInferRequest"), WIRE.message("inference.ModelInferResponse")


class Aborted(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details


@dataclass
class Context:
    """Of a gRPC call, as far as a handler asks it anything."""

    remaining: float | None = None

    def is_active(self) -> bool:
        return True

    def time_remaining(self) -> float | None:
        return self.remaining

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code, details)


@dataclass(frozen=True)
class _Details:
    method: str
    invocation_metadata: Sequence[Any] = field(default_factory=tuple)


def handler(models: FakeModels, method: str, streamed: v2_grpc.Streamed | None = None) -> Any:
    service = v2_grpc.service(models, WIRE, models.is_ready, models.observe, streamed)
    return service.handler().service(_Details(f"/{v2_grpc.SERVICE}/{method}"))


def call(models: FakeModels, method: str, raw: bytes = b"", context: Context | None = None) -> Any:
    """The answer read back from its bytes. Raises Aborted."""
    found = handler(models, method)
    answer = found.unary_unary(raw, context or Context())
    return type(answer).FromString(found.response_serializer(answer))


def ask(models: FakeModels, method: str, **fields: Any) -> Any:
    return call(models, method, WIRE.message(f"inference.{method}Request")(**fields).SerializeToString())


def an_infer(array: Any, datatype: str, *, typed: bool = False, signature: str = "", **fields: Any) -> Any:
    request = INFER_REQUEST(model_name="echo", **fields)
    if signature:
        request.parameters["signature_name"].string_param = signature
    sent = request.inputs.add(name="x", datatype=datatype, shape=array.shape)
    if typed:
        v2_types.to_contents(array, v2_types.BY_NAME[datatype], sent.contents)
    else:
        request.raw_input_contents.append(v2_types.to_raw(array, v2_types.BY_NAME[datatype]))
    return request


def infer(models: FakeModels, request: Any, context: Context | None = None) -> Any:
    return call(models, "ModelInfer", request.SerializeToString(), context)


def arrays(response: Any) -> dict[str, Any]:
    """The outputs of a ModelInferResponse, by the protocol's own rules."""
    found = {}
    for number, output in enumerate(response.outputs):
        datatype, shape = v2_types.BY_NAME[output.datatype], tuple(output.shape)
        size = int(np.prod(shape, dtype=np.int64))
        if response.raw_output_contents:
            flat = v2_types.from_raw(response.raw_output_contents[number], datatype, size, output.name)
        else:
            flat = v2_types.from_contents(output.contents, datatype, size, output.name)
        found[output.name] = flat.reshape(shape)
    return found


def http(models: FakeModels, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
    named = Headers({name.lower(): value for name, value in (headers or {}).items()})
    return InferenceRoute(models, models.is_ready, models.observe, 30.0)(Request(method, target, named, body))


def post(models: FakeModels, target: str, content: Any = None, binary: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
    head = b"" if content is None else json.dumps(content).encode()
    length = {HEADER_LENGTH: str(len(head))} if binary else {}
    return http(models, "POST", target, head + binary, {**length, **(headers or {})})


def shown(answer: Answer) -> Any:
    length = answer.headers.get(HEADER_LENGTH)
    return json.loads(answer.body if length is None else answer.body[: int(length)])


def binaries(answer: Answer) -> list[bytes]:
    """The binary tensors behind the JSON, in the order of the outputs that have one."""
    position, found = int(answer.headers[HEADER_LENGTH]), []
    for output in shown(answer)["outputs"]:
        if "binary_data_size" in output.get("parameters", {}):
            end = position + output["parameters"]["binary_data_size"]
            found.append(answer.body[position:end])
            position = end
    assert position == len(answer.body)
    return found
