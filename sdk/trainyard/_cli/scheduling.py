"""`trainyard queue`, and `trainyard scheduler`: who waits, why, and how the queue is ordered."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from trainyard._cli import completion, replay
from trainyard._cli.common import All, AsOf, Config, Json, Limit, Token, as_of, new_group, page_of, workspace, wrong
from trainyard._cli.output import emit, iso, note, rows, text
from trainyard._cli.shapes import status

group = new_group("How waiting runs share the nodes.")
policy_group = new_group("The policy of the queue: fair shares, weights, quotas, aging.")
group.add_typer(policy_group, name="policy")
group.command("replay")(replay.replay)
_COLUMNS = ("pool", "position", "runId", "priority", "share", "queuedAt", "why")
# What the scheduler gives in one answer.
_MOST = 1000


def queue(
    pool: Annotated[str, typer.Option(help="only this pool's", autocompletion=completion.pools)] = "",
    experiment: Annotated[str, typer.Option(help="only runs of this experiment", autocompletion=completion.experiments)] = "",
    limit: Limit = 100,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Runs that wait for nodes, in the order of their turn: position, priority, share, and why each waits."""
    from trainyard.cluster.v1 import cluster_pb2
    from trainyard.job.v1 import job_pb2

    clients = workspace(config)._clients
    if pool:
        names = [clients.call(clients.compute.GetPool, cluster_pb2.GetPoolRequest(name=pool)).pool.name]
    else:
        names = [it.name for it in clients.call(clients.compute.ListPools, cluster_pb2.ListPoolsRequest()).pools]
    policy = clients.call(clients.compute.GetPolicy, cluster_pb2.GetPolicyRequest()).policy
    found: list[dict[str, Any]] = []
    for name in names:
        waiting = clients.call(clients.jobs.ListRuns, job_pb2.ListRunsRequest(queue_of=name, limit=_MOST)).runs
        if len(waiting) == _MOST:
            note(f"Of pool {name!r} the first {_MOST} are looked at.")
        found += [_row(name, run, policy) for run in waiting if experiment in ("", run.experiment)]
    found = page_of(found, lambda it: str(it["runId"]), limit=limit, token=page_token, everything=everything)
    for row in found if not as_json else ():
        share = row["share"]
        row["share"] = f"{share['by']} {share['name'] or '(nobody)'}, weight {share['weight']:g}" if share else ""
    rows(found, _COLUMNS, as_json=as_json)


def _row(pool: str, run: Any, policy: Any) -> dict[str, Any]:
    from trainyard import _gang
    from trainyard._policy import share_of

    return {
        "pool": pool,
        "position": run.position or None,
        "runId": run.run_id,
        "experiment": run.experiment,
        "user": run.spec.user or None,
        "status": status(run.status),
        "priority": run.spec.priority,
        "nodes": _gang.node_count(run.spec.distribution),
        "share": share_of(policy, run.experiment, run.spec.user),
        "queuedAt": iso(run.queued_at),
        "why": run.why,
    }


@policy_group.command("show")
def policy_show(at: AsOf = "", as_json: Json = False, config: Config = None) -> None:
    """The policy in force, as `set` takes it; with --as-of the one that was."""
    from trainyard.cluster.v1 import cluster_pb2
    from trainyard.history.v1 import history_pb2

    clients = workspace(config)._clients
    if then := as_of(at):
        found = clients.call(clients.history.GetPolicy, history_pb2.GetPolicyRequest(as_of=then)).policy
    else:
        found = clients.call(clients.compute.GetPolicy, cluster_pb2.GetPolicyRequest()).policy
    _show(found, as_json)


@policy_group.command("set")
def policy_set(
    file: Annotated[Path, typer.Argument(help="YAML: fair_share, weights, quotas, aging_seconds, backfill, preemption")],
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Put a policy in force, the whole of it: what the file does not name goes to its default."""
    from trainyard import _policy, _yaml
    from trainyard.cluster.v1 import cluster_pb2

    try:
        wish = _yaml.read(file.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise wrong(f"{str(file)!r} cannot be read as YAML: {error}", str(file)) from error
    request = cluster_pb2.SetPolicy(submission_id=uuid.uuid4().hex, policy=_policy.to_message(wish))
    clients = workspace(config)._clients
    _show(clients.call(clients.compute.SetPolicy, request).policy, as_json)


def _show(policy: Any, as_json: bool) -> None:
    import yaml

    from trainyard._policy import from_message

    shown = from_message(policy)
    if as_json:
        emit(shown)
    else:
        text(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip())
