"""The rendezvous of a ring: who is let in, what is kept, who is waited for, and what the loss of a node does."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from services.trainer_agent.horovod import Ring
from services.trainer_agent.horovod.http import Request, Response, read_response
from services.trainer_agent.horovod.server import ask
from services.trainer_agent.horovod.store import Refused, Store
from tests.horovod_gangs import SECRET, a_gang, free_port

A, B = "127.0.0.2", "127.0.0.3"


class Nodes:
    """Rings of two agents; what is asked is asked as a rank of theirs does."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rings: dict[str, Ring] = {}
        self.port = free_port(A)
        self.members = [("agent-a", A, self.port), ("agent-b", B, free_port(B))]

    def ring(self, agent_id: str, **options: bool) -> Ring:
        self.rings[agent_id] = Ring(agent_id, patience_seconds=60.0, clock=lambda: self.now, **options)
        return self.rings[agent_id]

    async def formed(self, round_: int = 1, **options: bool) -> None:
        """Both know the gang; the first had started before."""
        await self.ring("agent-a", **options).start(A, self.port, SECRET)
        self.ring("agent-b", **options)
        for ring in self.rings.values():
            ring.formed(a_gang(self.members, round_=round_))

    async def ask(self, agent_id: str, path: str, method: str = "GET", body: bytes = b"", secret: str = SECRET) -> Response:
        index = 0 if agent_id == "agent-a" else 1
        gang = a_gang(self.members)
        given = self.rings[agent_id].variables(gang, gang.members[index].ranks[0])
        address, port = given["HOROVOD_GLOO_RENDEZVOUS_ADDR"], int(given["HOROVOD_GLOO_RENDEZVOUS_PORT"])
        return await ask(Request(method, path, secret, body), address, port, address, 30.0)


@pytest_asyncio.fixture
async def nodes() -> AsyncIterator[Nodes]:
    made = Nodes()
    yield made
    for ring in made.rings.values():
        await ring.close()


async def test_what_a_rank_of_one_node_puts_a_rank_of_the_other_gets_byte_for_byte(nodes: Nodes) -> None:
    await nodes.formed()

    assert (await nodes.ask("agent-b", "/1-0.global/2", "PUT", b"\x00\xffaddress\r\n\r\n")).status == 200

    assert await nodes.ask("agent-a", "/1-0.global/2") == Response(200, b"\x00\xffaddress\r\n\r\n")
    assert await nodes.ask("agent-b", "/1-0.global/2") == Response(200, b"\x00\xffaddress\r\n\r\n")


async def test_a_rank_that_asks_before_another_has_come_is_answered_when_it_comes(nodes: Nodes) -> None:
    await nodes.formed()
    early = asyncio.create_task(nodes.ask("agent-b", "/1-0.global/all_2"))

    await nodes.ask("agent-a", "/1-0.global/here_0", "PUT", b"1")
    await nodes.ask("agent-b", "/1-0.global/here_1", "PUT", b"1")

    assert (await early).status == 200


async def test_ranks_that_did_not_come_are_named_when_the_time_is_up(nodes: Nodes) -> None:
    await nodes.formed()
    await nodes.ask("agent-a", "/1-0.global/here_0", "PUT", b"1")
    await nodes.ask("agent-b", "/1-0.global/here_3", "PUT", b"1")

    answer = Response(404)
    while answer.status == 404:
        waiting = asyncio.create_task(nodes.ask("agent-b", "/1-0.global/all_4"))
        while not waiting.done():
            nodes.now += 5.0
            await nodes.ask("agent-a", "/1-0.global/rank_0", "PUT", b"1")
        answer = await waiting

    assert answer.status == 410
    assert b"within 60 s of the first: rank 1 on agent-a; rank 2 on agent-b did not" in answer.body


async def test_a_rank_that_is_through_takes_its_keys_along(nodes: Nodes) -> None:
    await nodes.formed()
    for key in ("0", "rank_0", "here_0"):
        await nodes.ask("agent-a", f"/1-0.global/{key}", "PUT", b"x")

    await nodes.ask("agent-a", "/1-0.global/0", "DELETE")

    store = vars(nodes.rings["agent-a"])["_store"]
    assert vars(store)["_scopes"] == {}
    assert (vars(store)["_bytes"], vars(store)["_keys"]) == (0, 0)


@pytest.mark.parametrize("secret", ["", "wrong", SECRET[:-1]])
async def test_a_stranger_without_the_secret_is_refused_and_nothing_is_kept(nodes: Nodes, secret: str) -> None:
    await nodes.formed()

    refused = await nodes.ask("agent-a", "/1-0.global/0", "PUT", b"mine now", secret=secret)

    assert refused.status == 403
    assert b"mine" not in refused.body
    await nodes.ask("agent-a", "/1-0.global/0", "PUT", b"the rank's")
    assert (await nodes.ask("agent-a", "/1-0.global/0")).body == b"the rank's"


async def test_who_is_on_no_node_of_the_run_is_refused_with_the_secret_too(nodes: Nodes) -> None:
    await nodes.ring("agent-a").start(A, nodes.port, SECRET)
    gang = a_gang([("agent-a", "192.0.2.1", nodes.port), ("agent-b", "192.0.2.2", 1)])
    nodes.rings["agent-a"].formed(gang)
    vars(nodes.rings["agent-a"])["_address"] = "192.0.2.1"

    answer = await ask(Request("PUT", "/1-0.global/0", SECRET, b"x"), A, nodes.port, A, 30.0)

    assert answer == Response(403, b"This address is not of the run.")


class Trap:
    sprung = False

    def __reduce__(self) -> tuple[Callable[..., None], tuple[()]]:
        return (_spring, ())


def _spring() -> None:
    Trap.sprung = True


@pytest.mark.parametrize("path", ["/1-0.global/0", "/worker_addresses/agent-a:0", "/rank_and_size/agent-a:0", "/runfunc/func"])
async def test_a_pickle_is_bytes_like_any_other_and_is_never_opened(nodes: Nodes, path: str) -> None:
    await nodes.formed()
    poison = pickle.dumps(Trap())

    answer = await nodes.ask("agent-a", path, "PUT", poison)
    await nodes.ask("agent-a", path)

    assert answer.status == (200 if path == "/1-0.global/0" else 400)
    assert not Trap.sprung


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /1-0.global/0 HTTP/1.1\r\nAuthorization: Bearer \xc3\xa9\r\n\r\n",
        b"BREW /1-0.global/0 HTTP/1.1\r\n\r\n",
        b"\x80\x04\x95garbage\r\n\r\n",
        b"GET /1-0.global/0 HTTP/1.1\r\n" + b"X: y\r\n" * 100 + b"\r\n",
        b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\n\r\n",
        b"PUT /1-0.global/0 HTTP/1.1\r\nAuthorization: Bearer %s\r\nContent-Length: 99999999\r\n\r\n" % SECRET.encode(),
        b"PUT /1-0.global/0 HTTP/1.1\r\nAuthorization: Bearer %s\r\nContent-Length: -1\r\n\r\n" % SECRET.encode(),
        b"PUT /1-0.global/0 HTTP/1.1\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n" % SECRET.encode(),
        b"PUT /../../etc/passwd HTTP/1.1\r\nAuthorization: Bearer %s\r\nContent-Length: 1\r\n\r\nx" % SECRET.encode(),
        b"PUT /1-0.global/a%%2fb HTTP/1.1\r\nAuthorization: Bearer %s\r\nContent-Length: 1\r\n\r\nx" % SECRET.encode(),
    ],
)
async def test_what_is_no_request_is_refused_and_the_next_is_served(nodes: Nodes, sent: bytes) -> None:
    await nodes.formed()
    reader, writer = await asyncio.open_connection(A, nodes.port, local_addr=(A, 0))

    writer.write(sent)
    answer = await read_response(reader)
    writer.close()

    assert answer.status in (400, 403)
    assert (await nodes.ask("agent-a", "/1-0.global/0", "PUT", b"x")).status == 200


def test_what_is_kept_has_bounds() -> None:
    store = Store()

    with pytest.raises(Refused):
        store.put("1-0.global", "0", bytes((4 << 20) + 1))
    for scope, key in (("global", "0"), ("1-0.global", "../x"), ("1-0.global", ""), ("1-0." + "x" * 300, "0"), ("1-0.global", "x" * 65)):
        with pytest.raises(Refused):
            store.put(scope, key, b"x")

    assert vars(store)["_keys"] == 0


async def test_a_place_in_the_first_round_is_told_at_once_and_in_the_next_when_it_begins(nodes: Nodes) -> None:
    await nodes.formed(elastic=True)
    first = json.loads((await nodes.ask("agent-b", "/place/1/0-0")).body)
    waiting = asyncio.create_task(nodes.ask("agent-b", "/place/1/1-0"))
    news = asyncio.create_task(nodes.ask("agent-b", "/round/1"))

    shrunk = a_gang(nodes.members[1:], round_=2)
    nodes.rings["agent-b"].formed(shrunk)

    assert first == {"round": 1, "attempt": 0, "rank": 3, "size": 4, "local_rank": 1, "local_size": 2, "cross_rank": 1, "cross_size": 2}
    second = json.loads((await waiting).body)
    assert second == {"round": 2, "attempt": 0, "rank": 1, "size": 2, "local_rank": 1, "local_size": 2, "cross_rank": 0, "cross_size": 1}
    assert json.loads((await news).body) == {"round": 2, "added": False, "removed": True}


async def test_a_node_that_joins_is_told_as_one_that_was_added(nodes: Nodes) -> None:
    await nodes.ring("agent-a", elastic=True).start(A, nodes.port, SECRET)
    nodes.rings["agent-a"].formed(a_gang(nodes.members[:1]))

    nodes.rings["agent-a"].formed(a_gang(nodes.members, round_=2))

    assert json.loads((await nodes.ask("agent-a", "/round/1")).body) == {"round": 2, "added": True, "removed": False}


async def test_when_the_first_node_is_lost_the_next_keeps_the_rendezvous(nodes: Nodes) -> None:
    await nodes.formed(elastic=True)
    nodes.members.append(("agent-c", "127.0.0.4", free_port("127.0.0.4")))
    third = nodes.ring("agent-c", elastic=True)
    await nodes.rings.pop("agent-a").close()
    stuck = asyncio.create_task(nodes.ask("agent-b", "/1-0.global/all_4"))

    left = a_gang(nodes.members[1:], round_=2)
    third.formed(left)
    nodes.rings["agent-b"].formed(left)

    assert (await stuck).status == 410
    given = third.variables(left, 2)
    address, port = given["HOROVOD_GLOO_RENDEZVOUS_ADDR"], int(given["HOROVOD_GLOO_RENDEZVOUS_PORT"])
    put = await ask(Request("PUT", "/2-0.global/2", SECRET, b"mine"), address, port, address, 30.0)
    assert put.status == 200
    assert (await nodes.ask("agent-b", "/2-0.global/2")).body == b"mine"


async def test_ranks_that_all_lost_touch_without_the_loss_of_a_node_meet_again_in_the_same_round(nodes: Nodes) -> None:
    await nodes.formed(elastic=True)
    asked = [asyncio.create_task(nodes.ask(agent, f"/place/{local}/1-0")) for agent in ("agent-a", "agent-b") for local in range(2)]

    places = [json.loads((await it).body) for it in asked]

    assert [it["rank"] for it in places] == [0, 1, 2, 3]
    assert {(it["round"], it["attempt"]) for it in places} == {(1, 1)}


async def test_a_rank_whose_node_left_the_gang_is_told_so(nodes: Nodes) -> None:
    await nodes.formed(elastic=True)

    nodes.rings["agent-b"].formed(a_gang(nodes.members[:1], round_=2))

    answer = await nodes.ask("agent-b", "/place/0/1-0")
    assert answer == Response(410, b"agent-b is no part of round 2 of the ring.")


async def test_a_round_that_comes_late_or_twice_changes_nothing(nodes: Nodes) -> None:
    await nodes.formed(round_=3, elastic=True)

    for round_ in (3, 2, 1):
        nodes.rings["agent-a"].formed(a_gang(nodes.members[:1], round_=round_))

    assert json.loads((await nodes.ask("agent-a", "/place/0/0-0")).body)["size"] == 4
