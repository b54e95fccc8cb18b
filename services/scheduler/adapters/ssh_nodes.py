"""Nodes on listed hosts, by the program `ssh`: one agent a host. What is known lies on the hosts, so a new scheduler finds it there."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from services.scheduler.adapters.pauses import Pauses
from services.scheduler.ports import NodeRefused, NodeState, NodeStatus

_SCRIPT = (Path(__file__).parent / "remote_node.py").read_bytes()
_CONNECT_SECONDS = 10
_WHOLE_SECONDS = 30.0
_AT_ONCE = 16
_UNREACHABLE = 255
_STATES = {"up": NodeState.UP, "leaving": NodeState.LEAVING, "ended": NodeState.BROKEN}


class SshNodes:
    """Node `<pool>-<position>` is the host at that position. A host that cannot be reached makes its own node broken and no other."""

    def __init__(self, pool: str, definition: Any) -> None:
        self._definition = definition
        self._hosts = {f"{pool}-{position}": host for position, host in enumerate(definition.hosts)}
        self._unreachable = Pauses()
        self._started = Pauses()
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def states(self, names: Collection[str], heard: Collection[str]) -> dict[str, NodeStatus]:
        for name in heard:
            self._unreachable.fine(name)
            self._started.fine(name)
        looked = sorted(name for name in names if name in self._hosts and name not in heard)
        found = await asyncio.gather(*(self._state(name) for name in looked))
        spoken = {name: NodeStatus(NodeState.UP) for name in heard if name in self._hosts}
        return spoken | {name: status for name, status in zip(looked, found, strict=True) if status is not None}

    async def start(self, agent_id: str) -> None:
        if why := self._unreachable.pausing(agent_id) or self._started.pausing(agent_id):
            raise NodeRefused(why)
        await self._ask("start", agent_id)
        self._started.failed(agent_id, f"{self._hosts[agent_id]}: its process was started a moment ago and has ended")

    async def stop(self, agent_id: str) -> None:
        await self._ask("stop", agent_id)

    async def _state(self, name: str) -> NodeStatus | None:
        if why := self._unreachable.pausing(name):
            return NodeStatus(NodeState.BROKEN, why)
        try:
            answer = await self._ask("state", name)
        except NodeRefused as refused:
            return NodeStatus(NodeState.BROKEN, str(refused))
        state = _STATES.get(answer.get("state", ""))
        if state is None:
            return None
        why = f"{self._hosts[name]}: {answer.get('why', '')}"[:1000]
        return NodeStatus(state, why if state is NodeState.BROKEN else "")

    async def _ask(self, verb: str, name: str) -> dict[str, Any]:
        """What the host's end says. Raises NodeRefused, and leaves the host alone for a while then."""
        host = self._hosts.get(name)
        if host is None:
            raise NodeRefused(f"no host is listed for {name}")
        try:
            async with self._room:
                return await self._call(host, verb, name)
        except NodeRefused as refused:
            self._unreachable.failed(name, str(refused))
            raise

    async def _call(self, host: str, verb: str, name: str) -> dict[str, Any]:
        words = [self._definition.python, "-", verb, name, self._definition.settings_file]
        code, output, errors = await _run([*self._ssh(host), shlex.join(words)], host)
        if code == 0:
            try:
                answer: dict[str, Any] = json.loads(output.decode(errors="replace").strip().splitlines()[-1])
                return answer
            except (ValueError, IndexError) as error:
                raise NodeRefused(f"{host} answered {output[-200:]!r}; does its shell print at login?") from error
        said = " | ".join(errors.decode(errors="replace").strip().splitlines()[-3:])[-600:] or "it said nothing"
        if code == _UNREACHABLE:
            raise NodeRefused(f"{host} cannot be reached by ssh: {said}")
        raise NodeRefused(f"{host}: {self._definition.python} ended with {code}: {said}")

    def _ssh(self, host: str) -> Sequence[str]:
        """The command line up to the command. The grammar of hosts and files is checked where a pool is made."""
        address, port = _split(host)
        options = ["BatchMode=yes", "StrictHostKeyChecking=yes", f"ConnectTimeout={_CONNECT_SECONDS}", "ServerAliveInterval=10"]
        if self._definition.known_hosts_file:
            options += [f"UserKnownHostsFile={self._definition.known_hosts_file}", "GlobalKnownHostsFile=none"]
        words = ["ssh", "-T", "-x", "-a"]
        for option in options:
            words += ["-o", option]
        if self._definition.identity_file:
            words += ["-o", "IdentitiesOnly=yes", "-i", str(Path(self._definition.identity_file).expanduser())]
        return [*words, *(["-p", port] if port else []), "--", address]


def _split(host: str) -> tuple[str, str]:
    """Address with user, and port; the brackets of an IPv6 address are the list's, not ssh's."""
    head, _, tail = host.rpartition(":")
    address, port = (head, tail) if head and tail.isdigit() else (host, "")
    return address.replace("[", "").replace("]", ""), port


async def _run(words: Sequence[str], host: str) -> tuple[int, bytes, bytes]:
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise NodeRefused(f"the program ssh cannot be started here: {error.strerror}") from error
    try:
        async with asyncio.timeout(_WHOLE_SECONDS):
            output, errors = await process.communicate(_SCRIPT)
    except TimeoutError as error:
        raise NodeRefused(f"{host} did not answer within {_WHOLE_SECONDS:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output, errors
