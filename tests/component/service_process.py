"""One service as a process of its own, with its state in a folder: started, killed, started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import grpc
import sqlalchemy as sa
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.serving.keeper import address as keeper_address
from tests.conftest import free_port

REPO = Path(__file__).resolve().parents[2]
_READY_SECONDS = 60.0
_WATCH_SECONDS = 5.0  # of one watch; between two, the process is asked whether it still lives


class ServiceProcess:
    """`settings` are names and values without the prefix TRAINYARD_. The port stays the same over restarts."""

    def __init__(self, name: str, home: Path, kafka_bootstrap: str, **settings: str) -> None:
        self.name = name
        self.home = home
        self.channel = grpc.insecure_channel(f"127.0.0.1:{(port := free_port())}", options=[("grpc.max_reconnect_backoff_ms", 200)])
        named = {"KAFKA_BOOTSTRAP": kafka_bootstrap, "HOME": str(home), "PORT": str(port), **settings}
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TRAINYARD_")},
            **{f"TRAINYARD_{key}": value for key, value in named.items()},
            "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "sdk")]),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def start(self) -> ServiceProcess:
        """Returns when the service says of itself that it is ready. Raises with the end of its log where it never does."""
        self._log = (self.home / f"{self.name}.log").open("ab")
        command = [sys.executable, "-m", f"services.{self.name}"]
        self._process = subprocess.Popen(command, cwd=self.home, env=self._environment, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._says_ready():
                return self
        ended = "ended" if self._process.poll() is not None else "is not ready"
        raise RuntimeError(f"{self.name} {ended}: {self.log()[-3000:]}")

    @contextmanager
    def without(self, kafka_bootstrap: str) -> Iterator[subprocess.Popen[bytes]]:
        """Another one in its place, whose Kafka is away: never ready."""
        environment = {**self._environment, "TRAINYARD_KAFKA_BOOTSTRAP": kafka_bootstrap}
        command = [sys.executable, "-m", f"services.{self.name}"]
        with (self.home / f"{self.name}.log").open("ab") as output:
            process = subprocess.Popen(command, cwd=self.home, env=environment, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _says_ready(self) -> bool:
        """False where the watch broke off: after a kill, the first call may still go out on the dead process's connection."""
        watch = health_pb2_grpc.HealthStub(self.channel).Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=_WATCH_SECONDS)
        try:
            return any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in watch)
        except grpc.RpcError:
            return False
        finally:
            watch.cancel()

    def kill(self) -> None:
        """As a power cut does: no handler runs."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As the supervisor does. Returns the exit code."""
        return self._end(signal.SIGTERM)

    def forget(self) -> None:
        """Its database is lost; the log is not."""
        for path in (self.home / "db").glob(f"{self.name}.db*"):
            path.unlink()

    def documents(self) -> dict[tuple[str, str], bytes]:
        """All that it knows."""
        engine = sa.create_engine(f"sqlite:///{self.home / 'db' / f'{self.name}.db'}")
        try:
            with engine.connect() as connection:
                return {
                    (row.kind, row.key): bytes(row.content)
                    for row in connection.execute(sa.text("SELECT kind, key, content FROM documents"))
                }
        finally:
            engine.dispose()

    def log(self) -> str:
        return (self.home / f"{self.name}.log").read_text(errors="replace")

    def close(self) -> None:
        self.kill()
        keeper_address.end(self.home)  # what outlives the serving service
        self.channel.close()

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(30)
        self._process = None
        if self._log is not None:
            self._log.close()
        return code


@contextmanager
def running(name: str, home: Path, kafka_bootstrap: str, **settings: str) -> Iterator[ServiceProcess]:
    process = ServiceProcess(name, home, kafka_bootstrap, **settings)
    try:
        yield process.start()
    finally:
        process.close()
