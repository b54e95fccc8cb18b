"""Starts model servers and scoring scripts, each in its environment, with a socket that listens already."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any

from services.serving.adapters.endpoint_certificates import EndpointCertificates
from services.serving.adapters.endpoint_keys import key_file
from services.serving.adapters.home_keeper import Keeper
from services.serving.adapters.kept import Kept
from services.serving.adapters.model_files import digest_of
from services.serving.adapters.sample_spools import spool_folder
from services.serving.adapters.server_environment import SDK, child_environment, code_variables, limits_as_variables
from services.serving.adapters.server_process import ModelServer
from services.serving.model_server.options import BATCHING_FILE
from services.serving.ports import Content, Fetched, Ports, Say

_GRACE_SECONDS = 20.0  # as caretakers give: a server hands its callers over first


class ModelServers:
    def __init__(self, keeper: Keeper, host: str, home: Path, load_seconds: float, memory_budget: int = 0) -> None:
        """`load_seconds`: from the start of a process to its first answer. `memory_budget`: bytes that all servers may take together, so no
        single one more; 0: no bound."""
        self._keeper = keeper
        self._host = host
        self._home = home
        self._load_seconds = load_seconds
        self._certificates = EndpointCertificates(home)
        self._memory_budget = memory_budget

    def is_free(self, ports: Ports) -> bool:
        return all(_is_free(self._host, port) for port in (ports.grpc, ports.rest) if port)

    async def start(self, python: Path, content: Content, fetched: Fetched, ports: Ports, say: Say) -> ModelServer:
        server = await self._process(python, content, fetched, ports, say)
        try:
            await server.until_ready(self._load_seconds)
        except BaseException:
            await server.stop(0)
            raise
        server.keep_for_the_next(fetched.digest)
        return server

    async def adopt(self, content: Content, say: Say) -> tuple[ModelServer, str] | None:
        """The server of that deployment that the service before this one left behind, and the digest of its files; None where there is none
        that answers, or it was started with something else: that one is ended first."""
        found: tuple[ModelServer, str] | None = None
        digest = self._digest(content)
        for kept in await self._keeper.found(_key(content.endpoint, content.deployment)):
            server = self._server(kept, content, say)
            told = server.left_by_the_one_before()
            if told is not None and found is None and kept.digest == digest and kept.returncode is None:
                found = server, told
            else:
                await server.stop(_GRACE_SECONDS)
        if found is not None:
            self._bind(found[0], content)
        return found

    async def end_all_but(self, wanted: Collection[tuple[str, int]]) -> None:
        """What the service before this one left behind, and nobody wants."""
        keys = {_key(*it) for it in wanted}
        unwanted = [it for it in await self._keeper.found_keys() if it.startswith(_SERVER) and it not in keys]
        left = [kept for key in unwanted for kept in await self._keeper.found(key)]
        await asyncio.gather(*(it.end(_GRACE_SECONDS) for it in left))

    async def leave(self) -> None:
        await self._keeper.leave()

    def _server(self, kept: Kept, content: Content, say: Say) -> ModelServer:
        return ModelServer(kept, content, say, "127.0.0.1" if self._host == "0.0.0.0" else self._host, kept.port)

    def _bind(self, server: ModelServer, content: Content) -> None:
        server.bound(content.limits.memory_bytes, self._memory_budget)

    async def _process(self, python: Path, content: Content, fetched: Fetched, ports: Ports, say: Say) -> ModelServer:
        has_code = content.scoring is not None
        kept = await self._keeper.start(
            _key(content.endpoint, content.deployment),
            self._digest(content),
            self._scoring(python, content) if has_code else self._serving(python, content, fetched, ports.grpc),
            cwd=fetched.path if has_code else self._home,
            env=child_environment(os.environ) | limits_as_variables(content.limits) | code_variables(content, fetched),
            listen=(self._host, ports.rest, content.endpoint),
        )
        server = self._server(kept, content, say)
        self._bind(server, content)
        return server

    def _digest(self, content: Content) -> str:
        """Of all that a server is started with, but for what may lie elsewhere the next time, and for keys."""
        parts: list[Any] = [self._host, str(self._home), content.title]
        parts += [[it.id, digest_of(list(it.files.files))] for it in content.models]
        messages = (content.scoring, content.limits, content.tls)
        parts += [it.SerializeToString(deterministic=True).hex() if it is not None else None for it in messages]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _serving(self, python: Path, content: Content, fetched: Fetched, grpc: int) -> list[str]:
        (version,) = content.models
        options = {
            "model-name": version.model,
            "model-path": fetched.path,
            "version": version.version,
            "host": self._host,
            "grpc-port": grpc,
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

    def _scoring(self, python: Path, content: Content) -> list[str]:
        assert content.scoring is not None
        options = {
            "entry-script": content.scoring.entry_script,
            "host": self._host,
            "key-file": key_file(self._home, content.endpoint),
            "samples": spool_folder(self._home, content.endpoint, content.deployment),
            "then-path": os.pathsep.join(map(str, SDK)),
        }
        if content.tls is not None:
            options["tls-file"] = self._certificates.files(content.tls).pem
        words = [f"--{name}={value}" for name, value in options.items()]
        return [str(python), "-P", "-m", "services.serving.scoring_server", *words]


_SERVER = "server "


def _key(endpoint: str, deployment: int) -> str:
    return f"{_SERVER}{endpoint} {deployment}"


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
