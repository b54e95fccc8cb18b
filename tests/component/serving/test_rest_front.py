"""The REST front by itself, over real sockets: what a drain waits for."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable

import pytest

from services.serving.model_server import rest_front
from services.serving.model_server.http_messages import Answer
from services.serving.model_server.rest_front import RestServer

pytestmark = pytest.mark.component


def _server(listening: int | None = None) -> RestServer:
    return rest_front.start({"": lambda request: Answer(200, b"{}")}, "127.0.0.1", 0, listening=listening)


def _in_thread(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_who_just_spoke_may_ask_once_more_and_is_told_that_it_is_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_front, "_LAST_WORDS_SECONDS", 300.0)
    server = _server()
    client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    client.request("GET", "/")
    client.getresponse().read()

    draining = _in_thread(lambda: server.drain(300))
    _until(lambda: server.draining)
    client.request("GET", "/")
    answer = client.getresponse()

    assert (answer.status, answer.getheader("connection")) == (200, "close")
    client.close()
    draining.join(60)
    assert not draining.is_alive()


def test_whoever_waits_in_an_inherited_queue_is_answered_by_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        first = _server(listening.dup().detach())
        first.drain(60)
        client = http.client.HTTPConnection(*listening.getsockname(), timeout=60)
        client.request("GET", "/")
        second = _server(listening.dup().detach())

        assert client.getresponse().status == 200
        client.close()
        second.drain(60)


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        threading.Event().wait(0.01)
