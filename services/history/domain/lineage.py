"""What came from what, as single facts tell it: each fact adds nodes and edges, none takes any away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from trainyard import _steps
from trainyard._lineage import environment_id, runs_of
from trainyard.dataset.v1 import dataset_pb2 as dataset
from trainyard.dataset.v1.dataset_pb2 import Step
from trainyard.endpoint.v1 import endpoint_pb2 as endpoint
from trainyard.environment.v1 import environment_pb2 as environment
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import EnvironmentSpec
from trainyard.model.v1 import model_pb2 as model

FACTS: tuple[type[Message], ...] = (
    job.RunQueued,
    job.RunOpened,
    dataset.DatasetVersionRegistered,
    model.ModelVersionRegistered,
    environment.EnvironmentVersionRegistered,
    endpoint.EndpointStarting,
    endpoint.VersionLoaded,
)

_TOLD = 200


class Node(NamedTuple):
    """`name` and `version` find the latest of a kind; version 0 where it has none."""

    id: str
    kind: str
    name: str
    version: int
    label: str


class Edge(NamedTuple):
    """`source` came first."""

    source: str
    target: str
    how: str


def told_by(message: Message) -> Iterator[Node | Edge]:
    match message:
        case job.RunQueued():
            yield from _run(message.run_id, message.experiment, message.number, message.spec.display_name, message.spec.parent_run_id)
            yield from _inputs(message)
        case job.RunOpened():
            yield from _run(message.run_id, message.experiment, message.number, message.display_name, message.parent_run_id)
            if message.source.snapshot.id:
                yield Edge(f"snapshot:{message.source.snapshot.id}", f"run:{message.run_id}", "ran")
        case dataset.DatasetVersionRegistered():
            node = _versioned("dataset", message.name, message.version)
            yield node._replace(label=_after(node.label, message.steps))
            # A forged fact may say that a version came from itself.
            if message.based_on and (base := f"dataset:{message.based_on}:{message.based_on_version}") != node.id:
                yield Edge(base, node.id, "derived")
        case environment.EnvironmentVersionRegistered():
            yield _environment(message.definition)
        case model.ModelVersionRegistered():
            yield from _model(message)
        case endpoint.EndpointStarting():
            name = f"endpoint:{message.endpoint}:{message.deployment}"
            yield Node(name, "endpoint", message.endpoint, message.deployment, f"{message.endpoint}, deployment {message.deployment}")
            for used in [(message.model, message.version), *((it.model, it.version) for it in message.more_models)]:
                if used[0]:
                    yield Edge(f"model:{used[0]}:{used[1]}", name, "deployed")
        case endpoint.VersionLoaded():
            name = f"endpoint:{message.endpoint}:{message.deployment}"
            yield Edge(f"model:{message.model}:{message.version}", name, "deployed")


def label_of(node_id: str) -> str:
    """For a node that nothing but an edge tells of."""
    kind, _, rest = node_id.partition(":")
    return f"{kind} {rest[:12]}" if kind in ("snapshot", "environment") else rest


def _run(run_id: str, experiment: str, number: int, display_name: str, parent: str) -> Iterator[Node | Edge]:
    yield Node(f"run:{run_id}", "run", run_id, 0, display_name or f"{experiment} #{number}")
    if parent:
        yield Edge(f"run:{parent}", f"run:{run_id}", "child")


def _inputs(queued: job.RunQueued) -> Iterator[Node | Edge]:
    run, spec = f"run:{queued.run_id}", queued.spec
    for item in spec.inputs:
        if item.dataset:
            yield Edge(f"dataset:{item.dataset}:{item.version}", run, _after("read", item.steps))
    earlier = {(it, "outputs") for item in spec.inputs for it in (*runs_of(item.files), *item.run_ids) if it}
    if spec.resume_from:
        earlier.add((spec.resume_from, "resumed"))
    for run_id, how in sorted(earlier):
        if run_id != queued.run_id:
            yield Edge(f"run:{run_id}", run, how)
    if spec.source.snapshot.id:
        yield Edge(f"snapshot:{spec.source.snapshot.id}", run, "ran")
    found = _environment(spec.environment)
    yield found
    yield Edge(found.id, run, "ran")


def _after(what: str, steps: Sequence[Step]) -> str:
    """With the transformations that files went through, the first ones where there are very many."""
    told = f"{what} after {', '.join(map(_steps.told, steps))}" if steps else what
    return told if len(told) <= _TOLD else f"{told[: _TOLD - 3]}..."


def _environment(spec: EnvironmentSpec) -> Node:
    found = environment_id(spec)
    named = f"{spec.name}:{spec.version}" if spec.name else " ".join(part for part in (spec.framework, spec.framework_version) if part)
    return Node(f"environment:{found}", "environment", found, 0, named or f"environment {found[:12]}")


def _model(message: model.ModelVersionRegistered) -> Iterator[Node | Edge]:
    node = _versioned("model", message.model, message.version)
    yield node
    lineage = message.lineage
    if lineage.run_id:
        yield Edge(f"run:{lineage.run_id}", node.id, "registered")
    for read in lineage.datasets:
        yield Edge(f"dataset:{read.name}:{read.version}", node.id, "made")


def _versioned(kind: str, name: str, version: int) -> Node:
    return Node(f"{kind}:{name}:{version}", kind, name, version, f"{name} version {version}")
