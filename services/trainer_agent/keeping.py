"""What an attempt leaves behind, into the object store: the script's files first, then the logs, of which one says what became of those."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.trainer_agent.adapters.outputs import OutputStore
from services.trainer_agent.archive import MetricsFile
from services.trainer_agent.layout import Folders
from services.trainer_agent.node_logs import FOLDER, NodeLogs, Phase, Processes
from services.trainer_agent.restored import Placed, divided
from trainyard._errors import TrainyardException
from trainyard._gang import is_elastic, most_nodes
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet

_WARNINGS_SAID = 50


@dataclass(frozen=True)
class Kept:
    """As the report lists it."""

    outputs: ArtifactSet
    restored: ArtifactSet | None
    """What is as it was put back; None where nothing was."""
    warnings: list[str]


async def keep(
    offer: Any,
    store: OutputStore,
    folders: Folders,
    began_with: Mapping[Path, Placed] | None,
    says: NodeLogs,
    processes: Processes,
    stopped: Callable[[], bool],
) -> Kept:
    """began_with: the files of the checkpoint; None where they were not all put back. Then no rank has started, and half a checkpoint must
    not pass for what the attempt has left. Raises PlatformUnavailableException, OSError."""
    run_id, epoch, node = offer.run_id, offer.epoch, offer.node_index
    logs = folders.logs / FOLDER
    theirs = [(name, folders.code / name) for name in ("outputs", "logs") if began_with is not None]
    says.say(Phase.AFTERWARDS, "saves ./outputs and ./logs")
    files, warnings = await asyncio.to_thread(store.upload, run_id, epoch, theirs, stopped, node)
    size = sum(file.size_bytes for file in files)
    says.say(Phase.AFTERWARDS, f"{len(files)} files with {size} bytes are saved, {len(warnings)} warnings")
    for warning in warnings[:_WARNINGS_SAID]:
        says.say(Phase.AFTERWARDS, f"warning: {warning}")
    says.close()
    processes.write(logs)
    ours, more = await asyncio.to_thread(store.upload, run_id, epoch, [(FOLDER, logs)], stopped, node)
    written, untouched = await asyncio.to_thread(divided, files, folders.code, began_with or {})
    sharers = _sharers(offer.spec.distribution, bool(began_with))
    listed = await asyncio.to_thread(store.listed, run_id, epoch, [*written, *ours], stopped, node, sharers)
    restored = await asyncio.to_thread(store.listed, run_id, epoch, untouched, stopped, node, sharers) if began_with else None
    return Kept(listed, restored, warnings + more)


def _sharers(distribution: Any, has_begun_with: bool) -> int:
    """How many lists the event of the run's end may hold: of what was put back that of one node, or of all of an elastic gang."""
    nodes = most_nodes(distribution)
    return nodes + (nodes if is_elastic(distribution) else 1) * has_begun_with


async def keep_metrics(
    offer: Any, agent_id: str, store: OutputStore, metrics: MetricsFile, stopped: Callable[[], bool]
) -> tuple[Artifact | None, list[str]]:
    """What was logged, in a file beside the outputs, and what went wrong: outputs are kept all the same."""
    if not metrics.close():
        return None, [metrics.trouble] if metrics.trouble else []
    name = f"metrics/{agent_id}.binpb"
    try:
        return await asyncio.to_thread(store.file, offer.run_id, offer.epoch, name, metrics.path, stopped), []
    except (TrainyardException, OSError) as error:
        return None, [f"the metrics are not archived: {error}"[:500]]
