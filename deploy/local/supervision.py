"""The supervisor of the local stack: its configuration as text, and its XML-RPC interface."""

from __future__ import annotations

import os
import subprocess
import sys
import xmlrpc.client
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from deploy.local import cache, kafka, minio
from deploy.local.keys import Secrets
from deploy.local.layout import SERVICES, Layout

REPO = Path(__file__).resolve().parents[2]
# What services and their children may need of the environment that the stack was started in: certificates and proxies, not secrets.
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "XDG_CACHE_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "LD_LIBRARY_PATH",
)
_PASSED_ON_PREFIXES = ("PIP_", "UV_", "CUDA_", "NVIDIA_", "LC_")

# Each of this machine's nodes has a loopback address of its own, so that what works here works on nodes that are machines.
_ADDRESSES = 250


def configuration(layout: Layout, secrets: Secrets) -> str:
    programs = [
        _program(
            "kafka",
            kafka.command(cache.part("kafka"), "kafka.Kafka", str(layout.home / "kafka" / "server.properties")),
            {},
            layout,
            priority=1,
        ),
        _program(
            "minio", minio.command(cache.part("minio") / "minio", layout.home, layout.minio_port), secrets.minio_root(), layout, priority=1
        ),
    ]
    for name in SERVICES:
        given = {"TRAINYARD_PORT": str(layout.service_port(name)), **secrets.object_store(name)}
        programs.append(_program(name, [sys.executable, "-m", f"services.{name}"], given, layout, priority=10))
    agents = []
    for slot in range(layout.node_slots):
        name = f"agent-{slot}"
        agents.append(name)
        given = {"TRAINYARD_AGENT__ID": name, "TRAINYARD_PORT": str(layout.agent_port(slot)), **secrets.object_store("trainer_agent")}
        if sys.platform == "linux" and slot < _ADDRESSES:
            given["TRAINYARD_AGENT__ADDRESS"] = f"127.0.1.{slot + 1}"
        programs.append(_program(name, [sys.executable, "-m", "services.trainer_agent"], given, layout, priority=20, autostart=False))
    head = f"""\
[supervisord]
logfile={layout.logs / "supervisord.log"}
logfile_maxbytes=5MB
logfile_backups=1
pidfile={layout.supervisor_pid}
directory={REPO}
nocleanup=true
minfds=1024

[unix_http_server]
file={layout.supervisor_socket}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    group = f"[group:agents]\nprograms={','.join(agents)}\npriority=20\n" if agents else ""
    return "\n".join([head, *programs, group])


def _program(name: str, words: list[str], given: Mapping[str, str], layout: Layout, *, priority: int, autostart: bool = True) -> str:
    """Lower priorities start first and stop last: what others lean on outlives them."""
    settings = {"TRAINYARD_SETTINGS": str(layout.settings), "PYTHONUNBUFFERED": "1"}
    environment = ",".join(f'{key}="{_escaped(value)}"' for key, value in {**settings, **given}.items())
    return f"""\
[program:{name}]
command={" ".join(_quoted(word) for word in words)}
environment={environment}
priority={priority}
autostart={str(autostart).lower()}
autorestart=true
startsecs=1
startretries=20
stopwaitsecs=15
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={layout.logs / f"{name}.log"}
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=1
"""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _quoted(word: str) -> str:
    return f'"{_escaped(word)}"' if any(char in word for char in ' "\\;') else word.replace("%", "%%")


def start(layout: Layout) -> None:
    """As a daemon. Raises CalledProcessError with what it said."""
    given = {name: value for name, value in os.environ.items() if _is_passed_on(name)}
    words = [sys.executable, "-m", "supervisor.supervisord", "-c", str(layout.supervisor_config)]
    subprocess.run(words, check=True, capture_output=True, text=True, env=given, cwd=REPO)


def _is_passed_on(name: str) -> bool:
    if name.startswith("TRAINYARD_"):
        # Settings go before the file, also those given to `up`; where things lie is the file's alone.
        return name not in ("TRAINYARD_HOME", "TRAINYARD_SETTINGS", "TRAINYARD_CONFIG", "TRAINYARD_PORT", "TRAINYARD_NODE")
    return name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES) or name.lower().endswith("_proxy")


class NotRunning(Exception):
    """No supervisor answers."""


def call(layout: Layout, action: Callable[[Any], Any]) -> Any:
    """`action(rpc)` on the supervisor's namespace. Raises NotRunning."""
    transport = SupervisorTransport(None, None, serverurl=f"unix://{layout.supervisor_socket}")
    try:
        return action(xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor)
    except (OSError, xmlrpc.client.Error) as error:
        raise NotRunning(str(error)) from error
    finally:
        transport.close()


def pid(layout: Layout) -> int | None:
    """The running supervisor's process id."""
    try:
        return int(call(layout, lambda rpc: rpc.getPID()))
    except NotRunning:
        return None
