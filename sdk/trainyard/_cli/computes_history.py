"""Pools as they were: what `trainyard compute show` and `list` tell with --as-of."""

from __future__ import annotations

from typing import Any

from trainyard._cli.common import as_of, workspace
from trainyard._cli.output import iso
from trainyard._errors import ComputeTargetException

COLUMNS = ("name", "vmSize", "minNodes", "maxNodes", "nodes", "note")


def pool_then(config: str | None, name: str, at: str, *, as_lines: bool) -> dict[str, Any]:
    """One that was deleted by then too, if it is named."""
    from trainyard.history.v1 import history_pb2

    clients = workspace(config)._clients
    found = clients.call(clients.history.GetPool, history_pb2.GetPoolRequest(name=name, as_of=as_of(at)), ComputeTargetException)
    turns = [{"at": iso(it.at), "what": it.what, "why": it.why} for it in found.turns]
    told = [" ".join(str(value) for value in turn.values() if value) for turn in turns] if as_lines else turns
    return {**_row(found), "deleted": found.deleted, "turns": told}


def pools_then(config: str | None, at: str, text: str, earliest: float) -> list[dict[str, Any]]:
    """By name, those made since `earliest` with the text in their names."""
    from trainyard.history.v1 import history_pb2

    clients = workspace(config)._clients
    found = clients.call(clients.history.ListPools, history_pb2.ListPoolsRequest(as_of=as_of(at)), ComputeTargetException).pools
    kept = (it for it in found if text.lower() in it.created.name.lower() and it.created.created_at.seconds >= earliest - 1)
    return [_row(it) for it in kept]


def _row(pool: Any) -> dict[str, Any]:
    made = pool.created
    return {
        "name": made.name,
        "vmSize": made.vm_size,
        "priority": made.vm_priority,
        "minNodes": made.min_nodes,
        "maxNodes": made.max_nodes,
        "idleSeconds": made.idle_before_scaledown.seconds,
        "nodes": list(pool.agent_ids),
        "provider": made.provider.WhichOneof("kind") or "local",
        "createdAt": iso(made.created_at),
        "note": made.note,
    }
