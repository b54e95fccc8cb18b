"""Nodes as programs of the local supervisor, by its XML-RPC interface on a Unix socket."""

from __future__ import annotations

import asyncio
import http.client
import xmlrpc.client
from collections.abc import Callable, Collection
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from services.scheduler.ports import NodeRefused, NodeState, NodeStatus, ProviderTrouble

GROUP = "agents"
_STATES = {
    "STARTING": NodeState.UP,
    "RUNNING": NodeState.UP,
    "BACKOFF": NodeState.UP,
    "STOPPING": NodeState.LEAVING,
    "FATAL": NodeState.BROKEN,
}
_HARMLESS = ("ALREADY_STARTED", "NOT_RUNNING")


class SupervisedNodes:
    """The supervisor's group `agents` has one stopped program a slot: agent-0, agent-1, ..."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    async def states(self, names: Collection[str], heard: Collection[str]) -> dict[str, NodeStatus]:
        found = await self._call(lambda supervisor: supervisor.getAllProcessInfo())
        return {
            info["name"]: NodeStatus(state, f"it ended again and again: see logs/{info['name']}.log" if state is NodeState.BROKEN else "")
            for info in found
            if info["group"] == GROUP and (state := _STATES.get(info["statename"])) is not None
        }

    async def start(self, agent_id: str) -> None:
        await self._call(lambda supervisor: supervisor.startProcess(f"{GROUP}:{agent_id}", False))

    async def stop(self, agent_id: str) -> None:
        await self._call(lambda supervisor: supervisor.stopProcess(f"{GROUP}:{agent_id}", False))

    async def _call(self, action: Callable[[Any], Any]) -> Any:
        def work() -> Any:
            transport = SupervisorTransport(None, None, serverurl=f"unix://{self._socket}")
            proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
            try:
                return action(proxy.supervisor)
            except xmlrpc.client.Fault as fault:
                if any(word in str(fault.faultString) for word in _HARMLESS):
                    return None
                raise NodeRefused(f"the supervisor refused: {fault.faultString}") from fault
            except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
                raise ProviderTrouble(f"the supervisor at {self._socket} does not answer: {error}") from error
            finally:
                transport.close()

        return await asyncio.to_thread(work)
