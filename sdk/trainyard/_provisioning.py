"""What a pool is asked to be: bounds, shape, and where its nodes come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard._errors import ComputeTargetException

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
PROVIDERS = ("local", "static", "ssh", "docker")
# Option -> the provider that it belongs to.
_OPTIONS = {
    "hosts": "ssh",
    "python": "ssh",
    "identity_file": "ssh",
    "known_hosts_file": "ssh",
    "settings_file": "ssh",
    "image": "docker",
    "network": "docker",
}


@dataclass(frozen=True)
class ProvisioningConfiguration:
    """What `ComputeTarget.create` is asked for. Node counts; idle time in seconds, None = the scheduler's 120 s."""

    vm_size: str
    vm_priority: str = "dedicated"
    min_nodes: int = 0
    max_nodes: int = 1
    idle_seconds_before_scaledown: int | None = None
    provider: Any = None
    """Where the nodes come from, as the scheduler takes it; None = this machine."""
    strict: bool = False
    """A run that asks for a GPU is refused where the pool has none."""

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


def check_azure_options(options: Mapping[str, Any]) -> None:
    """Raises ComputeTargetException for those that ask for something that cannot be had, TypeError for those that are none."""
    for option, value in options.items():
        if option not in _REFUSED:
            raise TypeError(f"unexpected option {option!r}")
        unasked, why = _REFUSED[option]
        if value not in unasked:
            raise refused(f"{option} cannot be had: {why}.", option, "leave it out")


def provider_of(kind: str, options: Mapping[str, Any]) -> Any:
    """The provider as the scheduler takes it, which checks hosts, files and names. Raises ComputeTargetException."""
    from trainyard.cluster.v1 import cluster_pb2

    if kind not in PROVIDERS:
        raise refused(f"provider is one of {', '.join(PROVIDERS)}, not {kind!r}.", "provider")
    given = {name: value for name, value in options.items() if value}
    for name, value in given.items():
        if _OPTIONS[name] != kind:
            raise refused(f"{name} is an option of the provider {_OPTIONS[name]}; the provider is {kind}.", name)
        if name != "hosts" and not isinstance(value, str):
            raise refused(f"{name} is a text, not {value!r}.", name)
    match kind:
        case "static":
            return cluster_pb2.Provider(static=cluster_pb2.StaticNodes())
        case "ssh":
            given["hosts"] = _hosts(given.get("hosts"))
            return cluster_pb2.Provider(ssh=cluster_pb2.SshNodes(**given))
        case "docker":
            return cluster_pb2.Provider(docker=cluster_pb2.DockerNodes(**given))
    return cluster_pb2.Provider(local=cluster_pb2.LocalNodes())


def _hosts(hosts: Sequence[str] | None) -> Sequence[str]:
    if isinstance(hosts, str) or not hosts or not all(isinstance(host, str) for host in hosts):
        raise refused(f"hosts is a list of texts like 'user@host:port', one a node, not {hosts!r}.", "hosts")
    return list(hosts)
