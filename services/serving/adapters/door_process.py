"""The door as a child process, and the table that it reads: which endpoint answers where."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from services.serving.adapters.endpoint_keys import key_file
from services.serving.adapters.output_lines import lines
from services.serving.adapters.server_environment import REPO, child_environment
from services.serving.adapters.whole_file import replace_whole
from services.serving.domain.endpoint import Deployment, Endpoint
from services.serving.door import PORT_TAKEN

log = structlog.get_logger()
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
    def __init__(self, table: DoorTable, host: str, grpc_port: int, rest_port: int, control: str) -> None:
        """`control`: host:port of EndpointService; "": nobody wakes endpoints that sleep."""
        self._control = control
        self._table = table
        self._host = host
        self._ports = (grpc_port, rest_port)
        self.is_kept_out = False
        """Somebody else has a port of it: what is told there reaches them."""

    async def run(self) -> None:
        """Until cancelled; one that ends is started again."""
        if not all(self._ports):
            await asyncio.Event().wait()  # a part of a service that returns ends it
        while True:
            process = await self._start()
            try:
                assert process.stdout is not None
                said = ""
                async for line in lines(process.stdout):
                    said = line.rstrip()[:1000]
                    if line.startswith(_READY):
                        self.is_kept_out = False
                    if not (self.is_kept_out or line.startswith(_CANNOT_LISTEN)):
                        log.info("door", said=said)
                code = await process.wait()
            except asyncio.CancelledError:
                await _end(process)
                raise
            if code != PORT_TAKEN:
                log.warning("the door ended and is started again", code=code, in_seconds=_PAUSE_SECONDS)
            elif self.is_kept_out:
                log.debug("the door is shut still", why=said)
            else:
                self.is_kept_out = True
                log.warning("the door is shut: models are not found by name until its ports are free", why=said, what_to_do=_WHAT_TO_DO)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _start(self) -> asyncio.subprocess.Process:
        grpc_port, rest_port = self._ports
        options = {
            "table": self._table.file,
            "grpc-port": grpc_port,
            "rest-port": rest_port,
            "host": self._host,
            "control": self._control,
            "parent-pid": os.getpid(),
        }
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "services.serving.door", *(f"--{name}={value}" for name, value in options.items())),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=child_environment(os.environ) | {"PYTHONPATH": str(REPO)},
            process_group=0,
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_GRACE_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
