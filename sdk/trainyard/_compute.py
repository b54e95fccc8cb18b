"""Compute targets: autoscaling pools of trainer agents."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trainyard._errors import ComputeTargetException
from trainyard._progress import Printer

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class ProvisioningConfiguration:
    vm_size: str
    vm_priority: str = "dedicated"
    min_nodes: int = 0
    max_nodes: int = 1
    idle_seconds_before_scaledown: int | None = None


@dataclass(frozen=True)
class AmlComputeStatus:
    """Azure's status, from the pool as the scheduler shows it."""

    pool: Any

    def serialize(self) -> dict[str, Any]:
        states = Counter(node.state for node in self.pool.nodes)
        created = self.pool.created_at.ToDatetime(UTC).isoformat()
        settled = not states["preparing"] and not states["leaving"]
        target = len(self.pool.nodes) - states["leaving"]
        counts = {f"{state}NodeCount": states[state] for state in ("preparing", "running", "idle", "unusable", "leaving", "preempted")}
        return {
            "currentNodeCount": states["idle"] + states["running"],
            "targetNodeCount": target,
            "nodeStateCounts": counts,
            "allocationState": "Steady" if settled else "Resizing",
            "allocationStateTransitionTime": datetime.now(UTC).isoformat(),
            "errors": None,
            "creationTime": created,
            "modifiedTime": created,
            "provisioningState": "Succeeded",
            "provisioningStateTransitionTime": created,
            "scaleSettings": {
                "minNodeCount": self.pool.min_nodes,
                "maxNodeCount": self.pool.max_nodes,
                "nodeIdleTimeBeforeScaleDown": f"PT{self.pool.idle_before_scaledown.seconds}S",
            },
            "vmPriority": {"lowpriority": "LowPriority"}.get(self.pool.vm_priority, "Dedicated"),
            "vmSize": self.pool.vm_size,
        }


class ComputeTarget:
    """`ComputeTarget(workspace, name)` is the pool of that name; it raises ComputeTargetException when there is none."""

    type = "AmlCompute"

    def __new__(cls, workspace: Workspace, name: str) -> ComputeTarget:
        return object.__new__(AmlCompute)

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.workspace = workspace
        self.name = name
        self._pool = self._fetch()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, vm_size={self._pool.vm_size!r}, nodes={len(self._pool.nodes)})"

    def _fetch(self) -> Any:
        from trainyard.cluster.v1 import cluster_pb2

        clients = self.workspace._clients
        return clients.call(clients.compute.GetPool, cluster_pb2.GetPoolRequest(name=self.name), ComputeTargetException).pool

    @staticmethod
    def create(workspace: Workspace, name: str, provisioning_configuration: ProvisioningConfiguration) -> AmlCompute:
        from google.protobuf.duration_pb2 import Duration

        from trainyard.cluster.v1 import cluster_pb2

        wish = provisioning_configuration
        if not isinstance(wish, ProvisioningConfiguration):
            raise ComputeTargetException(
                f"provisioning_configuration is what AmlCompute.provisioning_configuration gives, not {wish!r}.",
                code="UserError",
                target="provisioning_configuration",
            )
        request = cluster_pb2.CreatePool(
            submission_id=uuid.uuid4().hex,
            name=name,
            vm_size=wish.vm_size,
            vm_priority=wish.vm_priority,
            min_nodes=wish.min_nodes,
            max_nodes=wish.max_nodes,
        )
        if wish.idle_seconds_before_scaledown is not None:
            request.idle_before_scaledown.CopyFrom(Duration(seconds=wish.idle_seconds_before_scaledown))
        clients = workspace._clients
        clients.call(clients.compute.CreatePool, request, ComputeTargetException)
        return AmlCompute(workspace, name)

    @staticmethod
    def list(workspace: Workspace) -> list[ComputeTarget]:
        from trainyard.cluster.v1 import cluster_pb2

        clients = workspace._clients
        pools = clients.call(clients.compute.ListPools, cluster_pb2.ListPoolsRequest(), ComputeTargetException).pools
        return [_from_pool(workspace, pool) for pool in pools]


class AmlCompute(ComputeTarget):
    """An autoscaling pool, from zero nodes up."""

    def __new__(cls, workspace: Workspace, name: str) -> AmlCompute:
        return object.__new__(cls)

    @staticmethod
    def provisioning_configuration(
        vm_size: str = "",
        vm_priority: str = "dedicated",
        min_nodes: int = 0,
        max_nodes: int | None = None,
        idle_seconds_before_scaledown: int | None = None,
    ) -> ProvisioningConfiguration:
        if not vm_size:
            raise ComputeTargetException("A pool needs a vm_size, for instance 'STANDARD_NC6'.", code="UserError", target="vm_size")
        if vm_priority not in ("dedicated", "lowpriority"):
            raise ComputeTargetException(
                f"vm_priority is 'dedicated' or 'lowpriority', not {vm_priority!r}.", code="UserError", target="vm_priority"
            )
        for option, count in (
            ("min_nodes", min_nodes),
            ("max_nodes", max_nodes),
            ("idle_seconds_before_scaledown", idle_seconds_before_scaledown),
        ):
            if (count is None and option == "min_nodes") or (count is not None and not isinstance(count, int)):
                raise ComputeTargetException(f"{option} is a whole number, not {count!r}.", code="UserError", target=option)
        highest = max(min_nodes, 1) if max_nodes is None else max_nodes
        if not 0 <= min_nodes <= highest or highest < 1:
            raise ComputeTargetException(
                f"0 <= min_nodes <= max_nodes and max_nodes >= 1 must hold; they are {min_nodes} and {highest}.",
                code="UserError",
                target="max_nodes",
            )
        return ProvisioningConfiguration(vm_size, vm_priority, min_nodes, highest, idle_seconds_before_scaledown)

    @property
    def provisioning_state(self) -> str:
        return "Succeeded"

    @property
    def vm_size(self) -> str:
        return str(self._pool.vm_size)

    def refresh_state(self) -> None:
        self._pool = self._fetch()

    def get_status(self) -> AmlComputeStatus:
        self.refresh_state()
        return AmlComputeStatus(self._pool)

    def serialize(self) -> dict[str, Any]:
        return {"name": self.name, "type": self.type, "status": self.get_status().serialize()}

    def wait_for_completion(
        self,
        show_output: bool = False,
        min_node_count: int | None = None,
        timeout_in_minutes: float = 25,
        is_delete_operation: bool = False,
    ) -> None:
        """Returns when the pool has its minimum of nodes, or at the time limit; it does not raise."""
        printer = Printer()
        wanted = self._pool.min_nodes if min_node_count is None else min_node_count
        for have in self._until(wanted, timeout_in_minutes * 60):
            if show_output:
                printer.line(f"{'Succeeded' if have >= wanted else 'Resizing'}: {have} of {wanted} nodes", "phase")
        if show_output:
            if self._pool.note:
                printer.line(f"note: {self._pool.note}", "note")
            printer.line("AmlCompute wait for completion finished")

    def _until(self, wanted: int, seconds: float) -> Iterator[int]:
        """The count of ready nodes whenever it changes, until it suffices or the time is up."""
        deadline, last = time.monotonic() + seconds, -1
        while True:
            have = self.get_status().serialize()["currentNodeCount"]
            if have != last:
                yield have
            if have >= wanted or time.monotonic() >= deadline:
                return
            last = have
            time.sleep(_POLL_SECONDS)

    def delete(self) -> None:
        from trainyard.cluster.v1 import cluster_pb2

        clients = self.workspace._clients
        clients.call(clients.compute.DeletePool, cluster_pb2.DeletePool(name=self.name), ComputeTargetException)


def _from_pool(workspace: Workspace, pool: Any) -> AmlCompute:
    target = object.__new__(AmlCompute)
    target.workspace, target.name, target._pool = workspace, pool.name, pool
    return target
