"""A pool's status, in Azure's shape."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainyard._times import as_utc

_STATES = ("preparing", "running", "idle", "unusable", "leaving", "preempted")


@dataclass(frozen=True)
class ScaleSettings:
    """Bounds in nodes, idle time in seconds."""

    minimum_node_count: int
    maximum_node_count: int
    idle_seconds_before_scaledown: int

    def serialize(self) -> dict[str, Any]:
        """Azure's shape; the idle time as an ISO 8601 duration."""
        return {
            "minNodeCount": self.minimum_node_count,
            "maxNodeCount": self.maximum_node_count,
            "nodeIdleTimeBeforeScaleDown": f"PT{self.idle_seconds_before_scaledown}S",
        }


@dataclass(frozen=True)
class AmlComputeStatus:
    """A pool as the scheduler showed it. Times are UTC."""

    pool: Any
    deleting: bool = False

    @property
    def node_states(self) -> Counter[str]:
        """State -> number of nodes."""
        return Counter(node.state for node in self.pool.nodes)

    @property
    def current_node_count(self) -> int:
        """Nodes that are ready: idle or running."""
        return self.node_states["idle"] + self.node_states["running"]

    @property
    def target_node_count(self) -> int:
        """Nodes that the pool is on its way to."""
        return len(self.pool.nodes) - self.node_states["leaving"]

    @property
    def allocation_state(self) -> str:
        """ "Steady", or "Resizing" while nodes come or go."""
        return "Resizing" if self.node_states["preparing"] or self.node_states["leaving"] else "Steady"

    @property
    def provisioning_state(self) -> str:
        """ "Succeeded", or "Deleting" once delete() was called."""
        return "Deleting" if self.deleting else "Succeeded"

    @property
    def errors(self) -> list[dict[str, Any]] | None:
        """What keeps nodes from coming up, each in Azure's shape; None where nothing does."""
        return [{"error": {"code": "NodeError", "message": message}} for message in self.pool.errors] or None

    @property
    def creation_time(self) -> datetime:
        """When the pool was made."""
        when: datetime = as_utc(self.pool.created_at)
        return when

    @property
    def modified_time(self) -> datetime:
        """When the set of its nodes last changed."""
        when: datetime = as_utc(self.pool.resized_at if self.pool.HasField("resized_at") else self.pool.created_at)
        return when

    @property
    def scale_settings(self) -> ScaleSettings:
        """The bounds that it scales within."""
        return ScaleSettings(self.pool.min_nodes, self.pool.max_nodes, self.pool.idle_before_scaledown.seconds)

    @property
    def vm_size(self) -> str:
        """The name of its shape, e.g. "STANDARD_NC6"."""
        return str(self.pool.vm_size)

    @property
    def vm_priority(self) -> str:
        """ "Dedicated" or "LowPriority"."""
        return {"lowpriority": "LowPriority"}.get(self.pool.vm_priority, "Dedicated")

    def serialize(self) -> dict[str, Any]:
        """Azure's shape as plain values; times are ISO 8601 in UTC."""
        states = self.node_states
        created, changed = self.creation_time.isoformat(), self.modified_time.isoformat()
        return {
            "currentNodeCount": self.current_node_count,
            "targetNodeCount": self.target_node_count,
            "nodeStateCounts": {f"{state}NodeCount": states[state] for state in _STATES},
            "allocationState": self.allocation_state,
            "allocationStateTransitionTime": changed,
            "errors": self.errors,
            "creationTime": created,
            "modifiedTime": changed,
            "provisioningState": self.provisioning_state,
            "provisioningStateTransitionTime": created,
            "scaleSettings": self.scale_settings.serialize(),
            "vmPriority": self.vm_priority,
            "vmSize": self.vm_size,
        }
