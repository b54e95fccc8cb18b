"""Gangs of a ring, as the scheduler forms them, for tests of what agents make of them."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from trainyard.job.v1.job_pb2 import GangFormed, GangMember

SECRET = "the secret of the run"


def free_port(address: str) -> int:
    """Free at this moment, as a port is that an agent reserves."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def a_gang(members: Sequence[tuple[str, str, int]], *, each: int = 2, round_: int = 1, secret: str = SECRET) -> GangFormed:
    """`members`: (agent id, address, the port of its rendezvous); `each`: ranks a member."""
    made = GangFormed(run_id="ring", epoch=1, round=round_, secret=secret)
    for index, (agent_id, address, port) in enumerate(members):
        ranks = range(index * each, (index + 1) * each)
        made.members.append(GangMember(agent_id=agent_id, address=address, ports=[*range(1, each + 1), port], ranks=ranks))
    return made
