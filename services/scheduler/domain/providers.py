"""Where a pool's nodes come from: the grammar of what a request may say, and the names of the nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

LOCAL, STATIC, SSH, DOCKER = "local", "static", "ssh", "docker"
MOST_HOSTS = 1_000
SLOT = re.compile(r"agent-\d+\Z")
"""The nodes of this machine; pools with the provider local share them."""
AGENT_ID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{0,127}\Z")
# They become words of ssh's command line: a leading dash would be an option, a space or quote another word of its configuration.
_HOST = re.compile(r"(?:[A-Za-z0-9_][-A-Za-z0-9_.]{0,31}@)?(?:[A-Za-z0-9][-A-Za-z0-9.]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?\Z")
_LOCAL_FILE = re.compile(r"(?:~/|/)[-A-Za-z0-9._/@+]{1,1000}\Z")
_REMOTE_FILE = re.compile(r"[^-\s\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,1000}\Z")
_IMAGE = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._/:@]{0,511}\Z")
_NETWORK = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{0,127}\Z")


def kind_of(provider: Any) -> str:
    """One of the four names; a provider that is unset is local."""
    return provider.WhichOneof("kind") or LOCAL


def node_names(pool: str, provider: Any, max_nodes: int, slots: int) -> tuple[str, ...]:
    """Every name that a node of the pool may have, the first to be taken first; none for nodes that join by hand."""
    match kind_of(provider):
        case "local":
            return tuple(f"agent-{number}" for number in range(slots))
        case "ssh":
            return tuple(f"{pool}-{position}" for position in range(min(max_nodes, len(provider.ssh.hosts))))
        case "docker":
            return tuple(f"{pool}-{position}" for position in range(max_nodes))
    return ()


def fault(request: Any) -> tuple[str, str] | None:
    """The first thing at fault of a CreatePool's provider: (field, why)."""
    return next(_faults(request), None)


def _faults(request: Any) -> Iterator[tuple[str, str]]:
    kind = kind_of(request.provider)
    if kind in (SSH, DOCKER) and request.name == "agent":
        yield "name", f"A pool with the provider {kind} cannot be named 'agent': agent-0, agent-1 ... are the nodes of this machine."
    if kind == SSH:
        yield from _ssh_faults(request)
    if kind == DOCKER:
        docker = request.provider.docker
        if not _IMAGE.match(docker.image):
            yield "provider.docker.image", f"{docker.image[:200]!r} is no name of an image, like registry/name:tag."
        if docker.network and not _NETWORK.match(docker.network):
            yield "provider.docker.network", f"{docker.network[:200]!r} is no name of a Docker network; empty means the host's."


def _ssh_faults(request: Any) -> Iterator[tuple[str, str]]:
    ssh = request.provider.ssh
    if not 1 <= len(ssh.hosts) <= MOST_HOSTS:
        yield "provider.ssh.hosts", f"1 to {MOST_HOSTS} hosts must be listed; they are {len(ssh.hosts)}."
        return
    for host in ssh.hosts:
        found = _HOST.match(host)
        if found is None or not 0 < int(found[1] or 22) < 65_536:
            yield "provider.ssh.hosts", f"{host[:200]!r} is none of: host, user@host, user@host:port; an IPv6 address stands in brackets."
    if twice := next((host for host in ssh.hosts if list(ssh.hosts).count(host) > 1), None):
        yield "provider.ssh.hosts", f"{twice!r} is listed more than once; a host is one node."
    if request.max_nodes > len(ssh.hosts):
        yield "max_nodes", f"max_nodes is {request.max_nodes}, and {len(ssh.hosts)} hosts are listed, one a node."
    for field in ("identity_file", "known_hosts_file"):
        path = getattr(ssh, field)
        if path and not _LOCAL_FILE.match(path):
            what = f"{path[:200]!r} is no path that ssh can be given: absolute or below ~/, of letters, digits and . _ - / @ +."
            yield f"provider.ssh.{field}", what
    for field in ("python", "settings_file"):
        path = getattr(ssh, field)
        if path and not _REMOTE_FILE.match(path):
            yield f"provider.ssh.{field}", f"{path[:200]!r} is no path of a file on the hosts."
    if not ssh.python:
        yield "provider.ssh.python", "It must name a Python on the hosts that has the agent: <checkout>/.venv/bin/python."
