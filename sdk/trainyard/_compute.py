"""Compute targets: autoscaling pools of trainer agents."""

from __future__ import annotations

import builtins
import uuid
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trainyard._compute_wait import wait
from trainyard._errors import ComputeTargetException
from trainyard._pool_status import AmlComputeStatus
from trainyard._provisioning import ProvisioningConfiguration, check_azure_options, provider_of
from trainyard._services_of import clients_of
from trainyard._vm_sizes import SIZES

if TYPE_CHECKING:
    from trainyard._workspace import Workspace


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
            provider=wish.provider,
            strict=wish.strict,
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
        *,
        provider: str = "local",
        hosts: Sequence[str] | None = None,
        python: str | None = None,
        identity_file: str | None = None,
        known_hosts_file: str | None = None,
        settings_file: str | None = None,
        image: str | None = None,
        network: str | None = None,
        strict: bool = False,
        **options: Any,
    ) -> ProvisioningConfiguration:
        """What `ComputeTarget.create` takes. vm_size names a shape (supported_vmsizes); where the machine is smaller it is capped, see `note`.

        provider: "local", agents of the scheduler's machine; "static", agents that join by `trainyard agent join`; "ssh", agents started on
        `hosts` ("host", "user@host" or "user@host:port", one a node) with the Python `python` and the settings in `settings_file`, both paths
        there; identity_file and known_hosts_file lie on the scheduler's machine; "docker", containers of `image` in `network` (None = the
        host's). strict: a run that asks for a GPU is refused where the pool has none, instead of running without.
        max_nodes: None = one a host, else as many as min_nodes, at least 1. idle_seconds_before_scaledown: seconds, None = 120. tags, description and
        location are not kept, and a warning says so. Raises ComputeTargetException (code "UserError") for values out of bounds, and for
        Azure's logins, networks and identities: admin_*, remote_login_port_public_access, vnet_*, subnet_name, identity_*.
        """
        check_azure_options(options)
        unkept = [name for name, value in (("tags", tags), ("description", description), ("location", location)) if value]
        if unkept:
            warnings.warn(f"A pool keeps no {' and no '.join(unkept)}: what was given is dropped.", stacklevel=2)
        ssh = {"hosts": hosts, "python": python, "identity_file": identity_file, "known_hosts_file": known_hosts_file}
        kind = provider_of(provider, {**ssh, "settings_file": settings_file, "image": image, "network": network})
        least = max(min_nodes, 1) if isinstance(min_nodes, int) else 1
        highest = (len(hosts) if hosts else least) if max_nodes is None else max_nodes
        wish = ProvisioningConfiguration(vm_size, str(vm_priority).lower(), min_nodes, highest, idle_seconds_before_scaledown, kind, strict)
        wish.validate_configuration()
        return wish

    @staticmethod
    def supported_vmsizes(workspace: Workspace | None = None, location: str | None = None) -> builtins.list[dict[str, Any]]:
        """The shapes that vm_size may name, by name: name, vCPUs (cores), memoryGB (GiB), gpus. LOCAL is all that the machine has."""
        return [{"name": name, "vCPUs": cpus, "memoryGB": gib, "gpus": gpus} for name, (cpus, gib, gpus) in sorted(SIZES.items())]

    @property
    def provisioning_state(self) -> str:
        """ "Succeeded", or "Deleting" after delete()."""
        return AmlComputeStatus(self._pool, self._deleting).provisioning_state

    @property
    def provisioning_errors(self) -> builtins.list[dict[str, Any]] | None:
        """What keeps nodes from coming up, as last seen; None where nothing does. A pool that cannot be made is refused by create()."""
        return AmlComputeStatus(self._pool).errors

    @property
    def provider(self) -> str:
        """Where its nodes come from: "local", "static", "ssh" or "docker"."""
        return str(self._pool.provider.WhichOneof("kind") or "local")

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
        self._pool = self._fetch()

    def get_status(self) -> AmlComputeStatus:
        """As the scheduler shows it now; `.serialize()` gives Azure's shape."""
        self.refresh_state()
        return AmlComputeStatus(self._pool, self._deleting)

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
        """Its nodes now: nodeId (the agent), nodeState ("preparing", "idle", "running", "leaving", "unusable", "preempted"), runId (the first
        of what it runs, None where that is nothing), runIds, labels."""
        self.refresh_state()
        return [
            {
                "nodeId": node.agent_id,
                "nodeState": node.state,
                "runId": node.run_id or None,
                "runIds": [*node.run_ids],
                "labels": dict(node.labels),
            }
            for node in self._pool.nodes
        ]

    def wait_for_completion(
        self,
        show_output: bool = False,
        min_node_count: int | None = None,
        timeout_in_minutes: float = 25,
        is_delete_operation: bool = False,
    ) -> None:
        """Returns when min_node_count (None: the pool's minimum) nodes are ready, at the time limit, when the pool is gone, or when it reports
        errors and no node is coming up; does not raise for these.

        is_delete_operation: returns when the pool is gone. Raises PlatformUnavailableException where the scheduler does not answer.
        """
        wait(
            self.get_status,
            wanted=self._pool.min_nodes if min_node_count is None else min_node_count,
            seconds=timeout_in_minutes * 60,
            deletes=is_delete_operation,
            is_deleting=self._deleting,
            shown=show_output,
            note=self.note,
        )

    def update(self, min_nodes: int | None = None, max_nodes: int | None = None, idle_seconds_before_scaledown: int | None = None) -> None:
        """Other bounds, at once and while runs use it; nodes beyond a lower maximum leave when they are idle. None = as it is.

        Raises ComputeTargetException for bounds that cannot be; nothing is changed then.
        """
        from google.protobuf.duration_pb2 import Duration

        from trainyard.cluster.v1 import cluster_pb2

        known = AmlComputeStatus(self._pool).scale_settings
        wish = ProvisioningConfiguration(
            self.vm_size,
            self._pool.vm_priority,
            known.minimum_node_count if min_nodes is None else min_nodes,
            known.maximum_node_count if max_nodes is None else max_nodes,
            idle_seconds_before_scaledown,
        )
        wish.validate_configuration()
        request = cluster_pb2.UpdatePool(name=self.name, min_nodes=min_nodes, max_nodes=max_nodes)
        if idle_seconds_before_scaledown is not None:
            request.idle_before_scaledown.CopyFrom(Duration(seconds=int(idle_seconds_before_scaledown)))
        clients = clients_of(self.workspace)
        self._pool = clients.call(clients.compute.UpdatePool, request, ComputeTargetException).pool

    def delete(self) -> None:
        """Ends its nodes. Raises ComputeTargetException, with the runs, while runs use it."""
        from trainyard.cluster.v1 import cluster_pb2

        clients = self.workspace._clients
        clients.call(clients.compute.DeletePool, cluster_pb2.DeletePool(name=self.name), ComputeTargetException)
        self._deleting = True


def _from_pool(workspace: Workspace, pool: Any) -> AmlCompute:
    target = object.__new__(AmlCompute)
    target.workspace, target.name = workspace, pool.name
    target._set(pool)
    return target
