"""`trainyard agent`: nodes that join a pool by hand."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from trainyard._cli import completion
from trainyard._cli.common import Config, Json, new_group, pairs, workspace, wrong
from trainyard._cli.output import note, one, rows
from trainyard._errors import ComputeTargetException, TrainyardException, UserErrorException

group = new_group("Agents: the nodes of pools, and this host as one of them.")
_ID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{0,127}\Z")
_HOW_STATIC = "trainyard compute create NAME --provider static --max-nodes N"


@group.command("join")
def agent_join(
    pool: Annotated[str, typer.Option("--pool", help="a pool with the provider static", autocompletion=completion.pools)],
    agent_id: Annotated[str, typer.Option("--id", help="the node's name, stable over restarts; else HOST-POOL", show_default=False)] = "",
    address: Annotated[str, typer.Option(help="where other nodes reach the ranks of this one; else 127.0.0.1", show_default=False)] = "",
    gpus: Annotated[str, typer.Option(help="GPUs to use: as CUDA_VISIBLE_DEVICES, e.g. 0,1; else all there are", show_default=False)] = "",
    label: Annotated[list[str] | None, typer.Option("--label", help="NAME=VALUE, for runs that ask for it; may be repeated")] = None,
    settings: Annotated[
        str, typer.Option(help="the stack's agent.toml, or a copy; else TRAINYARD_SETTINGS, or that of the stack here", show_default=False)
    ] = "",
    home: Annotated[str, typer.Option(help="where the agent keeps its runs' folders")] = "~/.trainyard",
    config: Config = None,
) -> None:
    """Make this host a node of a pool: runs the agent in the foreground. Ctrl-C lets go of what it runs, says good-bye and ends."""
    if find_spec("services") is None or find_spec("services.trainer_agent") is None:
        raise TrainyardException(
            "This host has the client alone, and no agent.",
            code="NoCheckout",
            hint="check Trainyard out here, run `make setup`, then `.venv/bin/trainyard agent join` there",
        )
    name = agent_id or f"{socket.gethostname()}-{pool}"
    if not _ID.match(name):
        raise wrong(
            f"--id: {name[:100]!r} is no name of a node: letters, digits, '.', '_' and '-', at most 128.", "--id", "give another --id"
        )
    environment = {
        **os.environ,
        "TRAINYARD_SETTINGS": str(_settings(settings, config)),
        "TRAINYARD_AGENT__ID": name,
        "TRAINYARD_AGENT__POOL": pool,
        "TRAINYARD_HOME": str(Path(home).expanduser().absolute()),
    }
    if address:
        environment["TRAINYARD_AGENT__ADDRESS"] = address
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    if label:
        environment["TRAINYARD_AGENT__LABELS"] = json.dumps(pairs(label, "--label"))
    _check_pool(pool, config)
    note(f"joins {pool} as {name}; Ctrl-C leaves")
    os.execve(sys.executable, [sys.executable, "-m", "services.trainer_agent"], environment)


@group.command("list")
def agent_list(
    pool: Annotated[str, typer.Option(help="of this pool alone", autocompletion=completion.pools)] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Every node of every pool: what it does, what it has, what is in use."""
    from trainyard._compute import AmlCompute, ComputeTarget

    space = workspace(config)
    found = [AmlCompute(space, pool)] if pool else ComputeTarget.list(space)
    listed = (_row(it.name, node) for it in found for node in it._pool.nodes)
    rows(listed, ("agent", "pool", "state", "runs", "cpus", "memoryGB", "gpus"), as_json=as_json)


@group.command("drain")
def agent_drain(
    agent: Annotated[str, typer.Argument(help="the node's name: `trainyard agent list`")],
    why: Annotated[str, typer.Option(help="for the agent's log")] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Ask an agent that joined by hand to leave: its runs go back into the queue, its process ends."""
    from trainyard.cluster.v1 import cluster_pb2

    clients = workspace(config)._clients
    clients.call(clients.compute.DrainAgent, cluster_pb2.DrainAgent(agent_id=agent, why=why), ComputeTargetException)
    one({"agent": agent, "drained": True}, as_json=as_json)


def _settings(named: str, config: str | None) -> Path:
    """The file that tells the agent where Kafka and the object store are. Raises UserErrorException where there is none."""
    text = named or os.environ.get("TRAINYARD_SETTINGS", "")
    if text:
        path, source = Path(text).expanduser(), "--settings" if named else "TRAINYARD_SETTINGS"
    else:
        try:
            path, source = Path(workspace(config)._stack["home"]) / "agent.toml", "the stack here"
        except UserErrorException as error:
            raise wrong(
                "The agent does not know where Kafka and the object store are.",
                "--settings",
                "copy agent.toml from the home of the stack (.trainyard/agent.toml) to this host and name it: --settings agent.toml",
            ) from error
    if not path.is_file():
        raise wrong(f"{source} names {path}, which is no file.", "--settings", "`trainyard up` writes agent.toml into the stack's home")
    return path.absolute()


def _check_pool(pool: str, config: str | None) -> None:
    """Says early what the scheduler would say later; on a host that has no config.json only the latter is left."""
    from trainyard._compute import AmlCompute

    try:
        space = workspace(config)
    except UserErrorException:
        return
    kind = AmlCompute(space, pool).provider
    if kind != "static":
        raise ComputeTargetException(
            f"{pool} starts its nodes itself (provider {kind}).", code="UserError", target=pool, hint=f"make a pool to join: {_HOW_STATIC}"
        )


def _row(pool: str, node: Any) -> dict[str, Any]:
    return {
        "agent": node.agent_id,
        "pool": pool,
        "state": node.state,
        "runs": list(node.run_ids),
        "cpus": f"{node.used.cpus:g}/{node.resources.cpus:g}",
        "memoryGB": f"{node.used.memory_bytes / 2**30:.3g}/{node.resources.memory_bytes / 2**30:.3g}",
        "gpus": f"{node.used.gpus}/{node.resources.gpus}",
        "labels": dict(node.labels),
    }
