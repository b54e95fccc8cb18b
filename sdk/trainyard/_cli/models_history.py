"""`trainyard model history`: what became of a version, and which endpoints answered with it; and a version as it was."""

from __future__ import annotations

from typing import Any

from trainyard._cli.common import AsOf, Config, Json, as_of, workspace
from trainyard._cli.model_names import Name
from trainyard._cli.output import emit, rows
from trainyard._errors import ModelNotFoundException
from trainyard._times import as_utc


def model_then(config: str | None, name: str, at: str) -> Any:
    """The Model as it was at that moment."""
    from trainyard._model import Model

    space = workspace(config)
    return Model._from_message(space, _told(space, name, at).version)


def model_history(name: Name, at: AsOf = "", as_json: Json = False, config: Config = None) -> None:
    """What became of a version, oldest first, and which endpoints answered with it when."""
    found = _told(workspace(config), name, at)
    turns = [{"at": as_utc(it.at).isoformat(), "what": it.what, "why": it.why} for it in found.turns]
    services = [
        {
            "endpoint": it.endpoint,
            "deployment": int(it.deployment),
            "from": as_utc(getattr(it, "from")).isoformat(),
            "until": as_utc(it.until).isoformat() if it.HasField("until") else None,
        }
        for it in found.services
    ]
    if as_json:
        emit({"id": f"{found.version.model}:{found.version.version}", "turns": turns, "services": services})
        return
    rows(turns, ("at", "what", "why"), as_json=False)
    ended = [{**it, "what": f"answered at {it['endpoint']}", "why": f"until {it['until'] or 'now'}"} for it in services]
    rows(ended, ("from", "what", "why"), as_json=False)


def _told(space: Any, name: str, at: str) -> Any:
    from trainyard._model_find import parsed
    from trainyard.history.v1 import history_pb2

    model, version, alias = parsed(name)
    clients = space._clients
    request = history_pb2.GetModelRequest(model=history_pb2.ModelRef(model=model, version=version, alias=alias), as_of=as_of(at))
    return clients.call(clients.history.GetModel, request, ModelNotFoundException)
