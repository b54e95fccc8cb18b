"""The door as a child process, and the table that it reads: which endpoint answers where."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from services.serving.adapters.endpoint_keys import key_file
from services.serving.adapters.home_keeper import Keeper
from services.serving.adapters.kept import Kept
from services.serving.adapters.output_lines import lines
from services.serving.adapters.server_environment import REPO, child_environment
from services.serving.adapters.whole_file import replace_whole
from services.serving.domain.endpoint import Deployment, Endpoint
from services.serving.door import PORT_TAKEN

log = structlog.get_logger()
_KEY = "door"
_PAUSE_SECONDS = 2.0
_READY, _CANNOT_LISTEN = '{"ready": true', "cannot listen: "
_WHAT_TO_DO = "stop what listens there, or set serving.door_grpc_port and serving.door_rest_port; endpoints answer at their own ports"
_GRACE_SECONDS = 6.0


class DoorTable:
    """`<home>/door.json`, written where it would change. Replaced whole: the door reads the old or the new one."""

    def __init__(self, home: Path, host: str = "127.0.0.1") -> None:
        """`host`: where the door finds the servers, whatever name their callers use."""
        self._host = host
        self._home = home
        self.file = home / "door.json"
        self._kept = ""

    def keep(self, endpoints: Sequence[Endpoint]) -> None:
        text = json.dumps(
            {it.name: self._row(it, it.serving) for it in endpoints if it.serving is not None and it.scoring_uri}, sort_keys=True
        )
        if text == self._kept and self.file.exists():
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(self.file, text)
        self._kept = text

    def _row(self, endpoint: Endpoint, serving: Deployment) -> dict[str, Any]:
        row: dict[str, Any] = {
            "model": serving.model,
            "has_code": serving.scoring is not None,
            "main": _backend(serving, endpoint.grpc_address, endpoint.scoring_uri, self._host),
            "unlisted": endpoint.settings.unlisted,
            "asleep": not endpoint.up,  # woken, or being brought back: callers wait for it
            "keys": str(key_file(self._home, endpoint.name)),
        }
        second = endpoint.second
        if second is not None and second.up:
            split = second.split
            row["beside"] = _backend(second.deployment, second.grpc_address, second.scoring_uri, self._host)
            row |= {"percent": split.percent, "sticky_by": split.sticky_by, "shadow": split.shadow}
        return row


def _backend(deployment: Deployment, grpc_address: str, scoring_uri: str, host: str) -> dict[str, Any]:
    rest, tls = urlsplit(scoring_uri), deployment.tls
    if tls is None:
        return {"deployment": deployment.number, "version": deployment.version, "grpc": grpc_address, "rest": rest.netloc}
    grpc = f"{host}:{grpc_address.rpartition(':')[2]}" if grpc_address else ""
    told = {"certificate": tls.certificate_pem, "cname": tls.cname}
    return {"deployment": deployment.number, "version": deployment.version, "grpc": grpc, "rest": f"{host}:{rest.port}", **told}


class DoorProcess:
    def __init__(self, keeper: Keeper, table: DoorTable, host: str, grpc_port: int, rest_port: int, control: str) -> None:
        """`control`: host:port of EndpointService; "": nobody wakes endpoints that sleep."""
        self._keeper = keeper
        self._said = ""  # the last line that it wrote
        self._control = control
        self._table = table
        self._host = host
        self._ports = (grpc_port, rest_port)
        self.is_kept_out = False
        """Somebody else has a port of it: what is told there reaches them."""

    async def run(self) -> None:
        """Until cancelled; one that ends is started again."""
        left = await self._left()
        if not all(self._ports):
            await asyncio.Event().wait()  # a part of a service that returns ends it
        while True:
            try:
                process = left or await self._start()
            except OSError as error:
                log.warning("the door cannot be started", why=str(error), in_seconds=_PAUSE_SECONDS)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            left = None
            code = await self._listen(process)
            if code != PORT_TAKEN:
                log.warning("the door ended and is started again", code=code, in_seconds=_PAUSE_SECONDS)
            elif self.is_kept_out:
                log.debug("the door is shut still", why=self._said)
            else:
                self.is_kept_out = True
                log.warning(
                    "the door is shut: models are not found by name until its ports are free", why=self._said, what_to_do=_WHAT_TO_DO
                )
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _left(self) -> Kept | None:
        """The door that the service before this one left behind; one that is another by now is ended."""
        found = None
        for kept in await self._keeper.found(_KEY):
            if found is None and all(self._ports) and kept.returncode is None and kept.digest == self._digest():
                found = kept
            else:
                await kept.end(_GRACE_SECONDS)
        return found

    async def _start(self) -> Kept:
        """Raises OSError."""
        return await self._keeper.start(
            _KEY, self._digest(), self._words(), cwd=self._table.file.parent, env=child_environment(os.environ) | {"PYTHONPATH": str(REPO)}
        )

    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(self._words()).encode()).hexdigest()

    def _words(self) -> list[str]:
        grpc_port, rest_port = self._ports
        options = {
            "table": self._table.file,
            "grpc-port": grpc_port,
            "rest-port": rest_port,
            "host": self._host,
            "control": self._control,
        }
        return [sys.executable, "-P", "-m", "services.serving.door", *(f"--{name}={value}" for name, value in options.items())]

    async def _listen(self, process: Kept) -> int:
        """Until it ends. Cancelled: it is drained first."""
        hearing = [asyncio.create_task(self._hear(it)) for it in (process.stdout, process.stderr)]
        try:
            code = await process.wait()
            await asyncio.wait(hearing, timeout=_PAUSE_SECONDS)
            return code
        except asyncio.CancelledError:
            await process.end(_GRACE_SECONDS)
            raise
        finally:
            for task in hearing:
                task.cancel()

    async def _hear(self, stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            self._said = line.rstrip()[:1000]
            if line.startswith(_READY):
                self.is_kept_out = False
            if not (self.is_kept_out or line.startswith(_CANNOT_LISTEN)):
                log.info("door", said=self._said)
