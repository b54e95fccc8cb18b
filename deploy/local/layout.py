"""Where the local stack keeps its things, and which ports it takes. Pure but for reading the port base."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

DEFAULT_BASE = 17400
DOOR_GRPC_PORT, DOOR_REST_PORT = 8500, 8501
SERVICES = ("dataset", "scheduler", "registry", "serving", "history")
# Unix socket paths end at 107 bytes.
_LONGEST_SOCKET = 100


@dataclass(frozen=True)
class Layout:
    """A stack: its home folder, its port base, and the number of nodes that it may start on this machine."""

    home: Path
    base: int = DEFAULT_BASE
    node_slots: int = 4

    @property
    def kafka_port(self) -> int:
        return self.base

    @property
    def controller_port(self) -> int:
        return self.base + 1

    @property
    def minio_port(self) -> int:
        return self.base + 2

    def service_port(self, service: str) -> int:
        return self.base + 10 + SERVICES.index(service)

    @property
    def door_grpc_port(self) -> int:
        """All models by name: where clients of TensorFlow Serving and Triton look for them, in one stack of a machine."""
        return DOOR_GRPC_PORT if self.base == DEFAULT_BASE else self.base + 16

    @property
    def door_rest_port(self) -> int:
        return DOOR_REST_PORT if self.base == DEFAULT_BASE else self.base + 17

    def agent_port(self, slot: int) -> int:
        return self.base + 20 + slot

    def door_ports(self) -> dict[str, int]:
        """Those that the stack is well without: whatever answers there has one of its own as well."""
        return {"models by name, gRPC": self.door_grpc_port, "models by name, REST": self.door_rest_port}

    def ports(self) -> dict[str, int]:
        """Every port by what listens there."""
        named = {"Kafka": self.kafka_port, "Kafka's controller": self.controller_port, "MinIO": self.minio_port}
        named |= {f"the service {name}": self.service_port(name) for name in SERVICES}
        named |= self.door_ports()
        return named | {f"agent-{slot}": self.agent_port(slot) for slot in range(self.node_slots)}

    @property
    def kafka_bootstrap(self) -> str:
        return f"127.0.0.1:{self.kafka_port}"

    @property
    def minio_endpoint(self) -> str:
        return f"127.0.0.1:{self.minio_port}"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def settings(self) -> Path:
        return self.home / "settings.toml"

    @property
    def agent_settings(self) -> Path:
        """For agents that the supervisor does not start: in containers, on other hosts, joined by hand."""
        return self.home / "agent.toml"

    @property
    def config(self) -> Path:
        return self.home / "config.json"

    @property
    def secrets(self) -> Path:
        return self.home / "secrets.json"

    @property
    def supervisor_config(self) -> Path:
        return self.home / "supervisord.conf"

    @property
    def supervisor_pid(self) -> Path:
        return self.home / "supervisord.pid"

    @property
    def supervisor_socket(self) -> Path:
        inside = self.home / "supervisor.sock"
        if len(str(inside)) <= _LONGEST_SOCKET:
            return inside
        mark = hashlib.sha256(str(self.home).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"trainyard-{os.getuid()}-{mark}.sock"


def in_use(layout: Layout) -> dict[str, int]:
    """Those of its ports that somebody listens on, by what they are meant for."""
    return {name: port for name, port in layout.ports().items() if _listens(port)}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        # As a server would bind it: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def holder(port: int) -> str:
    """Who listens there, in words; empty where that cannot be seen."""
    import psutil

    try:
        found = next(
            (it for it in psutil.net_connections("tcp") if it.status == psutil.CONN_LISTEN and it.laddr and it.laddr.port == port), None
        )
        return f"{psutil.Process(found.pid).name()}, pid {found.pid}" if found is not None and found.pid else ""
    except (psutil.Error, OSError):
        return ""
