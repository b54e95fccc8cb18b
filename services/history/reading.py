"""Records of the log to rows: decodes what a view needs, and nothing else, since a rebuild reads all there ever was.

Total: what cannot be read becomes a refusal that is counted; what no view needs becomes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError, Message

from services.chassis.records import Place
from services.history.domain import attempts, endpoints, lineage, models, pools, run
from services.history.domain.lineage import Edge, Node
from services.history.domain.moment import Spot
from trainyard._cloudevents import UnknownType, message_class
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import telemetry_pb2 as telemetry

JOBS, TASKS, METRICS, LOGS = "trainyard.jobs", "trainyard.tasks", "trainyard.metrics", "trainyard.logs"
AGENTS, MODELS, ENDPOINTS = "trainyard.agents", "trainyard.models", "trainyard.endpoints"
_OF: dict[str, tuple[type[Message], ...]] = {
    JOBS: run.FACTS,
    TASKS: (*run.REPORTS, *attempts.RANK_REPORTS, cluster.CheckpointSaved),
    AGENTS: pools.FACTS,
    METRICS: (telemetry.MetricBatch,),
    LOGS: (telemetry.LogChunk,),
    "trainyard.datasets": lineage.FACTS,
    MODELS: models.FACTS,
    "trainyard.environments": lineage.FACTS,
    ENDPOINTS: endpoints.FACTS,
}
_KEPT: dict[tuple[str, bytes], type[Message]] = {
    (topic, kind.DESCRIPTOR.full_name.encode()): kind for topic, kinds in _OF.items() for kind in kinds
}
_LINEAGE = frozenset(lineage.FACTS)
# What a column of 64 bits with a sign takes.
_LARGEST = (1 << 63) - 1
Row = dict[str, Any]


@dataclass
class Batch:
    """Rows of some records, by table, and the positions after them."""

    facts: list[Row] = field(default_factory=list)
    metrics: list[Row] = field(default_factory=list)
    names: dict[tuple[str, int, str], Spot] = field(default_factory=dict)
    ranked_names: dict[tuple[str, int, str, int], Spot] = field(default_factory=dict)
    ranks: list[Row] = field(default_factory=list)
    checkpoints: list[Row] = field(default_factory=list)
    pools: list[Row] = field(default_factory=list)
    models: list[Row] = field(default_factory=list)
    endpoints: list[Row] = field(default_factory=list)
    chunks: list[Row] = field(default_factory=list)
    nodes: list[tuple[Node, Spot]] = field(default_factory=list)
    edges: list[tuple[Edge, Spot]] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)
    positions: dict[Place, int] = field(default_factory=dict)
    records: int = 0


def take(batch: Batch, raws: Iterable[Any]) -> None:
    """Adds what records of a Kafka client, in the order of each partition, say."""
    for raw in raws:
        batch.records += 1
        topic, partition, offset = raw.topic, raw.partition, raw.offset
        batch.positions[Place(topic, partition)] = offset + 1
        kind = event_id = None
        for name, value in raw.headers or ():
            if name == "ce_type":
                kind = value
            elif name == "ce_id":
                event_id = value
        spot = Spot(raw.timestamp, topic, partition, offset)
        if not kind or not event_id:
            _refuse(batch, spot, f"garbled: no CloudEvent, the header {'ce_id' if kind else 'ce_type'} is missing")
            continue
        wanted = _KEPT.get((topic, kind))
        if wanted is None:
            if not _known(kind):
                _refuse(batch, spot, f"unknown type {kind[:200]!r}")
            continue
        if raw.value is None or not raw.key:
            _refuse(batch, spot, f"garbled: no {'key' if raw.value is not None else 'value'}")
            continue
        try:
            _add(batch, spot, raw.key.decode(), event_id.decode(), wanted.FromString(raw.value), raw.value)
        except (DecodeError, UnicodeDecodeError) as error:
            _refuse(batch, spot, f"garbled: {type(error).__name__}")
        except _Garbled as error:
            _refuse(batch, spot, f"garbled: {error}")


class _Garbled(Exception):
    """Well-formed, and still nothing that a row could hold."""


def _add(batch: Batch, spot: Spot, key: str, event_id: str, message: Any, value: bytes) -> None:
    if "\0" in key or "\0" in event_id:
        raise _Garbled("a NUL in its key or id")
    at, topic, partition, offset = spot
    place = {"partition": partition, "offset": offset, "at": at}
    if topic == METRICS:
        _check(message.run_id == key, "the key is not its run")
        batch.metrics.append({"run_id": key, **place, "event_id": event_id, "epoch": message.epoch, "rank": message.rank, "value": value})
        for name in {point.name for point in message.points}:
            of = (key, message.epoch, clean(name))
            if of not in batch.names or spot < batch.names[of]:
                batch.names[of] = spot
            ranked = (*of, message.rank)
            if ranked not in batch.ranked_names or spot < batch.ranked_names[ranked]:
                batch.ranked_names[ranked] = spot
    elif topic == LOGS:
        _check(message.run_id == key, "the key is not its run")
        next_line = message.first_line + len(message.lines)
        _check(next_line <= _LARGEST, "line numbers beyond 2^63")
        of_log = {"run_id": key, "log": clean(message.log), "rank": message.rank, "epoch": message.epoch, "first_line": message.first_line}
        batch.chunks.append({**of_log, **place, "next_line": next_line, "last": int(message.last), "value": value})
    elif topic == AGENTS:
        _check(key == pools.key_of(message), "the key is not its pool")
        name = message.DESCRIPTOR.full_name
        batch.pools.append({"name": clean(key), "topic": topic, **place, "event_id": event_id, "type": name, "value": value})
    elif isinstance(message, cluster.CheckpointSaved | cluster.TaskStarted | cluster.TaskExited):
        _check(message.run_id == key, "the key is not its run")
        _add_report(batch, message, {"run_id": key, "topic": topic, **place}, value)
    else:
        kind = type(message)
        if topic in (JOBS, TASKS):
            _check(message.run_id == key, "the key is not its run")
            name = kind.DESCRIPTOR.full_name
            batch.facts.append({"run_id": key, "topic": topic, **place, "event_id": event_id, "type": name, "value": value})
        if topic in (MODELS, ENDPOINTS):
            of_model = topic == MODELS
            _check(key == (message.model if of_model else message.endpoint), f"the key is not its {'model' if of_model else 'endpoint'}")
            row = {"name": clean(key), "topic": topic, **place, "event_id": event_id, "type": kind.DESCRIPTOR.full_name, "value": value}
            (batch.models if of_model else batch.endpoints).append(row)
        if kind in _LINEAGE:
            for item in lineage.told_by(message):
                _add_lineage(batch, item, spot)


def _add_report(batch: Batch, message: Any, place: Row, value: bytes) -> None:
    """Of an agent, that an attempt shows and no status hangs on."""
    of = {**place, "epoch": message.epoch, "agent_id": clean(message.agent_id), "incarnation": clean(message.incarnation)}
    if isinstance(message, cluster.CheckpointSaved):
        listed = message.checkpoint.files
        size = within(sum(file.size_bytes for file in listed))
        files = within(message.checkpoint.count or len(listed))
        batch.checkpoints.append({**of, "number": within(message.number), "files": files, "bytes": size})
    else:
        batch.ranks.append({**of, "rank": message.rank, "type": message.DESCRIPTOR.full_name, "value": value})


def _add_lineage(batch: Batch, item: Node | Edge, spot: Spot) -> None:
    if isinstance(item, Node):
        _check(item.version <= _LARGEST, "a version beyond 2^63")
        batch.nodes.append((Node(clean(item.id), item.kind, clean(item.name), item.version, clean(item.label)), spot))
    else:
        batch.edges.append((Edge(clean(item.source), clean(item.target), item.how), spot))


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise _Garbled(what)


def clean(text: str) -> str:
    """Without NUL, which PostgreSQL takes in no text."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def within(number: int) -> int:
    """What a column takes of an unsigned number."""
    return min(number, _LARGEST)


def _refuse(batch: Batch, spot: Spot, why: str) -> None:
    row = {"topic": spot.topic, "partition": spot.partition, "offset": spot.offset, "at": spot.at, "why": clean(why)[:300]}
    batch.refused.append(row)


def _known(kind: bytes) -> bool:
    known = _names.get(kind)
    if known is None:
        try:
            message_class(kind.decode())
            known = True
        except (UnknownType, UnicodeDecodeError):
            known = False
        # Hostile names must not fill the memory.
        if len(_names) < 1000:
            _names[kind] = known
    return known


_names: dict[bytes, bool] = {}
