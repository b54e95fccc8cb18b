"""One run's ring on one node: the rendezvous that its ranks ask, and what makes them ranks.

Each agent answers the ranks that it starts, and hands on to the gang's first member what all must see. So the loss of any node,
the first as well, leaves every rank with somebody to ask: the next round has a first member again.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from services.trainer_agent.horovod.http import BadRequest, Request, Response
from services.trainer_agent.horovod.places import place_of, size_of, who_is_missing
from services.trainer_agent.horovod.server import Server, ask
from services.trainer_agent.horovod.store import Refused, Store, round_of
from services.trainer_agent.horovod.variables import variables

_HELD_SECONDS, _ANSWER_SECONDS, _AGAIN_SECONDS = 5.0, 10.0, 0.1
EVERYBODY, AGAIN = ".global", ".again"
"""Ends of scopes: of all ranks of a round, and of those that ask for another attempt at it."""
_NOT_YET = Response(404)
_PLACE = re.compile(r"/place/([0-9]{1,4})/([0-9]{1,9})-([0-9]{1,9})", re.ASCII)
_ROUND = re.compile(r"/round/([0-9]{1,9})", re.ASCII)
_ALL = re.compile(r"all_([0-9]{1,6})", re.ASCII)
_KEY = re.compile(r"/([^/]+)/([^/]+)")


class Ring:
    """`patience_seconds`: how long the ranks that have come wait for the others. Lives on the event loop that calls it."""

    def __init__(
        self, agent_id: str, *, elastic: bool = False, patience_seconds: float = 600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._agent_id = agent_id
        self._elastic = elastic
        self._patience = patience_seconds
        self._clock = clock
        self._store = Store()
        self._server = Server(lambda: self._secrets, self._peers, self._answer)
        self._gang: Any = None
        self._joined = self._left = 0
        """The round that last brought members, and the one that last lost some."""
        self._secrets: list[str] = []
        self._address = ""
        self._port = 0
        self._lead_port = 0
        self._troubled_since: float | None = None

    async def start(self, address: str, port: int, secret: str) -> None:
        """Of the first member, before its ports are told: what others hand on is taken from now on. Raises OSError."""
        self._address, self._port = address, self._server.listen(address, port)
        self._lead_port = self._port
        self._secrets.append(secret)

    def formed(self, gang: Any) -> None:
        """A GangFormed of this attempt: the first one before ranks start, those of elastic gangs as they come. A lower round changes nothing."""
        if self._gang is not None and gang.round <= self._gang.round:
            return
        mine = next((it for it in gang.members if it.agent_id == self._agent_id), None)
        if gang.secret and gang.secret not in self._secrets:
            self._secrets.append(gang.secret)
        if mine is not None and not self._port:
            self._address, self._port = mine.address, self._server.listen(mine.address, 0)
        if mine is not None and gang.members[0] is mine and not self._lead_port:
            self._lead_port = mine.ports[-1]
            self._server.listen_soon(mine.address, self._lead_port)
        known = {it.agent_id for it in self._gang.members} if self._gang is not None else set()
        now = {it.agent_id for it in gang.members}
        self._joined = gang.round if now - known else self._joined
        self._left = gang.round if known - now else self._left
        self._gang = gang
        self._store.forget_before(gang.round)
        self._store.tell()

    def variables(self, gang: Any, rank: int) -> dict[str, str]:
        """Of one of this node's ranks. `gang` was given to `formed` before. Raises ValueError where the agent's address is none of this node."""
        mine = next(it for it in gang.members if it.agent_id == self._agent_id)
        return variables(
            place_of(gang, mine, list(mine.ranks).index(rank)),
            host=self._agent_id,
            address=self._address,
            port=self._port,
            secret=self._secrets[-1],
            round_=f"{gang.round}-0",
            elastic=self._elastic,
        )

    async def close(self) -> None:
        await self._server.close()

    # -- what is asked

    def _peers(self) -> set[str]:
        members = self._gang.members if self._gang is not None else ()
        return {self._address, *(it.address for it in members)}

    async def _answer(self, request: Request) -> Response:
        try:
            if matched := _PLACE.fullmatch(request.path):
                return await self._place(*map(int, matched.groups()))
            if matched := _ROUND.fullmatch(request.path):
                return await self._round_after(int(matched[1]))
            if matched := _KEY.fullmatch(request.path):
                return await self._key(request, matched[1], matched[2])
        except Refused as error:
            return Response(400, str(error).encode())
        return Response(400, b"There is no such path.")

    async def _place(self, local_rank: int, round_: int, attempt: int) -> Response:
        """Its place in a later round; or in the same one, as another attempt at it, once all of its ranks have asked."""
        until = self._clock() + _HELD_SECONDS
        while self._clock() < until:
            gang = self._gang
            if gang is not None and gang.round > round_:
                return self._place_in(gang, local_rank, 0)
            if gang is not None and gang.round == round_ and await self._all_ask(gang, local_rank, attempt):
                return self._place_in(gang, local_rank, attempt + 1)
            await self._store.news(min(1.0, until - self._clock()))
        return _NOT_YET

    def _place_in(self, gang: Any, local_rank: int, attempt: int) -> Response:
        mine = next((it for it in gang.members if it.agent_id == self._agent_id), None)
        if mine is None or local_rank >= len(mine.ranks):
            return Response(410, f"{self._agent_id} is no part of round {gang.round} of the ring.".encode())
        found = {"round": gang.round, "attempt": attempt, **asdict(place_of(gang, mine, local_rank))}
        return Response(200, json.dumps(found).encode())

    async def _all_ask(self, gang: Any, local_rank: int, attempt: int) -> bool:
        mine = next((it for it in gang.members if it.agent_id == self._agent_id), None)
        if mine is None or local_rank >= len(mine.ranks):
            return False
        scope = f"{gang.round}-{attempt}{AGAIN}"
        await self._key(Request("PUT", f"/{scope}/here_{mine.ranks[local_rank]}", body=b"1"), scope, f"here_{mine.ranks[local_rank]}")
        every = f"all_{size_of(gang)}"
        return (await self._key(Request("GET", f"/{scope}/{every}"), scope, every)).status == 200

    async def _round_after(self, round_: int) -> Response:
        until = self._clock() + _HELD_SECONDS
        while self._gang is None or self._gang.round <= round_:
            if self._clock() >= until:
                return _NOT_YET
            await self._store.news(until - self._clock())
        news = {"round": self._gang.round, "added": self._joined > round_, "removed": self._left > round_}
        return Response(200, json.dumps(news).encode())

    # -- keys: the first member keeps them for all

    async def _key(self, request: Request, scope: str, key: str) -> Response:
        wanted = round_of(scope)
        if self._gang is None or self._gang.round < wanted:
            return Response(503, b"That round has not begun here.")
        until = self._clock() + _HELD_SECONDS
        while self._gang.round == wanted:
            is_lead = self._gang.members[0].agent_id == self._agent_id
            response = self._keep(request, scope, key) if is_lead else await self._hand_on(request)
            if response is not None and (response.status != 404 or self._clock() >= until):
                return response
            # What is kept here says when it changes; the first member has held its answer back already.
            await self._store.news(min(1.0, until - self._clock()) if is_lead else _AGAIN_SECONDS)
        return Response(410, f"Round {wanted} of the ring is over: round {self._gang.round} has begun.".encode())

    def _keep(self, request: Request, scope: str, key: str) -> Response:
        if request.method == "PUT":
            self._store.put(scope, key, request.body)
            return Response(200)
        if request.method == "DELETE":
            self._store.delete(scope, key)
            return Response(200)
        if matched := _ALL.fullmatch(key):
            return self._are_all_there(scope, int(matched[1]))
        value = self._store.get(scope, key)
        return _NOT_YET if value is None else Response(200, value)

    def _are_all_there(self, scope: str, count: int) -> Response:
        there, now = self._store.ranks(scope), self._clock()
        if len(there) >= count:
            return Response(200, b"1")
        if now - self._store.since(scope, now) < self._patience or scope.endswith(AGAIN):
            return _NOT_YET
        missing = who_is_missing(self._gang, there) if scope.endswith(EVERYBODY) else f"{count - len(there)} of {count} ranks"
        why = f"Not all ranks came to Horovod's rendezvous within {self._patience:.0f} s of the first: {missing} did not. Does every rank call hvd.init()?"
        return Response(410, why.encode())

    async def _hand_on(self, request: Request) -> Response | None:
        """The first member's answer; None where it has none yet."""
        lead = self._gang.members[0]
        try:
            asked = replace(request, secret=self._secrets[-1])
            response = await ask(asked, lead.address, lead.ports[-1], self._address, _ANSWER_SECONDS)
            trouble = response.body.decode(errors="replace") if response.status in (403, 503) else ""
        except (OSError, TimeoutError, BadRequest) as error:
            response, trouble = None, f"{type(error).__name__}: {error}"
        if not trouble:
            self._troubled_since = None
            return response
        now = self._clock()
        self._troubled_since = self._troubled_since or now
        if now - self._troubled_since < self._patience:
            return None
        where = f"{lead.agent_id} at {lead.address}:{lead.ports[-1]}, which keeps the ring's rendezvous,"
        return Response(410, f"{where} gave no answer for {self._patience:.0f} s. {trouble}".encode())
