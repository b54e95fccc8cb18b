"""What is wrong with the processes and nodes that a run asks for, or nothing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from trainyard import _gang
from trainyard._errors import UserErrorException
from trainyard._paths import RUN_ID, safe_relpath
from trainyard.job.v1.spec_pb2 import Spread

NODES, PROCESSES_PER_NODE, RESTARTS, PRIORITY, USER, LABELS = 1_000, 64, 100, 1_000, 255, 20
_CPUS, _BYTES, _GPUS = 100_000, 1 << 60, 1_024
# "gpu.name=NVIDIA H100"
_LABEL = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._/]{0,62}(=[^\0-\x1f\x7f]{0,255})?\Z")


def faults(spec: Any, paths: Collection[str]) -> Iterator[tuple[str, str]]:
    """`paths`: of the source, as far as they are listed."""
    yield from _distribution_faults(spec.distribution)
    yield from _shadow_faults(spec, paths)
    yield from _resource_faults(spec)
    if abs(spec.priority) > PRIORITY:
        yield "priority", f"The priority {spec.priority} is not within -{PRIORITY} and {PRIORITY}."
    if len(spec.user) > USER or not spec.user.isprintable():
        yield "user", f"The user's name has more than {USER} characters, or some that cannot be printed."
    if spec.max_restarts > RESTARTS:
        yield "max_restarts", f"max_restarts is {spec.max_restarts}; {RESTARTS} is the most."
    if spec.resume_from and not RUN_ID.match(spec.resume_from):
        yield "resume_from", f"resume_from {spec.resume_from[:200]!r} is no run's id."
    yield from _folder_faults(spec.checkpoint_folder, paths)
    yield from _label_faults(spec.labels)
    if spec.spread not in Spread.values():
        yield "spread", f"spread {spec.spread} is neither PACK nor SPREAD."


def _distribution_faults(asked: Any) -> Iterator[tuple[str, str]]:
    if asked.node_count > NODES:
        yield "node_count", f"node_count is {asked.node_count}; {NODES} nodes are the most."
        return
    if asked.process_count_per_node > PROCESSES_PER_NODE:
        yield "process_count_per_node", f"{asked.process_count_per_node} processes a node are more than {PROCESSES_PER_NODE}."
        return
    if asked.WhichOneof("kind") == "horovod":
        yield from _elastic_faults(asked)
    if asked.WhichOneof("kind") == "tensorflow":
        yield from _cluster_faults(asked)


def _elastic_faults(asked: Any) -> Iterator[tuple[str, str]]:
    if not _gang.is_elastic(asked):
        return
    count = _gang.node_count(asked)
    fewest, most = asked.horovod.min_nodes or count, asked.horovod.max_nodes or count
    if not fewest <= count <= most:
        yield "node_count", f"min_nodes <= node_count <= max_nodes must hold; they are {fewest}, {count} and {most}."
    if most > NODES:
        yield "max_nodes", f"max_nodes is {most}; {NODES} nodes are the most."


def _cluster_faults(asked: Any) -> Iterator[tuple[str, str]]:
    cluster, nodes = asked.tensorflow, _gang.node_count(asked)
    if not cluster.worker_count and not cluster.chief:
        yield "worker_count", "A TensorFlow cluster needs a worker or a chief: without one nothing is trained."
    processes = cluster.worker_count + cluster.parameter_server_count + cluster.chief + cluster.evaluator
    if processes > nodes * PROCESSES_PER_NODE:
        what = f"{processes} processes on {nodes} {'node' if nodes == 1 else 'nodes'} are more than {PROCESSES_PER_NODE} a node."
        yield "worker_count", what


def _shadow_faults(spec: Any, paths: Collection[str]) -> Iterator[tuple[str, str]]:
    """Python finds what lies beside the script first."""
    if spec.distribution.WhichOneof("kind") != "horovod":
        return
    for path in ("horovod.py", "horovod/__init__.py"):
        if path in paths:
            yield path, f"The source has {path!r}, which hides the package of that name from the script. Rename it."


def _resource_faults(spec: Any) -> Iterator[tuple[str, str]]:
    if not spec.HasField("resources"):
        return
    asked = spec.resources
    if not math.isfinite(asked.cpus) or not 0 <= asked.cpus <= _CPUS:
        yield "resources.cpus", f"{asked.cpus} CPUs a node is no number from 0 to {_CPUS}."
    if asked.memory_bytes > _BYTES:
        yield "resources.memory_bytes", f"{asked.memory_bytes} bytes of memory a node are more than {_BYTES}."
    if asked.gpus > _GPUS:
        yield "resources.gpus", f"{asked.gpus} GPUs a node are more than {_GPUS}."
    if not (asked.cpus or asked.memory_bytes or asked.gpus):
        yield "resources", "resources names nothing: say how many CPUs, bytes or GPUs of each node, or leave it out to take whole nodes."


def _folder_faults(folder: str, paths: Collection[str]) -> Iterator[tuple[str, str]]:
    if not folder:
        return
    try:
        safe_relpath(folder)
    except UserErrorException as error:
        yield "checkpoint_folder", f"checkpoint_folder: {error.message}"
        return
    files = set(paths)
    over = next((it for it in (folder, *(folder[: end.start()] for end in re.finditer("/", folder))) if it in files), None)
    if over is not None:
        yield "checkpoint_folder", f"checkpoint_folder {folder!r} cannot be made: {over!r} is a file of the source."


def _label_faults(asked: Collection[str]) -> Iterator[tuple[str, str]]:
    if len(asked) > LABELS:
        yield "labels", f"{len(asked)} labels are more than {LABELS}."
    for label in asked:
        if not _LABEL.match(label):
            yield "labels", f"The label {label[:80]!r} is none: 'name' or 'name=value', the name of letters, digits, -, ., _ and /."
    twice = [name for name, times in Counter(label.partition("=")[0] for label in set(asked)).items() if times > 1]
    if twice:
        yield "labels", f"The label {twice[0]!r} is asked for with two values: no node has both."
