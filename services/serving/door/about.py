"""What the door says of itself and of the models behind it, from its table alone; as the Open Inference Protocol has it, in plain dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from services.serving.door.routes import ENDPOINT_HEADER, Route

NAME = "trainyard-door"
_SERVER = {
    "name": NAME,
    "version": "1",
    "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics"],
}


def server() -> dict[str, Any]:
    return dict(_SERVER)


def index(routes: Iterable[Route], *, ready: bool = False) -> list[dict[str, str]]:
    """The models that answer here by name, a version each. `ready`: only those whose servers run."""
    listed = sorted(routes, key=lambda it: (it.model, it.endpoint))
    served = Counter(it.model for it in listed)
    found: dict[tuple[str, int], dict[str, str]] = {}
    for route in listed:
        beside = [route.beside] if route.beside is not None and not route.shadow else []
        for backend in (route.main, *beside):
            state = ("UNAVAILABLE", "its server sleeps or is being started: a call waits for it") if route.asleep else ("READY", "")
            several = f"several endpoints serve it: say which in {ENDPOINT_HEADER}" if served[route.model] > 1 else ""
            told = {"name": route.model, "version": str(backend.version or ""), "state": state[0]}
            if why := "; ".join(filter(None, (state[1], several))):
                told["reason"] = why
            key = (route.model, backend.version)
            if key not in found or found[key]["state"] != "READY":
                found[key] = told
    return [it for it in found.values() if not ready or it["state"] == "READY"]
