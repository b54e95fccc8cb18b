"""The same stack in containers (docker-compose.yml): each runs one part in the foreground, all share the folder of its state."""

from __future__ import annotations

import os

from deploy.local import stack, supervision
from deploy.local.console import say, step
from deploy.local.keys import Secrets
from deploy.local.layout import SERVICES, Layout
from deploy.local.private_file import write_private

NODES = "nodes"


def prepare(layout: Layout) -> None:
    """Once, before any part starts: settings, keys, Kafka's folder."""
    with step("writing settings and keys"):
        stack.write(layout)


def furnish(layout: Layout) -> None:
    """Once Kafka and MinIO run: topics, the bucket and its users. Raises StackError."""
    secrets = Secrets.load_or_make(layout.secrets)
    with step("waiting for Kafka and its topics"):
        stack.until("kafka", lambda: stack.topics(layout))
    with step("waiting for MinIO"):
        stack.until("minio", lambda: stack.store(layout, secrets))


def run(layout: Layout, name: str) -> None:
    """Becomes that part: its process ends with the container's. Raises StackError where there is no such part."""
    secrets = Secrets.load_or_make(layout.secrets)
    os.chdir(supervision.REPO)
    if name == NODES:
        _supervise(layout, secrets)
    program = next((it for it in supervision.parts(layout, secrets) if it.name == name), None)
    if program is None:
        raise stack.StackError(f"there is no part {name!r}; there are kafka, minio, {', '.join(SERVICES)} and {NODES}")
    words = list(program.words)
    os.execve(words[0], words, supervision.passed_on() | supervision.environment(program, layout))


def _supervise(layout: Layout, secrets: Secrets) -> None:
    """The agents of pools that name no other provider; the scheduler starts and stops them through the supervisor's socket."""
    layout.supervisor_socket.unlink(missing_ok=True)
    write_private(layout.supervisor_config, supervision.configuration(layout, (), supervision.agents(layout, secrets)))
    words = [*supervision.command(layout), "--nodaemon"]
    os.execve(words[0], words, supervision.passed_on())


def ready(layout: Layout, name: str) -> int:
    """For health checks: 0 when that service answers."""
    if name not in SERVICES:
        raise stack.StackError(f"there is no service {name!r}; there are {', '.join(SERVICES)}")
    serves = stack.is_serving(layout.service_port(name))
    say(f"{name} {'answers' if serves else 'does not answer'}")
    return 0 if serves else 1
