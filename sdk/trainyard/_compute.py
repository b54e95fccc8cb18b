"""Compute targets: autoscaling pools of trainer agents."""

from __future__ import annotations

import builtins
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trainyard._errors import ComputeTargetException
from trainyard._pool_status import AmlComputeStatus, ProvisioningConfiguration, refused
from trainyard._progress import Printer
from trainyard._services_of import clients_of
from trainyard._vm_sizes import SIZES

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

_POLL_SECONDS = 0.5
_ABSENT = ("ComputeTargetNotFound", "NotFound", "PoolNotFound")
# What Azure's configuration took and a pool of processes has no use for: option -> (values that ask for nothing, why it is refused).
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "admin_username": ((None, ""), "nodes are processes of the machines that run agents: nobody logs in to them"),
    "admin_user_password": ((None, ""), "nodes are processes of the machines that run agents: nobody logs in to them"),
    "admin_user_ssh_key": ((None, ""), "nodes are processes of the machines that run agents: nobody logs in to them"),
    "remote_login_port_public_access": ((None, "NotSpecified", "Disabled"), "no port is opened for logins"),
    "vnet_resourcegroup_name": ((None, ""), "there are no virtual networks: agents use the network of their machine"),
    "vnet_name": ((None, ""), "there are no virtual networks: agents use the network of their machine"),
    "subnet_name": ((None, ""), "there are no virtual networks: agents use the network of their machine"),
    "identity_type": ((None,), "agents act under keys of their own; there are no managed identities"),
    "identity_id": ((None, [], ()), "agents act under keys of their own; there are no managed identities"),
}


class ComputeTarget:
    """`ComputeTarget(workspace, name)` is the pool of that name; raises ComputeTargetException, with the names there are, where it is absent."""

    type = "AmlCompute"
    name: str
    workspace: Workspace

    def __new__(cls, workspace: Workspace, name: str) -> ComputeTarget:
        return object.__new__(AmlCompute)

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.workspace = workspace
        self.name = name
        self._set(self._fetch())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, vm_size={self._pool.vm_size!r}, nodes={len(self._pool.nodes)})"

    def _set(self, pool: Any) -> None:
        self._pool = pool
        self._changed: datetime | None = None
        self._deleting = False

    def _fetch(self) -> Any:
        from trainyard.cluster.v1 import cluster_pb2

        clients = clients_of(self.workspace)
        return clients.call(clients.compute.GetPool, cluster_pb2.GetPoolRequest(name=self.name), ComputeTargetException).pool

    @staticmethod
    def create(workspace: Workspace, name: str, provisioning_configuration: ProvisioningConfiguration) -> AmlCompute:
        """Makes the pool and returns at once; nodes come as runs need them. An equal pool of that name is returned as it is.

        name: 2-32 letters, digits and -, a letter first. Raises ComputeTargetException for a name or vm_size that is none, and where
        another pool has the name.
        """
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
            request.idle_before_scaledown.CopyFrom(Duration(seconds=int(wish.idle_seconds_before_scaledown)))
        clients = clients_of(workspace)
        clients.call(clients.compute.CreatePool, request, ComputeTargetException)
        return AmlCompute(workspace, name)

    @staticmethod
    def list(workspace: Workspace) -> builtins.list[ComputeTarget]:
        """Every pool, by name."""
        from trainyard.cluster.v1 import cluster_pb2

        clients = clients_of(workspace)
        pools = clients.call(clients.compute.ListPools, cluster_pb2.ListPoolsRequest(), ComputeTargetException).pools
        return [_from_pool(workspace, pool) for pool in pools]


class AmlCompute(ComputeTarget):
    """An autoscaling pool: min_nodes to max_nodes trainer agents of one shape, scaled down when idle."""

    def __new__(cls, workspace: Workspace, name: str) -> AmlCompute:
        return object.__new__(cls)

    @staticmethod
    def provisioning_configuration(
        vm_size: str = "",
        vm_priority: str = "dedicated",
        min_nodes: int = 0,
        max_nodes: int | None = None,
        idle_seconds_before_scaledown: int | None = None,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
        location: str | None = None,
        enable_node_public_ip: bool = True,
        **options: Any,
    ) -> ProvisioningConfiguration:
        """What `ComputeTarget.create` takes. vm_size names a shape (supported_vmsizes); where the machine is smaller it is capped, see `note`.

        max_nodes: None = as many as min_nodes, at least 1. idle_seconds_before_scaledown: seconds, None = 120. tags, description and
        location are not kept, and a warning says so. Raises ComputeTargetException (code "UserError") for values out of bounds, and for
        Azure's logins, networks and identities: admin_*, remote_login_port_public_access, vnet_*, subnet_name, identity_*.
        """
        for option, value in options.items():
            if option not in _REFUSED:
                raise TypeError(f"unexpected option {option!r}")
            unasked, why = _REFUSED[option]
            if value not in unasked:
                raise refused(f"{option} cannot be had: {why}.", option, "leave it out")
        unkept = [name for name, value in (("tags", tags), ("description", description), ("location", location)) if value]
        if unkept:
            warnings.warn(f"A pool keeps no {' and no '.join(unkept)}: what was given is dropped.", stacklevel=2)
        highest = (max(min_nodes, 1) if isinstance(min_nodes, int) else 1) if max_nodes is None else max_nodes
        wish = ProvisioningConfiguration(vm_size, str(vm_priority).lower(), min_nodes, highest, idle_seconds_before_scaledown)
        wish.validate_configuration()
        return wish

    @staticmethod
    def supported_vmsizes(workspace: Workspace | None = None, location: str | None = None) -> builtins.list[dict[str, Any]]:
        """The shapes that vm_size may name, by name: name, vCPUs (cores), memoryGB (GiB), gpus. LOCAL is all that the machine has."""
        return [{"name": name, "vCPUs": cpus, "memoryGB": gib, "gpus": gpus} for name, (cpus, gib, gpus) in sorted(SIZES.items())]

    @property
    def provisioning_state(self) -> str:
        """ "Succeeded", or "Deleting" after delete()."""
        return AmlComputeStatus(self._pool, self._changed, self._deleting).provisioning_state

    @property
    def provisioning_errors(self) -> None:
        """None: a pool that cannot be made is refused by create()."""
        return

    @property
    def vm_size(self) -> str:
        """The name of its shape."""
        return str(self._pool.vm_size)

    @property
    def note(self) -> str:
        """What of the shape was capped to this machine, in words; empty if nothing."""
        return str(self._pool.note)

    @property
    def created_on(self) -> datetime:
        """When it was made, in UTC."""
        return AmlComputeStatus(self._pool).creation_time

    def refresh_state(self) -> None:
        """Asks the scheduler again. Raises ComputeTargetException once the pool is gone."""
        before, self._pool = self._pool, self._fetch()
        if [(node.agent_id, node.state) for node in before.nodes] != [(node.agent_id, node.state) for node in self._pool.nodes]:
            self._changed = datetime.now(UTC)

    def get_status(self) -> AmlComputeStatus:
        """As the scheduler shows it now; `.serialize()` gives Azure's shape."""
        self.refresh_state()
        return AmlComputeStatus(self._pool, self._changed, self._deleting)

    def serialize(self) -> dict[str, Any]:
        """Azure's shape of a target as plain values."""
        status = self.get_status().serialize()
        return {
            "id": f"{self.workspace.get_details()['id']}/computes/{self.name}",
            "name": self.name,
            "location": self.workspace.location,
            "type": self.type,
            "tags": None,
            "properties": {
                "computeType": self.type,
                "description": self.note or None,
                "provisioningState": status["provisioningState"],
                "provisioningErrors": status["errors"],
                "createdOn": status["creationTime"],
                "properties": {"vmPriority": status["vmPriority"], "vmSize": status["vmSize"], "scaleSettings": status["scaleSettings"]},
                "status": status,
            },
        }

    def list_nodes(self) -> builtins.list[dict[str, Any]]:
        """Its nodes now: nodeId (the agent), nodeState ("preparing", "idle", "running", "leaving"), runId (None where it runs nothing)."""
        self.refresh_state()
        return [{"nodeId": node.agent_id, "nodeState": node.state, "runId": node.run_id or None} for node in self._pool.nodes]

    def wait_for_completion(
        self,
        show_output: bool = False,
        min_node_count: int | None = None,
        timeout_in_minutes: float = 25,
        is_delete_operation: bool = False,
    ) -> None:
        """Returns when min_node_count (None: the pool's minimum) nodes are ready, at the time limit, or when the pool is gone; does not raise for these.

        is_delete_operation: returns when the pool is gone. Raises PlatformUnavailableException where the scheduler does not answer.
        """
        wanted = self._pool.min_nodes if min_node_count is None else min_node_count
        progress = _States(show_output)
        ending = "Wait timeout has been reached"
        for status in self._statuses(timeout_in_minutes * 60):
            if status is None:
                progress.state("Deleted" if is_delete_operation or self._deleting else "Absent")
                ending = "The pool was deleted"
                break
            have = status.current_node_count
            progress.state("Deleting" if is_delete_operation else "Succeeded" if have >= wanted else f"Resizing: {have} of {wanted} nodes")
            if not is_delete_operation and have >= wanted:
                ending = "Minimum number of nodes requested have been provisioned"
                break
        progress.finished(f"note: {self.note}" if self.note else "", ending)

    def _statuses(self, seconds: float) -> Iterator[AmlComputeStatus | None]:
        """The status again and again until the time is up, at least once; None once the pool is gone."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                yield self.get_status()
            except ComputeTargetException as error:
                if error.code not in _ABSENT:
                    raise
                yield None
                return
            if time.monotonic() >= deadline:
                return
            time.sleep(_POLL_SECONDS)

    def update(self, min_nodes: int | None = None, max_nodes: int | None = None, idle_seconds_before_scaledown: int | None = None) -> None:
        """Other bounds for a pool that no run uses: it is deleted and made again under its name. None = as it is.

        Raises ComputeTargetException where runs use it (nothing is changed then) and for bounds that cannot be.
        """
        old = AmlComputeStatus(self._pool).scale_settings
        before = ProvisioningConfiguration(
            self.vm_size, self._pool.vm_priority, old.minimum_node_count, old.maximum_node_count, old.idle_seconds_before_scaledown
        )
        wish = ProvisioningConfiguration(
            before.vm_size,
            before.vm_priority,
            before.min_nodes if min_nodes is None else min_nodes,
            before.max_nodes if max_nodes is None else max_nodes,
            before.idle_seconds_before_scaledown if idle_seconds_before_scaledown is None else idle_seconds_before_scaledown,
        )
        wish.validate_configuration()
        if wish == before:
            return
        self.delete()
        try:
            made = ComputeTarget.create(self.workspace, self.name, wish)
        except ComputeTargetException:
            self._set(ComputeTarget.create(self.workspace, self.name, before)._pool)
            raise
        self._set(made._pool)

    def delete(self) -> None:
        """Ends its nodes. Raises ComputeTargetException, with the runs, while runs use it."""
        from trainyard.cluster.v1 import cluster_pb2

        clients = self.workspace._clients
        clients.call(clients.compute.DeletePool, cluster_pb2.DeletePool(name=self.name), ComputeTargetException)
        self._deleting = True


class _States:
    """Azure's way: each state once, dots while it lasts (on a terminal alone), then the closing lines."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._printer = Printer()
        self._last = ""
        self._dotted = False

    def state(self, text: str) -> None:
        if not self._shown:
            return
        if text == self._last:
            if sys.stdout.isatty():
                sys.stdout.write(".")
                sys.stdout.flush()
                self._dotted = True
            return
        self._end_dots()
        self._last = text
        self._printer.line(text, "phase")

    def finished(self, note: str, ending: str) -> None:
        if not self._shown:
            return
        self._end_dots()
        if note:
            self._printer.line(note, "note")
        self._printer.line("AmlCompute wait for completion finished")
        self._printer.line()
        self._printer.line(ending)

    def _end_dots(self) -> None:
        if self._dotted:
            sys.stdout.write("\n")
        self._dotted = False


def _from_pool(workspace: Workspace, pool: Any) -> AmlCompute:
    target = object.__new__(AmlCompute)
    target.workspace, target.name = workspace, pool.name
    target._set(pool)
    return target
