"""A rank's side of its agent's rendezvous: which place it has in a round, and word of the next one. Standard library alone.

It speaks JSON, and only where an agent started the rank: elsewhere HOROVOD_ROUND is not set, and Horovod does as it always did.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

_MOST_BYTES = 1 << 20
# The agent answers every question within 20 seconds, if only with "not yet".
_ANSWER_SECONDS, _AGAIN_SECONDS = 60.0, 0.5
_PLACE = ("rank", "size", "local_rank", "local_size", "cross_rank", "cross_size")


class LeftRing(RuntimeError):
    """This rank is no part of the next round, or there will be none."""


def counts_rounds() -> bool:
    return "HOROVOD_ROUND" in os.environ


def is_elastic() -> bool:
    return counts_rounds() and os.environ.get("HOROVOD_ELASTIC") == "1"


def take_place() -> None:
    """Waits for its place in the gang's next shape, or in the same one once every rank has lost touch, and sets the variables of that
    place. Raises LeftRing."""
    slot, last = os.environ["HOROVOD_SLOT"], os.environ.get("HOROVOD_LAST_ROUND", "0-0")
    place = _ask(f"/place/{slot}/{last}")
    os.environ.update({f"HOROVOD_{name.upper()}": str(int(place[name])) for name in _PLACE})
    os.environ["HOROVOD_ROUND"] = os.environ["HOROVOD_LAST_ROUND"] = f"{int(place['round'])}-{int(place['attempt'])}"


def current_round() -> int:
    return int(os.environ.get("HOROVOD_LAST_ROUND", "0-0").partition("-")[0])


def watch(heard: Callable[[int, bool, bool], None]) -> threading.Thread:
    """Calls `heard(round, added, removed)` from a thread of its own for every round that begins from now on."""

    def listen() -> None:
        last = current_round()
        while True:
            try:
                news = _ask(f"/round/{last}")
            except LeftRing:
                return
            last = int(news["round"])
            heard(last, bool(news["added"]), bool(news["removed"]))

    thread = threading.Thread(target=listen, name="horovod-rounds", daemon=True)
    thread.start()
    return thread


def _ask(path: str) -> dict[str, Any]:
    """The answer, however long it takes; an agent that cannot be reached is asked again, for a rank dies with its agent."""
    address, port = os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], int(os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"])
    headers = {"Authorization": f"Bearer {os.environ['HOROVOD_RENDEZVOUS_SECRET']}"}
    while True:
        connection = http.client.HTTPConnection(address, port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException):
            time.sleep(_AGAIN_SECONDS)
            continue
        finally:
            connection.close()
        if response.status == 200:
            return dict(json.loads(body))
        if response.status in (403, 410):
            raise LeftRing(body.decode(errors="replace"))
        if response.status != 404:
            time.sleep(_AGAIN_SECONDS)
