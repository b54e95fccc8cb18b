"""`trainyard experiment`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trainyard._cli.common import All, AsOf, Config, Json, Limit, Since, Token, as_of, moment, new_group, paged, workspace
from trainyard._cli.output import iso, rows

group = new_group("Experiments: the names that runs are kept under.")


@group.command("list")
def experiment_list(
    text: Annotated[str, typer.Option(help="only with this text in the name")] = "",
    since: Since = "",
    at: AsOf = "",
    limit: Limit = 100,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """By name, with how many runs each has. --since: only with a run that was queued since then."""
    from trainyard.history.v1 import history_pb2

    clients = workspace(config)._clients
    then = as_of(at)
    earliest = moment(since, "--since").timestamp() if since else 0.0

    def fetch(number: int, page: str) -> tuple[Any, str]:
        request = history_pb2.ListExperimentsRequest(page_size=number, page_token=page, as_of=then)
        answer = clients.call(clients.history.ListExperiments, request)
        return answer.experiments, answer.next_page_token

    found = paged(
        fetch, limit=limit, token=page_token, everything=everything,
        keep=lambda it: text.lower() in it.name.lower() and it.last_run_at.seconds >= earliest - 1,
    )  # fmt: skip
    listed = ({"name": it.name, "runs": int(it.runs), "lastRunAt": iso(it.last_run_at)} for it in found)
    rows(listed, ("name", "runs", "lastRunAt"), as_json=as_json)
