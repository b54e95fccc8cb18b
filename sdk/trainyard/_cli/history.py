"""`trainyard history`."""

from __future__ import annotations

import sys
from typing import Any

from trainyard._cli.common import Config, Json, Yes, confirm, new_group, stream, workspace
from trainyard._cli.output import emit, note, one, rows, say
from trainyard._errors import PlatformUnavailableException

group = new_group("Run history: what has been folded from the log, and folding it anew.")


@group.command("status")
def history_status(as_json: Json = False, config: Config = None) -> None:
    """How far history has come, by topic and partition."""
    found = status_of(workspace(config)._clients)
    if as_json:
        emit(found)
        return
    one({name: value for name, value in found.items() if name != "applied"}, as_json=False)
    say()
    rows(found["applied"], ("topic", "partition", "nextOffset", "endOffset", "lag"), as_json=False)


@group.command("rebuild")
def history_rebuild(yes: Yes = False, as_json: Json = False, config: Config = None) -> None:
    """Replay the whole log into a new database and swap it in; the old one answers meanwhile."""
    from trainyard.history.v1 import history_pb2

    clients = workspace(config)._clients
    confirm("Replay the whole log?", yes)
    last: Any = None
    said = -1
    for last in stream(clients.history.RebuildHistory(history_pb2.RebuildHistoryRequest())):
        percent = 100 * last.events // max(last.of, 1)
        if percent // 10 > said // 10 or sys.stderr.isatty():
            note(f"{last.events} of {last.of} events")
            said = percent
    if last is None or not last.done:
        raise PlatformUnavailableException("The rebuild ended before it was done; the old history goes on.", target="history")
    one({"events": int(last.events), "of": int(last.of), "done": True}, as_json=as_json)


def status_of(clients: Any) -> dict[str, Any]:
    """History's own word, with the lag in records."""
    from trainyard.history.v1 import history_pb2

    found = clients.call(clients.history.GetHistoryStatus, history_pb2.GetHistoryStatusRequest())
    applied = [
        {
            "topic": it.topic,
            "partition": it.partition,
            "nextOffset": int(it.next_offset),
            "endOffset": int(it.end_offset),
            "lag": max(int(it.end_offset) - int(it.next_offset), 0),
        }
        for it in found.applied
    ]
    return {
        "database": found.database,
        "events": int(found.events),
        "lag": sum(it["lag"] for it in applied),
        "rebuilding": found.rebuilding,
        "applied": applied,
    }
