"""What an attempt leaves behind, into the object store: the script's files first, then the logs, of which one says what became of those."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from services.trainer_agent.adapters.outputs import OutputStore
from services.trainer_agent.archive import MetricsFile
from services.trainer_agent.layout import Folders
from services.trainer_agent.node_logs import FOLDER, NodeLogs, Phase, Processes
from trainyard._errors import TrainyardException
from trainyard._gang import most_nodes
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet

_WARNINGS_SAID = 50


async def keep(
    offer: Any, store: OutputStore, folders: Folders, says: NodeLogs, processes: Processes, stopped: Callable[[], bool]
) -> tuple[ArtifactSet, list[str]]:
    """All of them as the report lists them, and what was left out. Raises PlatformUnavailableException, OSError."""
    run_id, epoch, node = offer.run_id, offer.epoch, offer.node_index
    logs = folders.logs / FOLDER
    theirs = [("outputs", folders.code / "outputs"), ("logs", folders.code / "logs")]
    says.say(Phase.AFTERWARDS, "saves ./outputs and ./logs")
    files, warnings = await asyncio.to_thread(store.upload, run_id, epoch, theirs, stopped, node)
    size = sum(file.size_bytes for file in files)
    says.say(Phase.AFTERWARDS, f"{len(files)} files with {size} bytes are saved, {len(warnings)} warnings")
    for warning in warnings[:_WARNINGS_SAID]:
        says.say(Phase.AFTERWARDS, f"warning: {warning}")
    says.close()
    processes.write(logs)
    ours, more = await asyncio.to_thread(store.upload, run_id, epoch, [(FOLDER, logs)], stopped, node)
    sharers = most_nodes(offer.spec.distribution)
    listed = await asyncio.to_thread(store.listed, run_id, epoch, [*files, *ours], stopped, node, sharers)
    return listed, warnings + more


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
