"""A model server as a process, from start to end; small shell scripts stand for it."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from services.serving.adapters import server_look
from services.serving.adapters.home_keeper import Keeper
from services.serving.adapters.model_servers import ModelServers
from services.serving.adapters.server_process import ModelServer, _as_ready
from services.serving.keeper import address
from services.serving.model_server import options
from services.serving.ports import CannotServe, Fetched, Ports, PortTaken
from tests.unit.serving.builders import content, scoring
from trainyard.endpoint.v1.endpoint_pb2 import Limits

READY = """echo '{"ready": true, "signatures": ["b", "a"], "grpc_port": 7001, "rest_port": 7002}'"""


@pytest.fixture(autouse=True)
def no_keeper_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    address.end(tmp_path)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., asyncio.Future[ModelServer]]:
    """Starts `body` in the place of the Python of the environment; `said` gets its lines."""

    keeper = Keeper(tmp_path)

    async def run(body: str, said: list[str] | None = None, load_seconds: float = 60.0, limits: Limits | None = None) -> ModelServer:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        servers = ModelServers(keeper, "127.0.0.1", tmp_path, load_seconds)
        lines = [] if said is None else said
        return await servers.start(script, content(limits=limits or Limits()), Fetched(tmp_path, "digest"), Ports(1, 0), lines.append)

    return lambda *words, **options: asyncio.ensure_future(run(*words, **options))


Start = Callable[..., asyncio.Future[ModelServer]]


async def test_it_is_told_what_to_serve_and_answers_where_it_is(start: Start) -> None:
    said: list[str] = []

    server = await start(f'echo "$@" >&2; {READY}; exec sleep 1000', said)
    await server.stop(5)

    # Where it listens for REST is the service's to know, whatever a process prints.
    assert (server.ports.grpc, server.ports.rest == 7002, server.signatures) == (7001, False, ("b", "a"))
    (words,) = said
    for word in (
        "-m services.serving.model_server",
        "--model-name=mnist",
        "--version=1",
        "--grpc-port=1",
        "--rest-fd=",
        "--share-ports",
    ):
        assert word in words


async def test_cores_bound_the_threads_within_a_call_and_calls_stay_in_their_own_thread(start: Start) -> None:
    said: list[str] = []

    server = await start(f'echo "$@" >&2; {READY}; exec sleep 1000', said, limits=Limits(cpu_cores=1.5))
    await server.stop(5)

    (words,) = said
    told = options.parse(words.partition("services.serving.model_server ")[2].split())
    assert (told.intra_threads, told.inter_threads) == (2, -1)


async def test_one_that_takes_over_has_the_same_queue_of_callers_and_the_last_one_closes_it(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{READY}\nexec sleep 1000\n")
    script.chmod(0o755)
    servers = ModelServers(Keeper(tmp_path), "127.0.0.1", tmp_path, 60)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    async def one() -> ModelServer:
        return await servers.start(script, content(), Fetched(tmp_path, "digest"), Ports(0, port), lambda line: None)

    first, second = await one(), await one()
    await first.stop(5)
    with socket.create_connection(("127.0.0.1", port), 30):
        pass
    await second.stop(5)

    assert servers.is_free(Ports(0, port))


async def test_what_a_script_says_of_its_ports_leads_nobody_anywhere(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{READY}\nexec sleep 1000\n")
    script.chmod(0o755)
    servers = ModelServers(Keeper(tmp_path), "127.0.0.1", tmp_path, 60)
    code = dataclasses.replace(content(), scoring=scoring())

    server = await servers.start(script, code, Fetched(tmp_path, "digest", tmp_path), Ports(), lambda line: None)
    await server.stop(5)

    assert server.ports.grpc == 0
    assert server.ports.rest not in (0, 7002)


async def test_no_endpoint_is_lent_the_socket_of_another(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{READY}\nexec sleep 1000\n")
    script.chmod(0o755)
    servers = ModelServers(Keeper(tmp_path), "127.0.0.1", tmp_path, 60)
    first = await servers.start(script, content(), Fetched(tmp_path, "digest"), Ports(), lambda line: None)
    other = dataclasses.replace(content(), endpoint="other")

    with pytest.raises(PortTaken, match=f"REST port 127.0.0.1:{first.ports.rest} is taken"):
        await servers.start(script, other, Fetched(tmp_path, "digest"), Ports(0, first.ports.rest), lambda line: None)
    await first.stop(5)


async def test_memory_of_what_a_script_starts_counts_for_its_bound(start: Start) -> None:
    child = f"{sys.executable} -c 'held = bytearray(300_000_000); print(1, flush=True); import time; time.sleep(1000)'"

    server = await start(f"{child} & {READY}; sleep 1000")
    server.bound(150_000_000)
    failure = await asyncio.wait_for(server.wait(), 60)
    await server.stop(5)

    assert "is its bound" in failure.message


def test_a_server_that_is_too_full_to_say_is_not_taken_for_one_that_nobody_calls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as full:
        answering = threading.Thread(target=_answer_503, args=(full,))
        answering.start()
        counted = server_look.calls_of("127.0.0.1", full.getsockname()[1], "")
        answering.join()

    assert counted is None


def _answer_503(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


async def test_a_port_that_another_listens_on_is_taken(tmp_path: Path) -> None:
    servers = ModelServers(Keeper(tmp_path), "127.0.0.1", tmp_path, 60)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"REST port 127.0.0.1:{port} is taken"):
            await servers.start(tmp_path / "none", content(), Fetched(tmp_path, "digest"), Ports(0, port), lambda line: None)


async def test_what_it_writes_besides_is_heard_line_by_line(start: Start) -> None:
    said: list[str] = []

    server = await start(f"echo loading; echo '{{\"ready\": 1}}'; echo '[1]'; {READY}; echo served; exec sleep 1000", said)
    await asyncio.wait_for(_until(lambda: said[-1:] == ["served"]), 30)
    await server.stop(5)

    assert said == ["loading", '{"ready": 1}', "[1]", "served"]


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_a_line_without_end_is_cut_and_not_kept_in_memory(start: Start) -> None:
    said: list[str] = []

    server = await start(f"head -c 300000 /dev/zero | tr '\\0' x >&2; {READY}; exec sleep 1000", said)
    await asyncio.wait_for(_until(lambda: sum(map(len, said)) >= 200_000), 30)
    await server.stop(5)

    assert sum(map(len, said)) == 300_000
    assert max(map(len, said)) <= 131_072


async def test_one_that_cannot_load_fails_with_its_last_lines(start: Start) -> None:
    with pytest.raises(CannotServe) as caught:
        await start("for n in $(seq 30); do echo line $n >&2; done; echo cannot load it: nonsense >&2; exit 3")

    failure = caught.value.failure
    assert (failure.code, failure.exit_code, failure.target) == ("ModelLoadFailed", 3, "mnist:1")
    assert failure.message == "Model mnist:1: cannot load it: nonsense"
    assert list(failure.last_lines) == [*(f"line {n}" for n in range(12, 31)), "cannot load it: nonsense"]


async def test_one_that_finds_its_port_taken_says_so(start: Start) -> None:
    with pytest.raises(PortTaken, match="gRPC port 127.0.0.1:1 is taken"):
        await start("echo cannot listen: gRPC port 127.0.0.1:1 is taken >&2; exit 4")


async def test_one_that_is_killed_while_it_loads_fails_with_the_signals_name(start: Start) -> None:
    with pytest.raises(CannotServe) as caught:
        await start("kill -9 $$")

    assert "killed by SIGKILL; the system may have run out of memory" in caught.value.failure.message
    assert caught.value.failure.exit_code == -9


async def test_one_that_is_never_ready_is_ended_at_the_deadline(start: Start, tmp_path: Path) -> None:
    with pytest.raises(CannotServe) as caught:
        await start("echo $$ > pid; echo still loading; exec sleep 1000", load_seconds=1.0)

    assert caught.value.failure.code == "LoadTimedOut"
    assert list(caught.value.failure.last_lines) == ["still loading"]
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


async def test_one_whose_start_is_canceled_is_ended(start: Start, tmp_path: Path) -> None:
    said: list[str] = []
    starting = start("echo $$; exec sleep 1000", said)
    await asyncio.wait_for(_until(lambda: bool(said)), 30)

    starting.cancel()
    await asyncio.wait([starting])

    assert starting.cancelled()
    assert not psutil.pid_exists(int(said[0]))


async def test_one_that_dies_later_tells_how(start: Start) -> None:
    died = await start(f"{READY}; echo out of luck >&2; exit 7")
    killed = await start(f"{READY}; kill -11 $$")

    first, second = await died.wait(), await killed.wait()

    assert (first.code, first.exit_code, first.message) == ("ModelServerDied", 7, "Model mnist:1: out of luck")
    assert (second.exit_code, second.message) == (-11, "Model mnist:1: the model server was killed by SIGSEGV")


async def test_one_that_heeds_no_term_is_killed_after_the_grace_with_all_its_group(start: Start) -> None:
    said: list[str] = []
    server = await start(f"trap '' TERM; sleep 1000 & echo $! >&2; {READY}; wait; wait", said)
    await asyncio.wait_for(_until(lambda: bool(said)), 30)
    child = psutil.Process(int(said[0]))

    await server.stop(0.2)

    assert (await server.wait()).exit_code == -9
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    "line",
    [
        "[" * 60_000,
        '{"ready": true}',
        '{"ready": true, "signatures": [], "grpc_port": 0, "rest_port": 70000}',
        '{"ready": true, "signatures": [1], "grpc_port": 1, "rest_port": 1}',
        '{"ready": true, "signatures": [], "grpc_port": true, "rest_port": 1}',
    ],
)
def test_what_a_script_prints_is_not_taken_for_the_servers_word(line: str) -> None:
    assert _as_ready(line) is None
