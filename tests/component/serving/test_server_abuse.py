"""Input that no honest client sends never takes the model server down: after each of these it answers as before."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable

import grpc
import httpx
import pytest

from services.serving.model_server.grpc_front import MAX_MESSAGE
from services.serving.model_server.rest_loop import MAX_CONNECTIONS
from tests.component.serving.conftest import WIRE, Running, predict_request, tensor

pytestmark = pytest.mark.component
_CALL = "/tensorflow.serving.PredictionService/Predict"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _grpc_bytes(server: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.ready["grpc_port"]), 30) as connection, contextlib.suppress(OSError):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            continue


def tiny_frames(server: Running) -> None:
    _grpc_bytes(server, _PREFACE + _frame(4, 0, 0) + _frame(6, 0, 0, b"12345678") * 1000 + _frame(0, 0, 1) * 1000)


def settings_without_end(server: Running) -> None:
    _grpc_bytes(server, _PREFACE + _frame(4, 0, 0, struct.pack(">HI", 4, 1)) * 1000)


def streams_that_are_reset(server: Running) -> None:
    headers = b"\x82\x86\x84"  # GET http /
    opened = b"".join(_frame(1, 5, 2 * number + 1, headers) + _frame(3, 0, 2 * number + 1, b"\0\0\0\x08") for number in range(500))
    _grpc_bytes(server, _PREFACE + _frame(4, 0, 0) + opened)


def http_1_on_the_grpc_port(server: Running) -> None:
    _grpc_bytes(server, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")


def tls_on_plain_ports(server: Running) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500
    _grpc_bytes(server, hello)
    with socket.create_connection(("127.0.0.1", server.ready["rest_port"]), 30) as connection:
        connection.sendall(hello)


def a_body_byte_by_byte(server: Running) -> None:
    body = b'{"instances": [%s]}' % b", ".join([b"1"] * 300)
    with socket.create_connection(("127.0.0.1", server.ready["rest_port"]), 30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
        for place in range(len(body)):
            connection.sendall(body[place : place + 1])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def clients_that_leave_in_the_middle(server: Running) -> None:
    """More of them than connections may be open."""
    for sent in [b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf", b"GET /v1/mod", b""] * MAX_CONNECTIONS:
        with socket.create_connection(("127.0.0.1", server.ready["rest_port"]), 30) as connection:
            connection.sendall(sent)


def clients_that_do_not_wait_for_the_answer(server: Running) -> None:
    request = predict_request({"n": tensor(9, [], int64_val=[2000])}, "count").SerializeToString()
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(_CALL, bytes, bytes)
        for _ in range(100):
            call.future(request).cancel()  # type: ignore[no-untyped-call]


def a_message_beyond_the_limit(server: Running) -> None:
    with grpc.insecure_channel(server.grpc_address, [("grpc.max_send_message_length", -1)]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(_CALL, bytes, bytes)(b"\0" * (MAX_MESSAGE + 1), timeout=60)
    assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


def a_huge_batch(server: Running) -> None:
    """Which is no abuse, and is answered."""
    request = predict_request({"x": tensor(1, [4_000_000], float_val=[1.0])}).SerializeToString()
    with grpc.insecure_channel(server.grpc_address, [("grpc.max_receive_message_length", -1)]) as channel:
        answer = WIRE.PredictResponse.FromString(channel.unary_unary(_CALL, bytes, bytes)(request, timeout=60))
    assert len(answer.outputs["y"].float_val) == 4_000_000


def not_a_number(server: Running) -> None:
    answer = server.predict(x=tensor(1, [3], float_val=[float("nan"), float("inf"), float("-inf")]))
    assert [str(it) for it in answer.outputs["y"].float_val] == ["nan", "inf", "-inf"]


def tensors_nested_beyond_all_measure(server: Running) -> None:
    """A message within a message within a message..."""
    inner = b""
    for _ in range(300):
        inner = b"\x0a" + _varint(len(inner)) + inner
    for method in ("PredictionService/Predict", "PredictionService/Classify", "ModelService/HandleReloadConfigRequest"):
        with pytest.raises(grpc.RpcError) as caught:
            server.rpc(f"/tensorflow.serving.{method}", inner)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def _varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80]) + _varint(number >> 7) if number > 0x7F else bytes([number])


@pytest.mark.parametrize(
    "abuse",
    [
        tiny_frames,
        settings_without_end,
        streams_that_are_reset,
        http_1_on_the_grpc_port,
        tls_on_plain_ports,
        a_body_byte_by_byte,
        clients_that_leave_in_the_middle,
        clients_that_do_not_wait_for_the_answer,
        a_message_beyond_the_limit,
        a_huge_batch,
        not_a_number,
        tensors_nested_beyond_all_measure,
    ],
    ids=lambda it: it.__name__,
)
def test_it_answers_as_before_after(server: Running, abuse: Callable[[Running], None]) -> None:
    abuse(server)

    assert list(server.predict(x=tensor(1, [1], float_val=[1.0])).outputs["y"].float_val) == [2.5]
    assert httpx.post(f"{server.rest}/v1/models/half:predict", json={"instances": [1.0]}, timeout=30).json() == {"predictions": [2.5]}
    assert server.process.poll() is None
