"""A pool's wishes and its status, in Azure's shapes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainyard._errors import ComputeTargetException
from trainyard._times import as_utc

_STATES = ("preparing", "running", "idle", "unusable", "leaving", "preempted")


@dataclass(frozen=True)
class ProvisioningConfiguration:
    """What `ComputeTarget.create` is asked for. Node counts; idle time in seconds, None = the scheduler's 120 s."""

    vm_size: str
    vm_priority: str = "dedicated"
    min_nodes: int = 0
    max_nodes: int = 1
    idle_seconds_before_scaledown: int | None = None

    def validate_configuration(self) -> None:
        """Raises ComputeTargetException, code "UserError", with the option at fault as target."""
        if not self.vm_size:
            raise refused("A pool needs a vm_size, for instance 'STANDARD_NC6'.", "vm_size", "AmlCompute.supported_vmsizes(ws) lists them")
        if self.vm_priority not in ("dedicated", "lowpriority"):
            raise refused(f"vm_priority is 'dedicated' or 'lowpriority', not {self.vm_priority!r}.", "vm_priority")
        for option in ("min_nodes", "max_nodes"):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
                raise refused(f"{option} is a whole number of nodes, not {value!r}.", option)
        if self.min_nodes > self.max_nodes or self.max_nodes < 1:
            what = f"0 <= min_nodes <= max_nodes and max_nodes >= 1 must hold; they are {self.min_nodes} and {self.max_nodes}."
            raise refused(what, "max_nodes")
        idle = self.idle_seconds_before_scaledown
        if idle is not None and (isinstance(idle, bool) or not isinstance(idle, int | float) or not 0 <= idle < 2**31):
            raise refused(f"idle_seconds_before_scaledown is a number of seconds, not {idle!r}.", "idle_seconds_before_scaledown")


def refused(message: str, target: str, hint: str = "") -> ComputeTargetException:
    """The error of a wish that cannot be taken."""
    return ComputeTargetException(message, code="UserError", target=target, hint=hint)


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
    """A pool as the scheduler showed it. Times are UTC.

    The scheduler keeps no time of the last change of a pool's nodes: `changed` is when this client saw it, or the creation.
    """

    pool: Any
    changed: datetime | None = None
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
        """None: a pool that exists has none. What its shape was capped to is no error; see AmlCompute.note."""
        return None

    @property
    def creation_time(self) -> datetime:
        """When the pool was made."""
        when: datetime = as_utc(self.pool.created_at)
        return when

    @property
    def modified_time(self) -> datetime:
        """When its nodes were last seen to change."""
        return self.changed or self.creation_time

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
