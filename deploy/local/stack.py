"""Up, down and status of the local stack: Kafka, MinIO and the services as processes of one supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local import cache, kafka, supervision
from deploy.local.console import say, step
from deploy.local.keys import BUCKET, Secrets, set_up_store
from deploy.local.layout import SERVICES, Layout, holder, in_use
from deploy.local.private_file import write_private
from services.serving.door.about import NAME as DOOR_NAME

_SECONDS = 90.0
_DOOR_SECONDS = 15.0


class StackError(Exception):
    """What does not come up, why, and where to look."""


class NotThere(StackError):
    """A part that does not answer in time."""


# -- up


def up(layout: Layout) -> None:
    """Starts what is not running and returns when all of it answers. Raises StackError."""
    has_door = True
    if supervision.pid(layout) is None:
        _check_leftovers(layout)
        has_door = _check_ports(layout)
        with step("writing settings and starting the processes"):
            secrets = write(layout)
            programs = supervision.parts(layout, secrets), supervision.agents(layout, secrets)
            write_private(layout.supervisor_config, supervision.configuration(layout, *programs))
            supervision.start(layout)
    else:
        secrets = Secrets.load_or_make(layout.secrets)
        say("  the processes run already")
    with step("waiting for Kafka and its topics"):
        _until(layout, "kafka", lambda: topics(layout))
    with step("waiting for MinIO"):
        _until(layout, "minio", lambda: store(layout, secrets))
    for name in SERVICES:
        with step(f"waiting for the service {name}"):
            _until(layout, name, lambda name=name: is_serving(layout.service_port(name)))  # type: ignore[misc]
    if has_door:
        with step("waiting for the door to all models by name"):
            _await_door(layout)
    say(f"The stack is up; its state lies in {layout.home}. Workspace.from_config() finds it by {layout.config}")


def _check_leftovers(layout: Layout) -> None:
    left = _left_over(layout)
    if left:
        raise StackError(f"{left} End them with `make down`, then start the stack anew.")


def _left_over(layout: Layout) -> str:
    """What outlived its supervisor, in words; "" if nothing did."""
    names = sorted({f"{process.name()}, pid {process.pid}" for process in _processes(layout)})
    return f"{len(names)} processes of the stack in {layout.home} run without their supervisor: {'; '.join(names)}." if names else ""


def _check_ports(layout: Layout) -> bool:
    """Whether the door's are free; without it the stack starts all the same. Raises StackError where another is not."""
    told = {name: _taken(name, port) for name, port in in_use(layout).items()}
    shut = [told.pop(name) for name in layout.door_ports() if name in told]
    for why in shut:
        say(f"  {why}: no model is found by its name until that ends; all else goes on")
    if told:
        raise StackError(
            "; ".join(told.values()) + ". Stop what listens there, or take other ports: `make up PORT_BASE=18400` (or --port-base)."
        )
    return not shut


def _await_door(layout: Layout) -> None:
    """It is no reason to be without all else."""
    deadline = time.monotonic() + _DOOR_SECONDS
    while not is_door(layout.door_rest_port):
        if time.monotonic() >= deadline:
            say(f"  the door does not answer on {layout.door_grpc_port} and {layout.door_rest_port}: see {layout.logs / 'serving.log'}")
            return
        time.sleep(0.1)


def _taken(name: str, port: int) -> str:
    who = holder(port)
    return f"port {port}, meant for {name}, is in use{f' by {who}' if who else ''}"


def write(layout: Layout) -> Secrets:
    """Settings, keys and what Kafka goes by: all that the processes need to find."""
    for folder in (layout.home, layout.logs, layout.home / "db", layout.home / "minio", layout.home / "kafka"):
        folder.mkdir(parents=True, exist_ok=True)
    secrets = Secrets.load_or_make(layout.secrets)
    jars = cache.part("kafka")
    kafka.format_once(jars, kafka.write_properties(layout.home, layout.kafka_port, layout.controller_port))
    layout.settings.write_text(_settings(layout))
    write_private(layout.agent_settings, _agent_settings(layout, secrets))
    write_private(layout.config, json.dumps(_client_config(layout, secrets), indent=1) + "\n")
    (layout.home / "stack.json").write_text(json.dumps({"base": layout.base, "node_slots": layout.node_slots}))
    return secrets


def _settings(layout: Layout) -> str:
    """TOML; its strings are those of JSON."""
    return f"""\
# Written by `up`. Every setting: services/chassis/settings.py. The environment (TRAINYARD_...) goes before this file.
home = {json.dumps(str(layout.home))}
cache = {json.dumps(str(cache.root()))}
kafka_bootstrap = {json.dumps(layout.kafka_bootstrap)}

[object_store]
endpoint = {json.dumps(layout.minio_endpoint)}
bucket = {json.dumps(BUCKET)}

[scheduler]
node_slots = {layout.node_slots}
supervisor_socket = {json.dumps(str(layout.supervisor_socket))}
agent_settings = {json.dumps(str(layout.agent_settings))}

[serving]
door_grpc_port = {layout.door_grpc_port}
door_rest_port = {layout.door_rest_port}
"""


def _agent_settings(layout: Layout, secrets: Secrets) -> str:
    """What an agent needs that gets no environment from the supervisor: the keys are the agents' own."""
    return f"""\
# Written by `up`: for agents in containers, on other hosts (a copy of this file), and those that join by hand. It holds a key: keep it private.
kafka_bootstrap = {json.dumps(layout.kafka_bootstrap)}

[object_store]
endpoint = {json.dumps(layout.minio_endpoint)}
bucket = {json.dumps(BUCKET)}
access_key = "trainer_agent"
secret_key = {json.dumps(secrets.passwords["trainer_agent"])}
"""


def _client_config(layout: Layout, secrets: Secrets) -> dict[str, object]:
    store = {"endpoint": layout.minio_endpoint, "bucket": BUCKET, "access_key": "client", "secret_key": secrets.passwords["client"]}
    return {
        "subscription_id": "local",
        "resource_group": "local",
        "workspace_name": "local",
        "trainyard": {
            "home": str(layout.home),
            "kafka_bootstrap": layout.kafka_bootstrap,
            "object_store": store,
            "services": {name: f"127.0.0.1:{layout.service_port(name)}" for name in SERVICES},
            "door": {"grpc": f"127.0.0.1:{layout.door_grpc_port}", "rest": f"127.0.0.1:{layout.door_rest_port}"},
        },
    }


def _until(layout: Layout, program: str, ready: Callable[[], bool]) -> None:
    def check() -> None:
        if supervision.pid(layout) is None:
            raise StackError(f"the supervisor has ended: see {layout.logs / 'supervisord.log'}")

    try:
        until(program, ready, check)
    except NotThere as error:
        raise StackError(f"{error}\n{_last_lines(layout.logs / f'{program}.log')}") from None


def until(program: str, ready: Callable[[], bool], check: Callable[[], None] = lambda: None) -> None:
    """Returns when it is ready; `check` raises where that will never be. Raises NotThere after a while."""
    deadline = time.monotonic() + _SECONDS
    reason = ""
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        check()
        time.sleep(0.1)
    raise NotThere(f"{program} does not answer after {_SECONDS:.0f} s. {reason}")


def _last_lines(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()[-15:] if path.exists() else []
    return "\n".join([f"The end of {path}:", *(f"  | {line}" for line in lines)])


def topics(layout: Layout) -> bool:
    from services.chassis.topics import make_topics

    # kafka-python leaves a socket open for each broker that did not answer.
    socket.create_connection(("127.0.0.1", layout.kafka_port), 1.0).close()
    make_topics(layout.kafka_bootstrap)
    return True


def store(layout: Layout, secrets: Secrets) -> bool:
    set_up_store(layout.minio_endpoint, secrets, layout.home / "store.done")
    return True


def is_serving(port: int) -> bool:
    """gRPC health of a service."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2.0)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def is_door(port: int) -> bool:
    """Whether the serving service's door answers there over REST, and nobody else."""
    try:
        found = httpx.get(f"http://127.0.0.1:{port}/v2", timeout=2.0).json()
    except (httpx.HTTPError, ValueError):
        return False
    return isinstance(found, dict) and found.get("name") == DOOR_NAME


# -- down


def down(layout: Layout) -> None:
    """Ends every process of the stack; the state stays."""
    supervisor = supervision.pid(layout)
    if supervisor is not None:
        with step("stopping the processes"):
            supervision.call(layout, lambda rpc: rpc.shutdown())
            _wait_gone(supervisor, 40.0)
    left = list(_processes(layout))
    for process in left:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(left, timeout=10)
    layout.supervisor_socket.unlink(missing_ok=True)
    say("The stack is down." if supervisor is not None or left else "The stack was not running.")


def _wait_gone(pid: int, seconds: float) -> None:
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        os.kill(pid, signal.SIGKILL)


def _processes(layout: Layout) -> Iterator[psutil.Process]:
    """Whatever of this stack is still there, by the settings file in its environment: services, brokers, ranks and servers."""
    marks = {("TRAINYARD_SETTINGS", str(layout.settings))}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        node = environment.get("TRAINYARD_NODE", "")
        if marks & set(environment.items()) or node.startswith(f"{layout.home}/"):
            yield process


# -- status


def status(layout: Layout) -> int:
    """A table of processes; 0 when all that should run does and answers."""
    from rich.console import Console
    from rich.table import Table

    try:
        found = supervision.call(layout, lambda rpc: rpc.getAllProcessInfo())
    except supervision.NotRunning:
        left = _left_over(layout)
        say(f"{left} End them with `make down`." if left else f"The stack in {layout.home} is not running. Start it with `make up`.")
        return 1
    table = Table("process", "state", "port", "since", "log")
    well = True
    for info in found:
        name = info["name"]
        port = _port(layout, name)
        state = info["statename"].lower()
        if info["statename"] == "RUNNING" and name in (*SERVICES, *_agents(layout)):
            serving = is_serving(port)
            state = "ready" if serving else "running, not ready"
        well = well and (state in ("ready", "running") or (name in _agents(layout) and info["statename"] == "STOPPED"))
        since = f"{time.time() - info['start']:.0f} s" if info["statename"] == "RUNNING" else ""
        table.add_row(name, state, str(port), since, os.path.relpath(layout.logs / f"{name}.log"))
    is_open = is_door(layout.door_rest_port)
    ports = f"{layout.door_grpc_port}, {layout.door_rest_port}"
    table.add_row("models by name", "ready" if is_open else "not ready", ports, "", os.path.relpath(layout.logs / "serving.log"))
    Console().print(table)
    return 0 if well else 1


def _agents(layout: Layout) -> list[str]:
    return [f"agent-{slot}" for slot in range(layout.node_slots)]


def _port(layout: Layout, name: str) -> int:
    known = {"kafka": layout.kafka_port, "minio": layout.minio_port, **{it: layout.service_port(it) for it in SERVICES}}
    return known[name] if name in known else layout.agent_port(int(name.rpartition("-")[2]))
