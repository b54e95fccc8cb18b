"""The keeper as a process, and what it holds: small shell commands stand for servers."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.serving.adapters.home_keeper import Keeper
from services.serving.adapters.kept import Kept
from services.serving.adapters.model_servers import ModelServers
from services.serving.keeper import address, frames
from services.serving.keeper.child import MOST_KEPT, Stream
from services.serving.keeper.frames import Frames, Garbled, framed
from services.serving.ports import Fetched, Ports, PortTaken
from tests.unit.serving.builders import content

READY = """echo '{"ready": true, "signatures": ["b", "a"], "grpc_port": 7001, "rest_port": 7002}'"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Deeper than the path of a socket may be."""
    folder = tmp_path / ("deep" * 20) / ("deeper" * 10)
    folder.mkdir(parents=True)
    yield folder
    address.end(folder)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def shell(keeper: Keeper, body: str, key: str = "one", **variables: str) -> asyncio.Future[Kept]:
    """The words that the keeper adds are the script's arguments."""
    environment = {"PATH": os.environ["PATH"], **variables}
    started = keeper.start(key, "digest", ["/bin/sh", "-c", body, "sh"], cwd=Path("/"), env=environment)
    return asyncio.ensure_future(started)


async def killed(keeper: Keeper) -> None:
    """As the kernel ends a service's connection; returns once the keeper has seen it, or has ended by it."""
    assert keeper._writer is not None and keeper._reading is not None
    process = psutil.Process(keeper._pid)
    keeper._pid = 0  # who is dead kills nobody
    keeper._writer.transport.abort()
    await asyncio.wait([keeper._reading])
    await until(lambda: is_over(process) or "the service is gone" in keeper._log.read_text())


def keeper_of(home: Path) -> psutil.Process:
    with address.connect(home) as connection:
        return psutil.Process(address.pid_of(connection))


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()))), st.integers(1, 50))
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages: list[frames.Message], size: int) -> None:
    sent = b"".join(map(framed, messages))
    reading = Frames()

    assert [it for at in range(0, len(sent), size) for it in reading.feed(sent[at : at + size])] == messages


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\2[]", b"\0\0\0\1{", b"\0\0\0\2\xff\xff", b"\0\0\x01\0" + b"[" * 256])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(Garbled):
        Frames().feed(data)


def test_the_oldest_output_goes_where_nobody_reads_and_that_is_said() -> None:
    reading, writing = os.pipe()
    stream = Stream(reading)
    for number in range(40):
        os.write(writing, bytes([number + 48]) * (MOST_KEPT // 32))
        assert stream.read()
    os.close(writing)

    assert not stream.read()
    found = stream.take()
    stream.close()
    first, said, rest = found.split(b"\n", 2)

    assert (first, said) == (b"", f"-- {8 * (MOST_KEPT // 32)} bytes of output are lost: nobody read them".encode())
    assert (len(rest), rest[:1], rest[-1:]) == (MOST_KEPT, bytes([8 + 48]), bytes([39 + 48]))


async def test_a_child_outlives_its_service_and_the_next_one_finds_it_with_its_note_and_what_it_wrote(home: Path) -> None:
    first, second = Keeper(home), Keeper(home)
    kept = await shell(first, f'while [ ! -e "{home}/go" ]; do sleep 0.01; done; echo late; echo "$SECRET"; exec sleep 1000', SECRET="x y")
    kept.keep({"ports": [1, 2]})
    await killed(first)
    (home / "go").touch()

    (found,) = await second.found("one")
    lines = [await found.stdout.readline() for _ in range(2)]
    again = await second.found("one")
    found.send_signal(signal.SIGTERM)

    assert (found.pid, found.digest, found.note, lines, again) == (kept.pid, "digest", {"ports": [1, 2]}, [b"late\n", b"x y\n"], [])
    assert await asyncio.wait_for(found.wait(), 30) == -signal.SIGTERM


async def test_how_a_child_ended_while_no_service_was_there_is_told(home: Path) -> None:
    first, second = Keeper(home), Keeper(home)
    await shell(first, "exec sleep 1000", key="another")  # there is something to keep
    kept = await shell(first, "exec sleep 1000", key="gone")
    await killed(first)
    os.kill(kept.pid, signal.SIGTERM)
    await until(lambda: not psutil.pid_exists(kept.pid))

    (found,) = await second.found("gone")

    assert await asyncio.wait_for(found.wait(), 30) == -signal.SIGTERM


async def test_the_newest_service_has_the_keeper(home: Path) -> None:
    first, second = Keeper(home), Keeper(home)
    kept = await shell(first, "exec sleep 1000")
    process = keeper_of(home)

    (found,) = await second.found("one")
    await until(lambda: first._writer is None)

    assert (found.pid, found.returncode, keeper_of(home)) == (kept.pid, None, process)


async def test_only_its_owner_may_speak_to_it_and_what_it_is_given_lies_in_no_file(home: Path) -> None:
    await shell(Keeper(home), "exec sleep 1000", SECRET="only-in-memory")

    assert stat.S_IMODE((home / "keeper.sock").stat().st_mode) == 0o600
    assert not [it for it in home.rglob("*") if it.is_file() and b"only-in-memory" in it.read_bytes()]
    assert "only-in-memory" not in " ".join([*keeper_of(home).environ().values(), *keeper_of(home).cmdline()])


async def test_whoever_stops_the_platform_finds_it_by_the_settings_and_its_session_is_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_SETTINGS", "/home/of/settings.toml")
    monkeypatch.setenv("TRAINYARD_OBJECT_STORE__SECRET_KEY", "hidden")
    await shell(Keeper(home), "exec sleep 1000")

    seen = keeper_of(home).environ()

    assert {name: value for name, value in seen.items() if name.startswith("TRAINYARD_")} == {
        "TRAINYARD_SETTINGS": "/home/of/settings.toml"
    }
    assert os.getsid(keeper_of(home).pid) == keeper_of(home).pid


async def test_nonsense_on_its_socket_ends_nothing(home: Path) -> None:
    keeper = Keeper(home)
    kept = await shell(keeper, "exec sleep 1000")
    keeper.send({"op": "signal"})
    keeper.send({"op": ["unknown"]})
    keeper.send({"op": "signal", "id": kept.id, "number": "nine"})
    for nonsense in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\1{",
        framed({"op": "hello"}),
        framed({"op": "signal", "id": kept.id, "number": 9}),
    ):
        with address.connect(home) as connection:
            connection.sendall(nonsense)

    other = await shell(keeper, "echo there")

    assert await other.stdout.readline() == b"there\n"
    assert kept.returncode is None


async def test_what_cannot_be_started_is_said_and_others_go_on(home: Path) -> None:
    keeper = Keeper(home)
    kept = await shell(keeper, "exec sleep 1000")
    for words in (["/no/such/program"], ["/bin/sh", "-c", "a\0b"], ["/bin/sh", "x" * (17 << 20)], [str(home)]):
        with pytest.raises(OSError):
            await keeper.start("bad", "", words, cwd=Path("/"), env={})

    assert kept.returncode is None
    assert (await shell(keeper, "exit 3", key="good")) is not None


async def test_it_ends_with_its_children_when_no_service_comes(home: Path) -> None:
    first = Keeper(home, orphan_seconds=0.2)
    stubborn = await shell(first, "trap '' HUP INT; exec sleep 1000")
    child, keeper = psutil.Process(stubborn.pid), keeper_of(home)

    await killed(first)

    await until(lambda: is_over(child) and is_over(keeper))
    assert not (home / "keeper.sock").exists()


async def test_a_service_that_leaves_takes_all_along(home: Path) -> None:
    first = Keeper(home)
    child, keeper = psutil.Process((await shell(first, "trap '' TERM; while :; do sleep 1; done")).pid), keeper_of(home)

    await first.leave()
    await killed(first)

    await until(lambda: is_over(child) and is_over(keeper))


async def test_with_a_killed_keeper_all_is_over_and_another_is_started(home: Path) -> None:
    keeper = Keeper(home)
    kept = await keeper.start(
        "one", "", ["/usr/bin/env", "python3", "-c", "import time; time.sleep(1000)"], cwd=Path("/"), env={"PATH": os.environ["PATH"]}
    )
    keeper_of(home).kill()

    assert await asyncio.wait_for(kept.wait(), 30) == -signal.SIGKILL
    assert await kept.stdout.read() == b""
    os.killpg(kept.pid, signal.SIGKILL)  # servers ask the kernel for that: see services/parent.py
    again = await shell(keeper, "echo again")
    assert await again.stdout.readline() == b"again\n"


async def test_a_keeper_of_another_code_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Keeper(home)
    await shell(first, "exec sleep 1000")
    old = keeper_of(home)
    await killed(first)
    monkeypatch.setattr("services.serving.adapters.home_keeper.PROTOCOL", frames.PROTOCOL + 1)

    found = await Keeper(home).found("one")

    assert found == []
    await until(lambda: is_over(old))


async def test_a_server_is_adopted_with_what_it_said_and_its_socket_is_lent_on(home: Path) -> None:
    script = home / "python"
    script.write_text(f"#!/bin/sh\n{READY}\nexec sleep 1000\n")
    script.chmod(0o755)
    first, second = Keeper(home), Keeper(home)
    before, after = (ModelServers(it, "127.0.0.1", home, 60) for it in (first, second))
    old = await before.start(script, content(), Fetched(home, "digest"), Ports(), lambda line: None)
    await killed(first)

    adopted = await after.adopt(content(), lambda line: None)
    assert adopted is not None
    server, digest = adopted
    assert (server.ports, server.signatures, digest) == (old.ports, ("b", "a"), "digest")
    assert await after.adopt(content(), lambda line: None) is None
    other = dataclasses.replace(content(), endpoint="other")
    with pytest.raises(PortTaken):
        await after.start(script, other, Fetched(home, "digest"), Ports(0, server.ports.rest), lambda line: None)
    new = await after.start(script, content(), Fetched(home, "digest"), Ports(0, server.ports.rest), lambda line: None)
    assert new.ports.rest == server.ports.rest
    await server.stop(5)
    assert not after.is_free(Ports(0, new.ports.rest))
    await new.stop(5)
    assert after.is_free(Ports(0, new.ports.rest))


@pytest.mark.parametrize("body", [READY, "echo $$"], ids=["of other content", "not ready yet"])
async def test_what_cannot_be_adopted_is_ended(home: Path, body: str) -> None:
    script = home / "python"
    script.write_text(f"#!/bin/sh\n{body}\nexec sleep 1000\n")
    script.chmod(0o755)
    first, second = Keeper(home), Keeper(home)
    starting = asyncio.create_task(
        ModelServers(first, "127.0.0.1", home, 60).start(script, content(), Fetched(home, "digest"), Ports(), lambda line: None)
    )
    await until(lambda: bool(first._children) and all(it.pid for it in first._children.values()))
    if body == READY:
        await starting
    (pid,) = [it.pid for it in first._children.values()]
    await killed(first)
    wanted = content() if body != READY else dataclasses.replace(content(), title="another")

    found = await ModelServers(second, "127.0.0.1", home, 60).adopt(wanted, lambda line: None)

    assert found is None
    assert not psutil.pid_exists(pid)
    await asyncio.wait([starting])
    starting.exception()


async def test_what_nobody_wants_is_ended_and_the_door_is_not(home: Path) -> None:
    script = home / "python"
    script.write_text(f"#!/bin/sh\n{READY}\nexec sleep 1000\n")
    script.chmod(0o755)
    first, second = Keeper(home), Keeper(home)
    servers = ModelServers(first, "127.0.0.1", home, 60)
    for number in (1, 2):
        await servers.start(script, dataclasses.replace(content(), deployment=number), Fetched(home, ""), Ports(), lambda line: None)
    door = await shell(first, "exec sleep 1000", key="door")
    await killed(first)

    await ModelServers(second, "127.0.0.1", home, 60).end_all_but([(content().endpoint, 2)])

    assert len(await second.found_keys()) == 2
    (left,) = await second.found("door")
    assert (left.pid, left.returncode) == (door.pid, None)
