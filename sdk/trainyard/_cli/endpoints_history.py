"""`trainyard endpoint history`: what became of an endpoint, and which models answered when; and endpoints as they were."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trainyard._cli import completion
from trainyard._cli.common import AsOf, Config, Json, as_of, workspace
from trainyard._cli.output import emit, rows
from trainyard._errors import WebserviceException
from trainyard._times import as_utc

Name = Annotated[str, typer.Argument(help="the endpoint's name, of one that was deleted too", autocompletion=completion.endpoints)]


def endpoint_history(name: Name, at: AsOf = "", as_json: Json = False, config: Config = None) -> None:
    """What became of it, oldest first, and which models answered when."""
    found = _told(config, name, at)
    turns, services = [_turn(it) for it in found.turns], [_service(it) for it in found.services]
    if as_json:
        emit({"name": name, "turns": turns, "services": services})
        return
    rows(turns, ("at", "what", "why"), as_json=False)
    ended = [{**it, "what": f"deployment {it['deployment']}: {it['model']}", "why": f"until {it['until'] or 'now'}"} for it in services]
    rows(ended, ("from", "what", "why"), as_json=False)


def endpoint_then(config: str | None, name: str, at: str) -> dict[str, Any]:
    """What answered at that moment, and what had become of it last."""
    found = _told(config, name, at)
    return {"name": name, "services": [_service(it) for it in found.services if not it.HasField("until")], "last": _turn(found.turns[-1])}


def endpoints_then(config: str | None, at: str) -> list[dict[str, Any]]:
    """Every endpoint of that moment."""
    from trainyard.history.v1 import history_pb2

    clients = workspace(config)._clients
    answer = clients.call(clients.history.ListEndpoints, history_pb2.ListEndpointsRequest(as_of=as_of(at)), WebserviceException)
    return [
        {
            "name": it.name,
            "model": ", ".join(_models(service) for service in it.services),
            "deployment": ", ".join(str(service.deployment) for service in it.services),
            "last": it.last.what,
            "at": as_utc(it.last.at).isoformat(),
        }
        for it in answer.endpoints
    ]


def _told(config: str | None, name: str, at: str) -> Any:
    from trainyard.history.v1 import history_pb2

    clients = workspace(config)._clients
    return clients.call(clients.history.GetEndpoint, history_pb2.GetEndpointRequest(name=name, as_of=as_of(at)), WebserviceException)


def _turn(turn: Any) -> dict[str, Any]:
    return {"at": as_utc(turn.at).isoformat(), "what": turn.what, "why": turn.why}


def _service(service: Any) -> dict[str, Any]:
    return {
        "deployment": int(service.deployment),
        "model": _models(service),
        "from": as_utc(getattr(service, "from")).isoformat(),
        "until": as_utc(service.until).isoformat() if service.HasField("until") else None,
    }


def _models(service: Any) -> str:
    return ", ".join(f"{it.model}:{it.version}" for it in service.models)
