"""Which place every rank of a ring has: among all, on its node, and among those of its number on the other nodes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """Horovod's six numbers, each counted from 0."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int

    def as_variables(self) -> dict[str, str]:
        return {f"HOROVOD_{name.upper()}": str(value) for name, value in vars(self).items()}


def place_of(gang: Any, member: Any, local_rank: int) -> Place:
    """`gang` is a GangFormed, `member` one of its members; `local_rank` counts the ranks of that member."""
    alike = [it.agent_id for it in gang.members if len(it.ranks) > local_rank]
    return Place(
        rank=member.ranks[local_rank],
        size=size_of(gang),
        local_rank=local_rank,
        local_size=len(member.ranks),
        cross_rank=alike.index(member.agent_id),
        cross_size=len(alike),
    )


def size_of(gang: Any) -> int:
    return sum(len(it.ranks) for it in gang.members)


def who_is_missing(gang: Any, there: set[int]) -> str:
    """In words: "ranks 2, 3 on agent-b"; "" where all are there."""
    parts = []
    for member in gang.members:
        ranks = [rank for rank in member.ranks if rank not in there]
        if ranks:
            parts.append(f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} on {member.agent_id}")
    return "; ".join(parts)
