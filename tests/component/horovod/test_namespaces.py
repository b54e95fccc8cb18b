"""A ring across two network namespaces that a veth pair joins: what holds for two machines on one network."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest

from services.trainer_agent.horovod.http import Request
from services.trainer_agent.horovod.server import ask
from tests.component.horovod.ranks import SCRIPTS, Node, gang_of
from tests.horovod_gangs import SECRET

pytestmark = [
    pytest.mark.component,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and the program ip"),
]
_CLONE_NEWNET = 0x40000000
_PORT = 24_000
T = TypeVar("T")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def namespaces() -> Iterator[list[tuple[str, str]]]:
    """(name, address) of each."""
    stem = f"ty{os.getpid() % 100_000}"
    made = [(f"{stem}{letter}", f"10.203.7.{number}") for letter, number in (("a", 1), ("b", 2))]
    try:
        for name, _ in made:
            _ip("netns", "add", name)
        _ip("link", "add", f"{stem}x", "netns", made[0][0], "type", "veth", "peer", "name", f"{stem}y", "netns", made[1][0])
        for (name, address), link in zip(made, (f"{stem}x", f"{stem}y"), strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            _ip("-n", name, "link", "set", link, "up")
            _ip("-n", name, "link", "set", "lo", "up")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no network namespaces: {error.stderr.decode().strip()}")
    else:
        yield made
    finally:
        for name, _ in made:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _inside(namespace: str, work: Callable[[], Coroutine[None, None, T]]) -> Future[T]:
    """Runs it on an event loop of its own, in a thread that sees that network alone."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            with open(f"/run/netns/{namespace}") as handle:
                if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            done.set_result(asyncio.run(work()))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


def test_ranks_of_two_networks_that_a_link_joins_are_one_ring(namespaces: list[tuple[str, str]], python_215: Path, tmp_path: Path) -> None:
    made: list[Node] = []

    def node(index: int) -> Callable[[], Coroutine[None, None, list[str]]]:
        async def live() -> list[str]:
            me = made[index]
            if index == 0:
                await me.ring.start(me.address, me.port, SECRET)
            me.ring.formed(gang_of(made))
            await me.start(gang_of(made), [str(SCRIPTS / "allreduce.py")])
            try:
                return [text.strip().splitlines()[-1] for text in await me.outputs()]
            finally:
                await me.lost()

        return live

    made += [Node(f"agent-{index}", address, python_215, tmp_path, port=_PORT) for index, (_, address) in enumerate(namespaces)]
    told = [_inside(name, node(index)) for index, (name, _) in enumerate(namespaces)]

    lines = [line for each in told for line in each.result()]
    assert [line.partition(", local")[0] for line in lines] == [f"rank {rank} of 4" for rank in range(4)]
    assert all("sum 6, gathered [0, 1, 2, 3], broadcast 7" in line for line in lines)


def test_from_a_network_beside_nobody_reaches_the_rendezvous(namespaces: list[tuple[str, str]], python_215: Path, tmp_path: Path) -> None:
    (name, address), _ = namespaces
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        me = Node("agent-0", address, python_215, tmp_path, port=_PORT)
        await me.ring.start(me.address, me.port, SECRET)
        me.ring.formed(gang_of([me]))
        ready.set()
        await asyncio.to_thread(over.wait)
        await me.lost()

    serving = _inside(name, serve)
    ready.wait()

    async def knock() -> None:
        await ask(Request("PUT", "/1-0.global/0", SECRET, b"x"), "127.0.0.1", _PORT, "127.0.0.1", 5.0)

    with pytest.raises(OSError):
        asyncio.run(knock())
    over.set()
    serving.result()
