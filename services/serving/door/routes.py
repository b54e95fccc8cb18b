"""Where a call goes: the endpoint that serves the model, and of its deployments one by weight. Pure but for reading the table's file."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.serving.access import Access

ENDPOINT_HEADER = "trainyard-endpoint"
_PARTS = 10_000
_LOOK_SECONDS = 0.1
_WAITING = 32
AWAKE_SECONDS = 60.0


@dataclass(frozen=True)
class Backend:
    """One deployment's server."""

    deployment: int
    grpc: str = ""  # host:port
    rest: str = ""
    certificate: str = ""  # in PEM, where it speaks TLS
    cname: str = ""  # the name that its own callers use then
    version: int = 0  # of the model that it serves; 0: it is code, or nobody says


@dataclass(frozen=True)
class Route:
    """An endpoint that answers."""

    endpoint: str
    model: str  # by which the calls know it; "" for code without one
    has_code: bool
    main: Backend
    beside: Backend | None = None
    percent: float = 0.0  # of the calls that go to the one beside
    sticky_by: str = ""  # calls with the same value of this header go to the same one
    asleep: bool = False  # its server has to be started first, or is being started
    shadow: bool = False  # the one beside gets a copy of what goes to the main one, and nobody waits for it
    unlisted: bool = False  # it is reached by its own name alone
    keys: str = ""  # the file that says who may call it; "": everybody


class NoRoute(Exception):
    """Why a call cannot be passed on."""


class Unserved(NoRoute):
    """No endpoint serves the model."""


class Refused(NoRoute):
    """The caller may not wake it."""


class NotAwake(NoRoute):
    """Its server is being started still."""


class Table:
    """`<home>/door.json`, read again when it changes. A file that cannot be read leaves what was known."""

    def __init__(
        self,
        file: Path,
        chance: Callable[[], float] = random.random,
        wake: Callable[[str], None] = lambda _: None,
        *,
        is_private: bool = True,
    ) -> None:
        """`wake` asks for an endpoint's server; it may be called many times. `is_private`: nobody but this machine reaches the door, so calls
        to servers that speak TLS may come without."""
        self._file = file
        self._is_private = is_private
        self._wake = wake
        self._chance = chance
        self._seen: tuple[int, int] | None = None
        self._routes: dict[str, Route] = {}
        self._lock = threading.Lock()
        self._waiting = threading.Semaphore(_WAITING)
        self._access: dict[str, Access] = {}

    def by_endpoint(self, endpoint: str) -> Route:
        """Raises NoRoute."""
        routes = self._current()
        if endpoint in routes:
            return routes[endpoint]
        raise NoRoute(f"no endpoint {endpoint[:100]!r} answers; there is: {', '.join(sorted(routes)) or 'none'}")

    def by_model(self, model: str, endpoint: str = "") -> Route:
        """`endpoint`: where several serve the model. Raises NoRoute."""
        if endpoint:
            return self.by_endpoint(endpoint)
        found = [it for it in self.listed() if it.model == model]
        if len(found) == 1:
            return found[0]
        if not found:
            raise Unserved(f"no endpoint serves a model {model[:100]!r}")
        names = ", ".join(sorted(it.endpoint for it in found))
        raise NoRoute(f"model {model[:100]!r} is served by {names}: say which in the header {ENDPOINT_HEADER}")

    def awake(self, route: Route, seconds: float, authorization: str | None = None) -> Route:
        """The route once its server answers. Raises NoRoute where that takes longer, it is gone, or the caller has no key: a server that
        runs says so itself, and none is started for that."""
        if not route.asleep:
            return route
        if why := self._refusal(route, authorization):
            raise Refused(why)
        # Each waits on a thread of the door, which all other endpoints need as well.
        if not self._waiting.acquire(blocking=False):
            self._wake(route.endpoint)
            what = f"the server of endpoint {route.endpoint!r} is being started, and {_WAITING} calls wait for servers already"
            raise NotAwake(f"{what}: call again in a moment")
        try:
            deadline = time.monotonic() + seconds
            while route.asleep:
                self._wake(route.endpoint)
                if time.monotonic() >= deadline:
                    raise NotAwake(f"the server of endpoint {route.endpoint!r} is being started, and did not answer within {seconds:.0f} s")
                time.sleep(_LOOK_SECONDS)
                route = self.by_endpoint(route.endpoint)
            return route
        finally:
            self._waiting.release()

    def listed(self) -> list[Route]:
        """Those that answer to the names of their models."""
        return [it for it in self._current().values() if it.model and not it.has_code and not it.unlisted]

    def choose(self, route: Route, header: Callable[[str], str | None], version: int | None = None) -> tuple[Backend, Backend | None]:
        """Who answers, and who gets a copy. `version`: of the model, where the call names one; chance has no say then. Raises NoRoute where
        the call came in the clear and must not."""
        main = route.main
        if main.certificate and not self._is_private:
            port = main.rest.rpartition(":")[2]
            what = f"endpoint {route.endpoint!r} speaks TLS, and this door does not"
            raise NoRoute(
                f"{what}: call it at https://{main.cname}:{port}"
                + (f", gRPC {main.cname}:{main.grpc.rpartition(':')[2]}" if main.grpc else "")
            )
        beside = route.beside
        if beside is None:
            return route.main, None
        if version is not None and route.main.version != beside.version:
            # What nobody has the main one says it does not have. A copy of what its server does not have would be no copy.
            return (beside if version == beside.version and not route.shadow else route.main), None
        value = header(route.sticky_by) if route.sticky_by else None
        at = self._chance() if value is None else part_of(route.endpoint, value)
        if at * 100 < route.percent:
            return beside, None
        return route.main, beside if route.shadow else None

    def _refusal(self, route: Route, authorization: str | None) -> str:
        if route.main.certificate and not self._is_private:
            return ""  # its callers have to keep their keys for its own address
        return self._access.setdefault(route.keys, Access(route.keys)).refusal(authorization)

    def _current(self) -> Mapping[str, Route]:
        with self._lock:
            try:
                status = self._file.stat()
                seen = (status.st_mtime_ns, status.st_ino)
                if seen != self._seen:
                    self._routes = {name: parsed(name, told) for name, told in json.loads(self._file.read_text()).items()}
                    self._seen = seen
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                pass
            return self._routes


def part_of(endpoint: str, value: str) -> float:
    """From 0 to 1, the same for the same value: another endpoint's split falls elsewhere."""
    digest = hashlib.sha256(f"{endpoint}\0{value}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _PARTS / _PARTS


def parsed(endpoint: str, told: Mapping[str, Any]) -> Route:
    beside = told.get("beside")
    return Route(
        endpoint,
        str(told["model"]),
        bool(told["has_code"]),
        Backend(**told["main"]),
        Backend(**beside) if beside else None,
        float(told.get("percent", 0)),
        str(told.get("sticky_by", "")).lower(),
        bool(told.get("asleep", False)),
        bool(told.get("shadow", False)),
        bool(told.get("unlisted", False)),
        str(told.get("keys", "")),
    )
