"""Real ranks of real rings: what an agent does with them, in one test process."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.trainer_agent.horovod import Ring
from tests.horovod_gangs import SECRET, a_gang, free_port
from trainyard.job.v1.job_pb2 import GangFormed

SCRIPTS = Path(__file__).parents[2] / "system" / "scripts" / "horovod"
# A loaded machine has little to spare for each rank.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


class Rank:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output: asyncio.Future[str] = asyncio.ensure_future(self._read())

    async def _read(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.read()).decode()


class Node:
    """One agent's part: its ring, and the processes that it starts."""

    def __init__(self, agent_id: str, address: str, python: Path, folder: Path, *, elastic: bool = False, port: int = 0) -> None:
        self.agent_id = agent_id
        self.address = address
        self.port = port or free_port(address)
        self.ring = Ring(agent_id, elastic=elastic)
        self.ranks: list[Rank] = []
        self._python = python
        self._folder = folder

    async def start(self, gang: GangFormed, argv: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """`gang` was told to the ring before."""
        mine = next(it for it in gang.members if it.agent_id == self.agent_id)
        for rank in mine.ranks:
            given = {
                "PATH": os.environ["PATH"],
                "HOME": str(self._folder),
                **_QUIET,
                **(variables or {}),
                **self.ring.variables(gang, rank),
            }
            process = await asyncio.create_subprocess_exec(
                str(self._python), *argv, cwd=self._folder, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            self.ranks.append(Rank(process))

    async def lost(self) -> None:
        """As when the machine goes down: nothing of it speaks to anybody any more."""
        for rank in self.ranks:
            if rank.process.returncode is None:
                rank.process.kill()
        await asyncio.gather(*(rank.process.wait() for rank in self.ranks))
        await asyncio.gather(*(rank.output for rank in self.ranks))
        await self.ring.close()

    async def outputs(self) -> list[str]:
        """Of all ranks, which have ended well. Raises AssertionError with what they said where one has not."""
        told = [await rank.output for rank in self.ranks]
        codes = [await rank.process.wait() for rank in self.ranks]
        assert not any(codes), f"{self.agent_id}: {codes}\n" + "\n".join(told)
        return told


def gang_of(nodes: Sequence[Node], *, each: int = 2, round_: int = 1) -> GangFormed:
    return a_gang([(it.agent_id, it.address, it.port) for it in nodes], each=each, round_=round_)


async def run_all(nodes: Sequence[Node], argv: Sequence[str], variables: Mapping[str, str] | None = None) -> list[str]:
    """The last line of every rank, by rank."""
    await nodes[0].ring.start(nodes[0].address, nodes[0].port, SECRET)
    gang = gang_of(nodes)
    for node in nodes:
        node.ring.formed(gang)
        await node.start(gang, argv, variables)
    return [text.strip().splitlines()[-1] for node in nodes for text in await node.outputs()]
