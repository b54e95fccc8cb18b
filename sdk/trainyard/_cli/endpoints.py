"""`trainyard endpoint`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trainyard._cli import completion, deployment_options, endpoints_history, exits
from trainyard._cli.common import (
    All,
    AsOf,
    Config,
    Json,
    Limit,
    TagFilter,
    Token,
    Yes,
    confirm,
    has_tags,
    new_group,
    page_of,
    pairs,
    workspace,
    wrong,
)
from trainyard._cli.endpoints_replay import replay
from trainyard._cli.output import emit, fail, one, rows, say
from trainyard._errors import WebserviceException
from trainyard._text import shown_line

group = new_group("Endpoints: models behind gRPC and REST.")
Name = Annotated[str, typer.Argument(help="the endpoint's name", autocompletion=completion.endpoints)]
Wait = Annotated[bool, typer.Option("--wait", help="return once it answers; exit code 4 where it cannot go live")]


@group.command("list")
def endpoint_list(
    model: Annotated[str, typer.Option(help="only what serves this model", autocompletion=completion.models)] = "",
    state: Annotated[list[str] | None, typer.Option("--status", help="only in this state, e.g. Healthy; may be repeated")] = None,
    tag: TagFilter = None,
    limit: Limit = 100,
    page_token: Token = "",
    everything: All = False,
    at: AsOf = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """By name, with what each serves; --as-of tells what answered then, and takes no other filter."""
    from trainyard._webservice import Webservice

    if at:
        if model or state or tag:
            raise wrong("--as-of goes with none of --model, --status and --tag.", "--as-of")
        there = endpoints_history.endpoints_then(config, at)
        page = page_of(there, lambda it: str(it["name"]), limit=limit, token=page_token, everything=everything)
        rows(page, ("name", "model", "deployment", "last", "at"), as_json=as_json)
        return
    wanted = {text.lower() for text in state or ()}
    found = [
        it
        for it in Webservice.list(workspace(config), model_name=model or None)
        if (not wanted or it.state.lower() in wanted) and has_tags(it.tags, pairs(tag, "--tag", bare=True))
    ]
    shown = page_of(found, lambda it: it.name, limit=limit, token=page_token, everything=everything)
    rows((row(it) for it in shown), ("name", "state", "model", "scoringUri", "grpcAddress", "why"), as_json=as_json)


@group.command("show")
def endpoint_show(name: Name, at: AsOf = "", as_json: Json = False, config: Config = None) -> None:
    """Its state, what it serves and where it answers; --as-of tells what answered then."""
    from trainyard._webservice import Webservice

    if at:
        one(endpoints_history.endpoint_then(config, name, at), as_json=as_json)
        return
    found = Webservice(workspace(config), name)
    one({**found.serialize(), "why": str(found._message.why)}, as_json=as_json)


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


@group.command("update")
def endpoint_update(
    name: Name,
    model: Annotated[
        list[str] | None, typer.Option(help="all that it is to serve: NAME:VERSION, or NAME@ALIAS for the first; may be repeated")
    ] = None,
    script: deployment_options.Script = "",
    source: deployment_options.Source = "",
    environment: deployment_options.EnvironmentName = "",
    cpu_cores: deployment_options.Cores = None,
    memory_gb: deployment_options.Memory = None,
    idle_seconds: deployment_options.Idle = None,
    sample_rate: deployment_options.Rate = None,
    auth: deployment_options.Auth = "",
    tls_cert: deployment_options.TlsCertificate = "",
    tls_key: deployment_options.TlsKey = "",
    tls_name: deployment_options.TlsName = "",
    no_tls: Annotated[bool, typer.Option("--no-tls", help="speak no TLS any more; its addresses become others")] = False,
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; all of them replace those that are there; may be repeated")] = None,
    description: Annotated[str | None, typer.Option(help="free text")] = None,
    wait: Wait = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Change what is given; other models, code or bounds take over once they answer, without a dropped request."""
    from trainyard._webservice import Webservice

    found = Webservice(workspace(config), name)
    by_key, by_token = deployment_options.authentication_of(auth)
    tls = deployment_options.tls_of(tls_cert, tls_key, tls_name, ended=no_tls)
    found.update(
        models=model or None,
        inference_config=deployment_options.script_of(found.workspace, script, source, environment),
        tags=pairs(tag, "--tag") if tag else None,
        description=description,
        auth_enabled=by_key,
        token_auth_enabled=by_token,
        cpu_cores=cpu_cores,
        memory_gb=memory_gb,
        idle_seconds=idle_seconds,
        sample_rate=sample_rate,
        **tls,
    )
    if wait:
        wait_for(found, quiet=as_json)
    one(row(found), as_json=as_json)


@group.command("rollback")
def endpoint_rollback(
    name: Name,
    to: Annotated[
        int | None, typer.Option(min=1, help="number of a deployment that was live; without it the one before", show_default=False)
    ] = None,
    wait: Wait = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Deploy what was live before; it takes over without a dropped request."""
    from trainyard._webservice import Webservice

    found = Webservice(workspace(config), name)
    found.roll_back(to)
    if wait:
        wait_for(found, quiet=as_json)
    one(row(found), as_json=as_json)


@group.command("traffic")
def endpoint_traffic(
    name: Name,
    percent: Annotated[float, typer.Option(min=0, max=100, help="of the calls through the door; 0 without --shadow ends it")],
    version: Annotated[
        int | None, typer.Option(min=1, help="of its model, to stand beside it; without it the one that is there", show_default=False)
    ] = None,
    sticky_by: Annotated[str, typer.Option(help="a header: calls with the same value go to the same version", show_default=False)] = "",
    shadow: Annotated[bool, typer.Option("--shadow", help="copy the other calls to it; nobody sees what it answers")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Split the calls that come through the door between two versions; returns once the second one answers."""
    from trainyard._webservice import Webservice

    found = Webservice(workspace(config), name)
    found.split_traffic(percent, version, sticky_by or None, shadow)
    one({"name": name, "doorScoringUri": found.door_scoring_uri, "traffic": found.traffic}, as_json=as_json)


@group.command("keys")
def endpoint_keys(
    name: Name,
    regenerate: Annotated[str, typer.Option(help="make this key anew first: primary or secondary", show_default=False)] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Its two keys, either of which opens it."""
    from trainyard._webservice import Webservice

    found = Webservice(workspace(config), name)
    if regenerate:
        found.regen_key(regenerate)
    primary, secondary = found.get_keys()
    one({"primary": primary, "secondary": secondary}, as_json=as_json)


@group.command("token")
def endpoint_token(name: Name, as_json: Json = False, config: Config = None) -> None:
    """A token that opens it for some hours."""
    from trainyard._webservice import Webservice

    found = Webservice(workspace(config), name).get_access_token()
    one(
        {"token": found.access_token, "refreshAfter": found.refresh_after.isoformat(), "expiresOn": found.expiry_on.isoformat()},
        as_json=as_json,
    )


group.command("replay")(replay)
group.command("history")(endpoints_history.endpoint_history)


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
        "model": ", ".join(service.model_ids),
        "scoringUri": service.scoring_uri,
        "grpcAddress": service.grpc_address,
        "why": str(service._message.why),
    }
