"""Keys and values by which ranks find each other, in scopes: "2-0.global". Bytes are kept as they come and never looked into."""

from __future__ import annotations

import asyncio
import re

_MOST_VALUE_BYTES = 4 << 20
_MOST_BYTES = 256 << 20
_MOST_KEYS = 200_000
_SCOPE = re.compile(r"[0-9]{1,9}-[0-9]{1,9}\.[A-Za-z0-9_.-]{1,200}", re.ASCII)
_KEY = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_OF_ONE_RANK = ("", "rank_", "here_")


class Refused(Exception):
    """The request breaks a bound; says which."""


class Store:
    def __init__(self) -> None:
        self._scopes: dict[str, dict[str, bytes]] = {}
        self._begun: dict[str, float] = {}
        self._bytes = 0
        self._keys = 0
        self._news = asyncio.Event()

    def put(self, scope: str, key: str, value: bytes) -> None:
        """Raises Refused."""
        _check(scope, key)
        old = self._scopes.get(scope, {}).get(key)
        bytes_, keys = self._bytes + len(value) - len(old or b""), self._keys + (old is None)
        if len(value) > _MOST_VALUE_BYTES or bytes_ > _MOST_BYTES or keys > _MOST_KEYS:
            raise Refused(f"A value may have {_MOST_VALUE_BYTES} bytes; {_MOST_KEYS} keys and {_MOST_BYTES} bytes are kept in all.")
        self._bytes, self._keys = bytes_, keys
        self._scopes.setdefault(scope, {})[key] = value
        self.tell()

    def get(self, scope: str, key: str) -> bytes | None:
        """Raises Refused."""
        _check(scope, key)
        return self._scopes.get(scope, {}).get(key)

    def delete(self, scope: str, rank: str) -> None:
        """A rank of the scope is through with it: its keys go. Raises Refused."""
        _check(scope, rank)
        keys = self._scopes.get(scope, {})
        for prefix in _OF_ONE_RANK:
            gone = keys.pop(f"{prefix}{rank}", None)
            if gone is not None:
                self._bytes -= len(gone)
                self._keys -= 1
        if not keys:
            self._scopes.pop(scope, None)
            self._begun.pop(scope, None)

    def ranks(self, scope: str) -> set[int]:
        """Those that have come to the scope."""
        found = (key.removeprefix("here_") for key in self._scopes.get(scope, {}) if key.startswith("here_"))
        return {int(rank) for rank in found if rank.isdecimal()}

    def since(self, scope: str, now: float) -> float:
        """When somebody first waited there; `now` if nobody has. Nothing is remembered of a scope without keys."""
        return self._begun.setdefault(scope, now) if scope in self._scopes else now

    def forget_before(self, round_: int) -> None:
        """Rounds that are over."""
        for scope in [it for it in self._scopes if int(it.partition("-")[0]) < round_]:
            keys = self._scopes.pop(scope)
            self._begun.pop(scope, None)
            self._bytes -= sum(map(len, keys.values()))
            self._keys -= len(keys)

    def tell(self) -> None:
        """Whoever waits for news looks again."""
        self._news.set()
        self._news = asyncio.Event()

    async def news(self, seconds: float) -> None:
        """Returns at the next change, or when the time is up."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass


def round_of(scope: str) -> int:
    """Raises Refused."""
    if not _SCOPE.fullmatch(scope):
        raise Refused("That is no scope.")
    return int(scope.partition("-")[0])


def _check(scope: str, key: str) -> None:
    round_of(scope)
    if not _KEY.fullmatch(key):
        raise Refused("That is no key.")
