"""Which provider a pool's nodes come from."""

from __future__ import annotations

from services.chassis.settings import Settings
from services.scheduler.adapters.docker_nodes import DockerNodes
from services.scheduler.adapters.ssh_nodes import SshNodes
from services.scheduler.domain import Pool
from services.scheduler.domain.providers import kind_of
from services.scheduler.ports import NodeProvider


def provider_of(pool: Pool, settings: Settings) -> NodeProvider:
    """Of a pool that has nodes of its own: ssh or docker."""
    if kind_of(pool.provider) == "ssh":
        return SshNodes(pool.name, pool.provider.ssh)
    return DockerNodes(pool.name, pool.provider.docker, settings)
