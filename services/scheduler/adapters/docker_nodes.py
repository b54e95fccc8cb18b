"""Nodes as containers of this machine's Docker engine, by its HTTP interface on a Unix socket. The engine keeps what is known, as labels."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx

from services.chassis.settings import Settings
from services.scheduler.adapters.pauses import Pauses
from services.scheduler.ports import NodeRefused, NodeState, NodeStatus, ProviderTrouble

POOL, AGENT, HOME = "trainyard.pool", "trainyard.agent", "trainyard.home"
_STATES = {
    "created": NodeState.BROKEN,
    "running": NodeState.UP,
    "restarting": NodeState.UP,
    "paused": NodeState.UP,
    "removing": NodeState.LEAVING,
    "exited": NodeState.BROKEN,
    "dead": NodeState.BROKEN,
}
_GRACE_SECONDS = 20
_SECONDS = 60.0
_INSIDE = "/etc/trainyard/agent.toml"
_CACHE = "/var/cache/trainyard"
_NO_IMAGE = 404
_HARMLESS = (304, 404, 409)


class DockerNodes:
    """Node `<pool>-<position>` is a container of that name and the stack's mark. The image's own command must start the agent."""

    def __init__(self, pool: str, definition: Any, settings: Settings) -> None:
        self._pool = pool
        self._definition = definition
        self._settings = settings
        self._mark = str(settings.home.resolve())
        self._started = Pauses()

    async def states(self, names: Collection[str], heard: Collection[str]) -> dict[str, NodeStatus]:
        for name in heard:
            self._started.fine(name)
        return {name: await self._status(container) for name, container in (await self._containers()).items() if name}

    async def start(self, agent_id: str) -> None:
        if why := self._started.pausing(agent_id):
            raise NodeRefused(why)
        known = (await self._containers()).get(agent_id)
        if known is not None and known["State"] in ("running", "restarting", "paused"):
            return
        if known is not None:
            # Made anew: the image or the settings may be others by now.
            await self._call("DELETE", f"/containers/{known['Id']}", params={"force": "true"}, harmless=_HARMLESS)
        made = await self._call("POST", "/containers/create", params={"name": self._container(agent_id)}, body=self._wish(agent_id))
        await self._call("POST", f"/containers/{made['Id']}/start", harmless=_HARMLESS)
        self._started.failed(agent_id, f"its container was started a moment ago and has ended: docker logs {self._container(agent_id)}")

    async def stop(self, agent_id: str) -> None:
        known = (await self._containers()).get(agent_id)
        if known is not None:
            # TERM, and KILL after the grace; the engine sees to it, and does not answer before.
            await self._call("POST", f"/containers/{known['Id']}/stop", params={"t": str(_GRACE_SECONDS)}, harmless=_HARMLESS)
            await self._call("DELETE", f"/containers/{known['Id']}", params={"force": "true"}, harmless=_HARMLESS)

    async def _containers(self) -> dict[str, Any]:
        """Agent id -> the engine's summary."""
        wanted = json.dumps({"label": [f"{POOL}={self._pool}", f"{HOME}={self._mark}"]})
        found = await self._call("GET", "/containers/json", params={"all": "true", "filters": wanted})
        return {item["Labels"].get(AGENT, ""): item for item in found}

    async def _status(self, container: Any) -> NodeStatus:
        state = _STATES.get(container["State"], NodeState.UP)
        if state is not NodeState.BROKEN:
            return NodeStatus(state)
        name = container["Labels"].get(AGENT, "")
        words = (await self._last_words(container["Id"])) if container["State"] == "exited" else "it was not started"
        return NodeStatus(state, f"its container {self._container(name)} has ended ({container['Status']}): {words}"[:1000])

    async def _last_words(self, container_id: str) -> str:
        params = {"stdout": "true", "stderr": "true", "tail": "3"}
        content = await self._call("GET", f"/containers/{container_id}/logs", params=params, harmless=_HARMLESS, as_bytes=True)
        lines = [line.strip() for line in _text(content).splitlines() if line.strip()]
        return " | ".join(lines)[-600:] or "it printed nothing"

    def _container(self, agent_id: str) -> str:
        return f"trainyard-{agent_id}"

    def _wish(self, agent_id: str) -> dict[str, Any]:
        settings = self._settings.scheduler.agent_settings
        if not settings or not Path(settings).is_file():
            why = f"names {settings}, which is no file" if settings else "is not set"
            raise NodeRefused(f"the setting scheduler.agent_settings {why}: agents in containers learn from it where Kafka and MinIO are")
        owner = Path(settings).stat()
        return {
            "Image": self._definition.image,
            "User": f"{owner.st_uid}:{owner.st_gid}",  # nobody else may read the keys; and no script is root unless we are
            "Hostname": agent_id,
            "Env": [
                f"TRAINYARD_AGENT__ID={agent_id}",
                f"TRAINYARD_SETTINGS={_INSIDE}",
                f"TRAINYARD_CACHE={_CACHE}",
                f"TRAINYARD_HOME={_CACHE}/home",
                "PYTHONUNBUFFERED=1",
            ],
            "Labels": {POOL: self._pool, AGENT: agent_id, HOME: self._mark},
            "HostConfig": {
                "NetworkMode": self._definition.network or "host",
                "Init": True,
                "Binds": [f"{Path(settings).resolve()}:{_INSIDE}:ro", f"trainyard-cache-{self._pool}:{_CACHE}"],
                "RestartPolicy": {"Name": "no"},
            },
        }

    async def _call(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None = None,
        body: Any = None,
        harmless: Collection[int] = (),
        *,
        as_bytes: bool = False,
    ) -> Any:
        """The engine's answer. Raises NodeRefused with what it says, and ProviderTrouble where no engine answers."""
        socket = self._settings.scheduler.docker_socket
        transport = httpx.AsyncHTTPTransport(uds=socket)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://docker", timeout=_SECONDS) as client:
                answer = await client.request(method, path, params=params, json=body)
        except (httpx.HTTPError, OSError) as error:
            raise ProviderTrouble(f"no Docker engine answers at {socket}: {error or type(error).__name__}") from error
        if answer.is_success or answer.status_code in harmless:
            if as_bytes:
                return answer.content
            try:
                return answer.json() if answer.content and answer.is_success else {}
            except ValueError as error:
                raise ProviderTrouble(f"what answers at {socket} is no Docker engine: {answer.text[:200]}") from error
        raise NodeRefused(f"the Docker engine refused: {_message(answer)}{self._hint(answer)}")

    def _hint(self, answer: httpx.Response) -> str:
        """Images are not fetched unasked: they are large, and a mistyped name would fetch a stranger's."""
        is_image = answer.status_code == _NO_IMAGE and answer.request.url.path.endswith("/create")
        return f"; make it known to the engine first, by `docker pull` or `docker build -t {self._definition.image}`" if is_image else ""


def _text(stream: bytes) -> str:
    """The engine sends pieces of output and error, each behind eight bytes: which of them, and how long."""
    pieces, at = [], 0
    while len(stream) >= at + 8:
        length = int.from_bytes(stream[at + 4 : at + 8], "big")
        pieces.append(stream[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(pieces).decode(errors="replace")


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])[:600]
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text[:200]}"
