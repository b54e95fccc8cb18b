"""The REST front by itself, over real sockets: what a drain waits for, and who waits for whom."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from services.serving.model_server import rest_front, rest_loop
from services.serving.model_server.config_files import Tls
from services.serving.model_server.http_messages import MAX_BODY, Answer, Request
from services.serving.model_server.rest_front import RestServer
from services.serving.model_server.rest_rooms import LARGE_BODIES, LARGE_BODY
from tests.component.serving.certificates import Authority

pytestmark = pytest.mark.component


def _server(listening: int | None = None) -> RestServer:
    return RestServer({"": lambda request: Answer(200, b"{}")}, "127.0.0.1", 0, listening=listening)


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


# -- the loop


class Held:
    """A route whose calls to /held wait until they are let go; all others are answered at once."""

    def __init__(self, *, prompt: bool = False) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.prompt = prompt
        self.holds = True

    def __call__(self, request: Request) -> Answer:
        if request.path == "/held" and self.holds:
            self.begun.release()
            assert self.go.wait(60)
        return Answer(200, b'{"length": %d}' % len(request.body), prompt=self.prompt)


@contextmanager
def serving(route: Held, *, calls_at_once: int = 8, tls: Tls | None = None) -> Iterator[RestServer]:
    server = RestServer({"": route}, "127.0.0.1", 0, calls_at_once=calls_at_once, tls=tls)
    try:
        yield server
    finally:
        route.go.set()
        server.drain(0)


@contextmanager
def asking(server: RestServer, method: str, path: str, body: bytes = b"") -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    client.request(method, path, body)
    try:
        yield client
    finally:
        client.close()


def answer_of(client: http.client.HTTPConnection) -> tuple[int, bytes]:
    got = client.getresponse()
    return got.status, got.read()


def test_a_call_that_was_always_prompt_and_takes_long_for_once_holds_nobody_up() -> None:
    route = Held(prompt=True)
    with serving(route) as server:
        route.holds = False
        with asking(server, "POST", "/held", b"12") as client:
            assert answer_of(client) == (200, b'{"length": 2}')  # from now on the loop answers this path itself
            route.holds = True

            client.request("POST", "/held", b"123")
            assert route.begun.acquire(timeout=60)
            with asking(server, "POST", "/other", b"1") as other:
                assert answer_of(other) == (200, b'{"length": 1}')

            route.go.set()
            assert answer_of(client) == (200, b'{"length": 3}')
            client.request("POST", "/held", b"1234")
            assert answer_of(client) == (200, b'{"length": 4}')


def test_so_many_calls_are_made_at_a_time_and_a_look_waits_for_none_of_them() -> None:
    route = Held()
    with serving(route, calls_at_once=2) as server, ExitStack() as stack:
        waiting = [stack.enter_context(asking(server, "POST", "/held", b"1")) for _ in range(3)]
        assert route.begun.acquire(timeout=60)
        assert route.begun.acquire(timeout=60)
        with asking(server, "GET", "/healthz") as look:
            assert answer_of(look)[0] == 200
        assert not route.begun.acquire(blocking=False)

        route.go.set()

        assert [answer_of(client) for client in waiting] == [(200, b'{"length": 1}')] * 3


def test_no_more_large_bodies_than_have_room_are_taken_in_and_the_others_get_their_turn() -> None:
    route, body = Held(), b"x" * (LARGE_BODY + 1)
    with serving(route, calls_at_once=2 * LARGE_BODIES) as server, ThreadPoolExecutor(LARGE_BODIES + 1) as pool:

        def ask() -> tuple[int, bytes]:
            with asking(server, "POST", "/held", body) as client:
                return answer_of(client)

        asked = [pool.submit(ask) for _ in range(LARGE_BODIES + 1)]
        for _ in range(LARGE_BODIES):
            assert route.begun.acquire(timeout=60)
        with asking(server, "POST", "/small", b"1") as small:
            assert answer_of(small) == (200, b'{"length": 1}')
        assert not route.begun.acquire(blocking=False)

        route.go.set()

        assert [it.result(60) for it in asked] == [(200, b'{"length": %d}' % len(body))] * (LARGE_BODIES + 1)


def test_who_takes_no_answer_holds_nobody_up_and_has_it_whole_in_the_end() -> None:
    large = b"y" * (32 << 20)
    server = RestServer({"": lambda request: Answer(200, large if request.path == "/large" else b"{}", prompt=True)}, "127.0.0.1", 0)
    for _ in range(2):  # by another thread first, by the loop then
        with asking(server, "GET", "/large") as slow, asking(server, "GET", "/small") as other:
            assert answer_of(other) == (200, b"{}")
            assert answer_of(slow) == (200, large)
    server.drain(0)


def test_who_only_says_that_a_large_body_will_come_takes_nobodys_room() -> None:
    with serving(Held()) as server, ExitStack() as stack:
        for _ in range(LARGE_BODIES):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", server.server_port), 60))
            silent.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % MAX_BODY)
            assert silent.recv(100).startswith(b"HTTP/1.1 100 ")

        with asking(server, "POST", "/", b"x" * (LARGE_BODY + 1)) as client:
            assert answer_of(client)[0] == 200


def test_who_leaves_while_waiting_for_room_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection there may be waits for room; there is place for somebody else when they have left."""
    monkeypatch.setattr(rest_loop, "MAX_CONNECTIONS", LARGE_BODIES + 2)
    route = Held()
    with serving(route, calls_at_once=LARGE_BODIES) as server, ExitStack() as stack:
        for _ in range(LARGE_BODIES):
            stack.enter_context(asking(server, "POST", "/held", b"x" * (LARGE_BODY + 1)))
            assert route.begun.acquire(timeout=60)
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.server_port), 60) as leaving:
                leaving.sendall(b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx")

        def served() -> bool:
            with asking(server, "GET", "/healthz") as look:
                return answer_of(look)[0] == 200

        _until(served)


def test_a_newcomer_takes_the_place_of_who_has_been_idle_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_loop, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(rest_loop, "_IDLE_ENOUGH_SECONDS", 0.0)
    with serving(Held(prompt=True)) as server, asking(server, "GET", "/") as first, asking(server, "GET", "/") as second:
        assert answer_of(second)[0] == answer_of(first)[0] == 200
        for client in (second, first):
            client.request("GET", "/")  # by now the loop answers it itself, and takes nobody in before it has done with it
            assert answer_of(client)[0] == 200

        with asking(server, "GET", "/") as newcomer:
            assert answer_of(newcomer)[0] == 200
        assert second.sock.recv(1) == b""
        first.request("GET", "/")
        assert answer_of(first)[0] == 200


def test_who_has_asked_gives_its_place_to_no_newcomer_though_nothing_of_it_was_read_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_loop, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(rest_loop, "_IDLE_ENOUGH_SECONDS", 0.0)
    monkeypatch.setattr(rest_loop, "_STUCK_SECONDS", 300.0)  # the loop keeps its thread while it waits below
    route = Held(prompt=True)
    route.holds = False
    with serving(route) as server, asking(server, "GET", "/") as asks, asking(server, "GET", "/held") as holds:
        assert answer_of(asks)[0] == answer_of(holds)[0] == 200
        route.holds = True
        holds.request("GET", "/held")
        assert route.begun.acquire(timeout=60)
        with asking(server, "GET", "/") as newcomer:
            asks.request("GET", "/")
            route.go.set()

            assert answer_of(asks)[0] == answer_of(holds)[0] == answer_of(newcomer)[0] == 200


@pytest.mark.parametrize(
    "secure", [False, pytest.param(True, marks=pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl"))]
)
def test_who_sends_requests_without_end_lets_the_others_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool) -> None:
    monkeypatch.setattr(rest_loop, "_STUCK_SECONDS", 300.0)  # the loop keeps its thread while it waits below
    asked, begun, go = list[str](), threading.Event(), threading.Event()

    def route(request: Request) -> Answer:
        asked.append(request.target)
        if asked.count("/many") == 2:  # the loop answers this itself
            begun.set()
            assert go.wait(60)
        return Answer(200, b"{}", prompt=True)

    authority = Authority(tmp_path, "authority") if secure else None
    own = authority.signed("server") if authority else None
    tls = Tls(own.key.read_bytes(), own.certificate.read_bytes(), b"", False) if own else None
    server = RestServer({"": route}, "127.0.0.1", 0, tls=tls)

    def connected() -> http.client.HTTPConnection:
        if authority is None:
            return http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        context = ssl.create_default_context(cafile=str(authority.certificate))
        return http.client.HTTPSConnection("127.0.0.1", server.server_port, timeout=60, context=context)

    many, other = connected(), connected()
    for client, target in ((many, "/many"), (other, "/other")):
        client.request("GET", target)
        assert answer_of(client)[0] == 200
    many.sock.sendall(b"GET /many HTTP/1.1\r\n\r\n" * 500)
    assert begun.wait(60)
    other.request("GET", "/other")
    go.set()

    assert answer_of(other)[0] == 200
    _until(lambda: len(asked) == 503)
    assert asked.index("/other", 2) <= 20
    many.close()
    other.close()
    server.drain(0)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_large_bodies_and_answers_pass_over_tls_on_one_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    own = authority.signed("server")
    tls = Tls(own.key.read_bytes(), own.certificate.read_bytes(), b"", False)
    server = RestServer({"": lambda request: Answer(200, request.body, prompt=True)}, "127.0.0.1", 0, tls=tls)
    context = ssl.create_default_context(cafile=str(authority.certificate))
    client = http.client.HTTPSConnection("127.0.0.1", server.server_port, timeout=60, context=context)

    for size in (10, 10, 3 << 20, 50_000, 3 << 20):
        body = bytes(range(256)) * (size // 256 + 1)
        client.request("POST", "/echo", body)
        assert answer_of(client) == (200, body)

    client.close()
    server.drain(0)
