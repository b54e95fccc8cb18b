"""`trainyard scheduler replay`: what another policy would have made of the recorded log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from trainyard._cli.common import Config, Json, moment, workspace
from trainyard._cli.output import emit, note, rows
from trainyard._errors import PlatformUnavailableException, TrainyardException, UserErrorException

_COLUMNS = ("figure", "recorded", "replayed", "policy", "difference")
_ALL = ("recorded", "replayed", "policy", "difference")


def replay(
    policy: Annotated[Path, typer.Option("--policy", help="YAML, as `trainyard scheduler policy set` takes it")],
    begin: Annotated[
        str, typer.Option("--from", help="an ISO time, 90s, 30m, 2h, 7d ago, or TOPIC/PARTITION@OFFSET; else the first run")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="likewise: runs submitted later are left out; else the last run")] = "",
    nodes: Annotated[int, typer.Option(min=0, max=10_000, help="as if each pool had so many nodes; 0: as it had")] = 0,
    log: Annotated[Path | None, typer.Option(help="a file that `trainyard events tail --json` wrote, instead of the stack's log")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Run the recorded log again under another policy, on a virtual clock, and show the difference. Nothing of the stack is changed."""
    if find_spec("services") is None or find_spec("services.scheduler") is None:
        raise TrainyardException(
            "This host has the client alone, and no scheduler to decide anew.",
            code="NoCheckout",
            hint="check Trainyard out here, run `make setup`, then `.venv/bin/trainyard scheduler replay` there",
        )
    source = ["--log", str(log)] if log is not None else ["--kafka", str(workspace(config)._stack["kafka_bootstrap"])]
    command = [sys.executable, "-m", "services.scheduler.simulation", *source, "--policy", str(policy), "--nodes", str(nodes)]
    command += [*_at("--from", begin), *_at("--to", end)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    found = _answer(done.stdout, done.returncode)
    if as_json:
        emit(found)
        return
    rows(_table(found), _COLUMNS, as_json=False)
    if found["assumed"]:
        note(f"{found['assumed']} of {found['runs']} runs had not ended, or never ran: how long they take is assumed")
    for run_id, why in found["waiting"].items():
        note(f"nothing places {run_id}: {why}")


def _at(option: str, text: str) -> list[str]:
    """A place in the log is looked up there; a time is worked out here, since `2h` is counted from now."""
    if not text:
        return []
    return [f"{option}={text if '@' in text else moment(text, option).isoformat()}"]


def _answer(told: bytes, code: int) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(told)
    except ValueError as error:
        raise TrainyardException(
            f"The replay ended with exit code {code} and without an answer; see above.", code="ReplayFailed"
        ) from error
    if "error" in found:
        kind = {"Unavailable": PlatformUnavailableException, "UserError": UserErrorException}.get(
            found["error"]["code"], TrainyardException
        )
        raise kind(found["error"]["message"], code=found["error"]["code"])
    return found


def _table(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A line a figure; of experiments and users the mean wait."""
    for name in ("completed", "failed", "canceled", "unfinished"):
        yield _row(f"runs {name}", found, "runs", name)
    for name in ("mean", "p50", "p95", "most"):
        yield _row(f"wait {name}, s", found, "waits", name)
    yield _row("nodes in use, share", found, "utilisation", "node_seconds", "share")
    yield _row("GPUs in use, share", found, "utilisation", "gpu_seconds", "share")
    for name in ("preemptions", "lost_attempts", "restarts"):
        yield _row(name.replace("_", " "), found, name)
    yield _row("makespan, s", found, "makespan")
    for group in ("experiments", "users"):
        for name in sorted({it for column in _ALL for it in found[column][group]}):
            yield _row(f"wait of {group[:-1]} {name or '(nobody)'}, mean, s", found, group, name, "mean")


def _row(label: str, found: dict[str, Any], *path: str) -> dict[str, Any]:
    row: dict[str, Any] = {"figure": label}
    for column in _ALL:
        value: Any = found[column]
        for key in path:
            value = value.get(key) if value is not None else None
        row[column] = value
    return row
