"""The supervisor of the local stack: its configuration as text, and its XML-RPC interface."""

from __future__ import annotations

import os
import subprocess
import sys
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    "USER",
    "LOGNAME",
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


@dataclass(frozen=True)
class Program:
    """One process of the stack. Lower priorities start first and stop last: what others lean on outlives them."""

    name: str
    words: Sequence[str]
    given: Mapping[str, str]
    priority: int
    autostart: bool = True


def parts(layout: Layout, secrets: Secrets) -> list[Program]:
    """Kafka, MinIO and the services."""
    broker = kafka.command(cache.part("kafka"), "kafka.Kafka", str(layout.home / "kafka" / "server.properties"))
    store = minio.command(cache.part("minio") / "minio", layout.home, layout.minio_port)
    found = [Program("kafka", broker, {}, 1), Program("minio", store, secrets.minio_root(), 1)]
    for name in SERVICES:
        given = {"TRAINYARD_PORT": str(layout.service_port(name)), **secrets.object_store(name)}
        found.append(Program(name, [sys.executable, "-m", f"services.{name}"], given, 10))
    return found


def agents(layout: Layout, secrets: Secrets) -> list[Program]:
    """Those that the scheduler starts and stops."""
    found = []
    for slot in range(layout.node_slots):
        given = {
            "TRAINYARD_AGENT__ID": f"agent-{slot}",
            "TRAINYARD_PORT": str(layout.agent_port(slot)),
            **secrets.object_store("trainer_agent"),
        }
        if sys.platform == "linux" and slot < _ADDRESSES:
            given["TRAINYARD_AGENT__ADDRESS"] = f"127.0.1.{slot + 1}"
        found.append(Program(f"agent-{slot}", [sys.executable, "-m", "services.trainer_agent"], given, 20, autostart=False))
    return found


def configuration(layout: Layout, parts: Sequence[Program], agents: Sequence[Program]) -> str:
    """Of a supervisor that runs those."""
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
    group = f"[group:agents]\nprograms={','.join(agent.name for agent in agents)}\npriority=20\n" if agents else ""
    return "\n".join([head, *(_section(program, layout) for program in (*parts, *agents)), group])


def environment(program: Program, layout: Layout) -> dict[str, str]:
    """What the process is given beside the environment that the stack was started in."""
    return {"TRAINYARD_SETTINGS": str(layout.settings), "PYTHONUNBUFFERED": "1", **program.given}


def _section(program: Program, layout: Layout) -> str:
    given = ",".join(f'{key}="{_escaped(value)}"' for key, value in environment(program, layout).items())
    return f"""\
[program:{program.name}]
command={" ".join(_quoted(word) for word in program.words)}
environment={given}
priority={program.priority}
autostart={str(program.autostart).lower()}
autorestart=true
startsecs=1
startretries=20
stopwaitsecs=15
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={layout.logs / f"{program.name}.log"}
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=1
"""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _quoted(word: str) -> str:
    return f'"{_escaped(word)}"' if any(char in word for char in ' "\\;') else word.replace("%", "%%")


def start(layout: Layout) -> None:
    """As a daemon. Raises CalledProcessError with what it said."""
    subprocess.run(command(layout), check=True, capture_output=True, text=True, env=passed_on(), cwd=REPO)


def command(layout: Layout) -> list[str]:
    return [sys.executable, "-m", "supervisor.supervisord", "-c", str(layout.supervisor_config)]


def passed_on() -> dict[str, str]:
    """What the stack's processes see of the environment here."""
    return {name: value for name, value in os.environ.items() if _is_passed_on(name)}


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
