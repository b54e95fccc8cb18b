"""The variables that make a process one of a ring's ranks: Horovod's, NCCL's, and MPI's for scripts that ask those."""

from __future__ import annotations

import ipaddress
import socket

import psutil

from services.trainer_agent.horovod.places import Place


def variables(place: Place, *, host: str, address: str, port: int, secret: str, round_: str, elastic: bool) -> dict[str, str]:
    """`host` tells the nodes of a ring apart; `address` is this node's own, where its rendezvous answers on `port` whoever has `secret`."""
    interface = interface_of(address)
    return {
        **place.as_variables(),
        "HOROVOD_HOSTNAME": host,
        "HOROVOD_SLOT": str(place.local_rank),
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_ADDRESS": address,
        "HOROVOD_GLOO_IFACE": interface,
        "HOROVOD_RENDEZVOUS_SECRET": secret,
        "HOROVOD_ROUND": round_,
        **({"HOROVOD_ELASTIC": "1"} if elastic else {}),
        "NCCL_SOCKET_IFNAME": interface,
        "OMPI_COMM_WORLD_RANK": str(place.rank),
        "OMPI_COMM_WORLD_SIZE": str(place.size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(place.local_rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(place.local_size),
        "OMPI_COMM_WORLD_NODE_RANK": str(place.local_rank),
    }


def interface_of(address: str) -> str:
    """The network interface that has the address; any address of 127.0.0.0/8 is the loopback's. Raises ValueError where none has it."""
    try:
        wanted = ipaddress.ip_address(address)
    except ValueError as error:
        raise ValueError(f"The agent's address must be an IP address of this node where runs use Horovod; it is {address!r}.") from error
    found = {
        ipaddress.ip_address(it.address): name
        for name, addresses in psutil.net_if_addrs().items()
        for it in addresses
        if it.family == socket.AF_INET
    }
    if wanted not in found and wanted.is_loopback:
        wanted = ipaddress.ip_address("127.0.0.1")
    if wanted not in found:
        raise ValueError(f"This node has no interface with the address {address}: set the agent's address to one of its own.")
    return found[wanted]
