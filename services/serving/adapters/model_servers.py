"""Starts model servers and scoring scripts, each in its environment, with a socket that listens already."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from contextlib import ExitStack
from pathlib import Path

from services.serving.adapters.endpoint_certificates import EndpointCertificates
from services.serving.adapters.endpoint_keys import key_file
from services.serving.adapters.listening import Listening
from services.serving.adapters.sample_spools import spool_folder
from services.serving.adapters.server_environment import SDK, child_environment, code_variables, limits_as_variables
from services.serving.adapters.server_process import ModelServer
from services.serving.model_server.options import BATCHING_FILE
from services.serving.ports import Content, Fetched, Ports, Say


class ModelServers:
    def __init__(self, host: str, home: Path, load_seconds: float, memory_budget: int = 0) -> None:
        """`load_seconds`: from the start of a process to its first answer. `memory_budget`: bytes that all servers may take together, so no
        single one more; 0: no bound."""
        self._host = host
        self._home = home
        self._load_seconds = load_seconds
        self._certificates = EndpointCertificates(home)
        self._memory_budget = memory_budget
        self._listening = Listening(host)

    def is_free(self, ports: Ports) -> bool:
        return all(_is_free(self._host, port) for port in (ports.grpc, ports.rest) if port)

    async def start(self, python: Path, content: Content, fetched: Fetched, ports: Ports, say: Say) -> ModelServer:
        with ExitStack() as held:
            rest = held.enter_context(self._listening.on(ports.rest, content.endpoint))
            server = await self._process(python, content, fetched, ports.grpc, rest, say)
            server.when_over(held.pop_all().close)
        try:
            await server.until_ready(self._load_seconds)
        except BaseException:
            await server.stop(0)
            raise
        return server

    async def _process(self, python: Path, content: Content, fetched: Fetched, grpc: int, rest: socket.socket, say: Say) -> ModelServer:
        has_code = content.scoring is not None
        process = await asyncio.create_subprocess_exec(
            *(self._scoring(python, content, rest) if has_code else self._serving(python, content, fetched, grpc, rest)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=fetched.path if has_code else self._home,
            env=child_environment(os.environ) | limits_as_variables(content.limits) | code_variables(content, fetched),
            process_group=0,
            pass_fds=(rest.fileno(),),
        )
        server = ModelServer(process, content, say, "127.0.0.1" if self._host == "0.0.0.0" else self._host, rest.getsockname()[1])
        server.bound(content.limits.memory_bytes, self._memory_budget)
        return server

    def _serving(self, python: Path, content: Content, fetched: Fetched, grpc: int, rest: socket.socket) -> list[str]:
        (version,) = content.models
        options = {
            "model-name": version.model,
            "model-path": fetched.path,
            "version": version.version,
            "host": self._host,
            "grpc-port": grpc,
            "rest-fd": rest.fileno(),
            "parent-pid": os.getpid(),
            "key-file": key_file(self._home, content.endpoint),
            "samples": spool_folder(self._home, content.endpoint, content.deployment),
            "manage-models": "false",
        }
        if content.tls is not None:
            options |= dict.fromkeys(("ssl-config-file", "rest-api-ssl-config-file"), self._certificates.files(content.tls).config)
        if content.limits.cpu_cores:
            options["tensorflow-intra-op-parallelism"] = math.ceil(content.limits.cpu_cores)
        if content.alias:
            options["version-label"] = content.alias
        if (fetched.path / BATCHING_FILE).is_file():  # a model without one answers each call by itself
            options |= dict.fromkeys(("enable-batching", "enable-per-model-batching-parameters"), "true")
        words = [f"--{name}={value}" for name, value in options.items()]
        return [str(python), "-P", "-m", "services.serving.model_server", *words, "--share-ports"]

    def _scoring(self, python: Path, content: Content, rest: socket.socket) -> list[str]:
        assert content.scoring is not None
        options = {
            "entry-script": content.scoring.entry_script,
            "host": self._host,
            "rest-fd": rest.fileno(),
            "key-file": key_file(self._home, content.endpoint),
            "samples": spool_folder(self._home, content.endpoint, content.deployment),
            "parent-pid": os.getpid(),
            "then-path": os.pathsep.join(map(str, SDK)),
        }
        if content.tls is not None:
            options["tls-file"] = self._certificates.files(content.tls).pem
        words = [f"--{name}={value}" for name, value in options.items()]
        return [str(python), "-P", "-m", "services.serving.scoring_server", *words]


def reachable_at(host: str) -> str:
    """Where others reach what listens on that address."""
    return socket.gethostname() if host == "0.0.0.0" else host


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # old connections to it do no harm
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
