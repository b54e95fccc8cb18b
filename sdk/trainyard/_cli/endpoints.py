"""`trainyard endpoint`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trainyard._cli import completion, exits
from trainyard._cli.common import All, Config, Json, Limit, Token, Yes, confirm, new_group, page_of, workspace, wrong
from trainyard._cli.output import emit, fail, one, rows, say
from trainyard._errors import WebserviceException
from trainyard._text import shown_line

group = new_group("Endpoints: models behind gRPC and REST.")
Name = Annotated[str, typer.Argument(help="the endpoint's name", autocompletion=completion.endpoints)]


@group.command("list")
def endpoint_list(
    model: Annotated[str, typer.Option(help="only what serves this model", autocompletion=completion.models)] = "",
    state: Annotated[list[str] | None, typer.Option("--status", help="only in this state, e.g. Healthy; may be repeated")] = None,
    limit: Limit = 100,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """By name, with what each serves."""
    from trainyard._webservice import Webservice

    wanted = {text.lower() for text in state or ()}
    found = [
        it
        for it in Webservice.list(workspace(config))
        if model in ("", it.model_id.rpartition(":")[0]) and (not wanted or it.state.lower() in wanted)
    ]
    page = page_of(found, lambda it: it.name, limit=limit, token=page_token, everything=everything)
    rows((row(it) for it in page), ("name", "state", "model", "scoringUri", "grpcAddress", "why"), as_json=as_json)


@group.command("show")
def endpoint_show(name: Name, as_json: Json = False, config: Config = None) -> None:
    """Its state, what it serves and where it answers."""
    from trainyard._webservice import Webservice

    found = Webservice(workspace(config), name)
    one({**row(found), "error": found.error}, as_json=as_json)


@group.command("predict")
def endpoint_predict(
    name: Name,
    data: Annotated[str, typer.Option(help="the request, e.g. '{\"instances\": [[1, 2]]}'", show_default=False)] = "",
    file: Annotated[str, typer.Option(help="a file with the request; - for standard input", show_default=False)] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Send a JSON request and print the JSON answer."""
    from trainyard._webservice import Webservice

    if bool(data) == bool(file):
        raise wrong("Give either --data or --file.", "--data")
    try:
        body = data.encode() if data else sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise wrong(f"{file} cannot be read: {error.strerror}", "--file") from error
    emit(Webservice(workspace(config), name).run(body))


@group.command("logs")
def endpoint_logs(
    name: Name,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="the last so many lines")] = 200,
    contains: Annotated[str, typer.Option(help="only lines with this text, any case")] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """The last lines of its server process."""
    from trainyard._webservice import Webservice

    for line in Webservice(workspace(config), name).get_logs(limit).split("\n"):
        if contains.lower() not in line.lower():
            continue
        if as_json:
            emit({"text": line})
        else:
            say(shown_line(line))


@group.command("delete")
def endpoint_delete(name: Name, yes: Yes = False, as_json: Json = False, config: Config = None) -> None:
    """Stop serving."""
    from trainyard._webservice import Webservice

    found = Webservice(workspace(config), name)
    confirm(f"Delete the endpoint {name!r}?", yes)
    found.delete()
    one({"name": name, "deleted": True}, as_json=as_json)


def wait_for(service: Any, *, quiet: bool) -> None:
    """Raises typer.Exit with code 4 where it cannot go live."""
    try:
        service.wait_for_deployment(show_output=not quiet)
    except WebserviceException as error:
        if exits.of(error) is exits.Exit.UNAVAILABLE:
            raise
        fail(error)
        raise typer.Exit(exits.Exit.RUN_FAILED) from error


def row(service: Any) -> dict[str, Any]:
    """An endpoint in a list."""
    return {
        "name": service.name,
        "state": service.state,
        "model": service.model_id,
        "scoringUri": service.scoring_uri,
        "grpcAddress": service.grpc_address,
        "why": str(service._message.why),
    }
