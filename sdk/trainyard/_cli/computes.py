"""`trainyard compute`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trainyard._cli import completion, computes_history
from trainyard._cli.common import All, AsOf, Config, Json, Limit, Since, Token, Yes, confirm, moment, new_group, page_of, workspace
from trainyard._cli.output import emit, one, rows

group = new_group("Compute targets: pools of nodes that grow and shrink.")
Name = Annotated[str, typer.Argument(help="the pool's name", autocompletion=completion.pools)]


@group.command("create")
def compute_create(
    name: Annotated[str, typer.Argument(help="2-32 letters, digits and -, a letter first")],
    vm_size: Annotated[str, typer.Option(help="a shape, e.g. STANDARD_NC6; `trainyard compute sizes` lists them")] = "LOCAL",
    priority: Annotated[str, typer.Option(help="dedicated or lowpriority")] = "dedicated",
    min_nodes: Annotated[int, typer.Option(min=0)] = 0,
    max_nodes: Annotated[int | None, typer.Option(min=1, help="else one a host, or the minimum")] = None,
    idle_seconds: Annotated[int | None, typer.Option(min=0, help="a node that idles so long is given back; 120 by default")] = None,
    provider: Annotated[str, typer.Option(help="where nodes come from: local, static (they join by hand), ssh or docker")] = "local",
    host: Annotated[list[str] | None, typer.Option(help="ssh: host, user@host or user@host:port, one a node; may be repeated")] = None,
    python: Annotated[str, typer.Option(help="ssh: a Python on the hosts that has the agent", show_default=False)] = "",
    identity_file: Annotated[str, typer.Option(help="ssh: the private key, on the scheduler's machine", show_default=False)] = "",
    known_hosts_file: Annotated[str, typer.Option(help="ssh: on the scheduler's machine", show_default=False)] = "",
    settings_file: Annotated[str, typer.Option(help="ssh: the agent's settings, on the hosts", show_default=False)] = "",
    image: Annotated[str, typer.Option(help="docker: an image whose command starts the agent", show_default=False)] = "",
    network: Annotated[str, typer.Option(help="docker: the network; else the host's", show_default=False)] = "",
    strict: Annotated[bool, typer.Option("--strict", help="refuse runs that ask for a GPU where the pool has none")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="return once the minimum of nodes is ready")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Make a pool; an equal one that is there is left as it is."""
    from trainyard._compute import AmlCompute, ComputeTarget

    wish = AmlCompute.provisioning_configuration(
        vm_size=vm_size,
        vm_priority=priority,
        min_nodes=min_nodes,
        max_nodes=max_nodes,
        idle_seconds_before_scaledown=idle_seconds,
        provider=provider,
        hosts=host,
        python=python,
        identity_file=identity_file,
        known_hosts_file=known_hosts_file,
        settings_file=settings_file,
        image=image,
        network=network,
        strict=strict,
    )
    made = ComputeTarget.create(workspace(config), name, wish)
    if wait:
        made.wait_for_completion(show_output=not as_json)
        made.refresh_state()
    one(_row(made._pool), as_json=as_json)


@group.command("list")
def compute_list(
    text: Annotated[str, typer.Option(help="only with this text in the name")] = "",
    since: Since = "",
    at: AsOf = "",
    limit: Limit = 100,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """By name, with the nodes of each; --as-of tells which there were, and which nodes each should have had."""
    from trainyard._compute import ComputeTarget

    earliest = moment(since, "--since").timestamp() if since else 0.0
    if at:
        there = computes_history.pools_then(config, at, text, earliest)
        listed = page_of(there, lambda it: str(it["name"]), limit=limit, token=page_token, everything=everything)
        rows(listed, computes_history.COLUMNS, as_json=as_json)
        return
    found = [it._pool for it in ComputeTarget.list(workspace(config))]
    kept = [it for it in found if text.lower() in it.name.lower() and it.created_at.seconds >= earliest - 1]
    page = page_of(kept, lambda it: str(it.name), limit=limit, token=page_token, everything=everything)
    rows((_row(it) for it in page), ("name", "vmSize", "minNodes", "maxNodes", "ready", "running", "note"), as_json=as_json)


@group.command("show")
def compute_show(name: Name, at: AsOf = "", as_json: Json = False, config: Config = None) -> None:
    """A pool, its nodes and what they run; with --as-of its bounds and nodes then, and what became of it up to then."""
    from trainyard._compute import AmlCompute

    if at:
        one(computes_history.pool_then(config, name, at, as_lines=not as_json), as_json=as_json)
        return
    found = AmlCompute(workspace(config), name)
    nodes = [{"nodeId": it.agent_id, "state": it.state, "runId": it.run_id or None} for it in found._pool.nodes]
    shown = {**_row(found._pool), "nodes": nodes}
    if as_json:
        emit({**shown, "status": found.get_status().serialize()})
    else:
        one(shown, as_json=False)


@group.command("update")
def compute_update(
    name: Name,
    min_nodes: Annotated[int | None, typer.Option(min=0, show_default=False)] = None,
    max_nodes: Annotated[int | None, typer.Option(min=1, show_default=False)] = None,
    idle_seconds: Annotated[int | None, typer.Option(min=0, help="a node that idles so long is given back", show_default=False)] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Give a pool other bounds, at once; what is not named stays."""
    from trainyard._compute import AmlCompute

    found = AmlCompute(workspace(config), name)
    found.update(min_nodes=min_nodes, max_nodes=max_nodes, idle_seconds_before_scaledown=idle_seconds)
    one(_row(found._pool), as_json=as_json)


@group.command("delete")
def compute_delete(name: Name, yes: Yes = False, as_json: Json = False, config: Config = None) -> None:
    """End its nodes and forget it; refused while runs use it."""
    from trainyard._compute import AmlCompute

    found = AmlCompute(workspace(config), name)
    confirm(f"Delete the pool {name!r}?", yes)
    found.delete()
    one({"name": name, "deleted": True}, as_json=as_json)


@group.command("sizes")
def compute_sizes(as_json: Json = False) -> None:
    """The shapes that --vm-size may name: cores, GiB of memory, GPUs."""
    from trainyard._compute import AmlCompute

    rows(AmlCompute.supported_vmsizes(), ("name", "vCPUs", "memoryGB", "gpus"), as_json=as_json)


def _row(pool: Any) -> dict[str, Any]:
    from trainyard._pool_status import AmlComputeStatus

    status = AmlComputeStatus(pool)
    return {
        "name": pool.name,
        "vmSize": pool.vm_size,
        "priority": pool.vm_priority,
        "minNodes": pool.min_nodes,
        "maxNodes": pool.max_nodes,
        "idleSeconds": pool.idle_before_scaledown.seconds,
        "ready": status.current_node_count,
        "running": status.node_states["running"],
        "allocationState": status.allocation_state,
        "provider": pool.provider.WhichOneof("kind") or "local",
        "createdAt": status.creation_time.isoformat().replace("+00:00", "Z"),
        "note": pool.note,
        "errors": [*pool.errors],
    }
