"""Real agents, and a test that plays their scheduler: it publishes leases and reads reports."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.component.service_process import ServiceProcess
from tests.component.topic_log import TopicLog
from trainyard import _gang
from trainyard._objects import Objects
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

T = TypeVar("T")


class Scheduler:
    """`agents` by id. What it has not been told of an agent's process, it does not know either."""

    def __init__(self, log: TopicLog, objects: Objects, agents: Mapping[str, ServiceProcess]) -> None:
        self.log = log
        self.objects = objects
        self.agents = agents

    # -- what it says

    def offers(self, run_id: str, spec: Any, agent_ids: Sequence[str], epoch: int = 1, **more: Any) -> None:
        everyone = _gang.tasks(spec.distribution)
        for index, agent_id in enumerate(agent_ids):
            ranks = [task.rank for task in everyone if task.node == index]
            offer = cluster.LeaseOffered(
                run_id=run_id,
                epoch=epoch,
                agent_id=agent_id,
                incarnation=self.registered(agent_id).incarnation,
                node_index=index,
                node_count=len(agent_ids),
                ranks=ranks,
                world_size=len(everyone),
                experiment="gangs",
                spec=spec,
                **more,
            )
            self.tells(agent_id, offer)

    def forms(self, run_id: str, agent_ids: Sequence[str], epoch: int = 1, patience: float = 60.0) -> Any:
        """The gang, once all are prepared."""
        prepared = {it.agent_id: it for it in self.reports(run_id, cluster.TaskPrepared, len(agent_ids), epoch=epoch, patience=patience)}
        offers = {
            it.agent_id: it for it in self._events("trainyard.leases", cluster.LeaseOffered) if (it.run_id, it.epoch) == (run_id, epoch)
        }
        formed = job.GangFormed(run_id=run_id, epoch=epoch, round=1)
        for agent_id in agent_ids:
            it = prepared[agent_id]
            formed.members.add(
                agent_id=agent_id, incarnation=it.incarnation, address=it.address, ports=it.ports, ranks=offers[agent_id].ranks
            )
        for agent_id in agent_ids:
            self.tells(agent_id, formed)
        return formed

    def revokes(self, run_id: str, agent_id: str, epoch: int = 1, *, save_outputs: bool) -> None:
        self.tells(agent_id, cluster.LeaseRevoked(run_id=run_id, epoch=epoch, agent_id=agent_id, why="a test", save_outputs=save_outputs))

    def tells(self, agent_id: str, message: Any) -> None:
        self.log.publish("trainyard.leases", agent_id, message)

    # -- what it hears

    def registered(self, agent_id: str) -> Any:
        return [it for it in self._events("trainyard.agents", cluster.AgentRegistered) if it.agent_id == agent_id][-1]

    def reports(
        self,
        run_id: str,
        kind: type[T],
        count: int = 1,
        *,
        epoch: int = 1,
        patience: float = 60.0,
        where: Callable[[Any], bool] = lambda _: True,
    ) -> list[T]:
        """Waits until there are so many. An attempt that could not be prepared is told as such."""

        def there() -> list[T] | None:
            failed = [it for it in self.heard(run_id, cluster.TaskFailed, epoch) if kind is not cluster.TaskFailed]
            assert not failed, failed
            found = [it for it in self.heard(run_id, kind, epoch) if where(it)]
            return found if len(found) >= count else None

        return self.until(there, f"{count} {kind.__name__} of {run_id}", patience)

    def heard(self, run_id: str, kind: type[T], epoch: int = 1) -> list[T]:
        return [it for it in self._events("trainyard.tasks", kind) if (it.run_id, it.epoch) == (run_id, epoch)]  # type: ignore[attr-defined]

    def until(self, condition: Callable[[], T | None], what: str, patience: float = 60.0) -> T:
        """Looks again and again: what it waits for happens in other processes."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if (found := condition()) is not None:
                return found
            time.sleep(0.05)
        logs = "\n".join(f"{name}: {agent.log()[-2000:]}" for name, agent in self.agents.items())
        raise AssertionError(f"{what} did not come in {patience:g} s\n{logs}")

    def outputs(self, report: Any) -> dict[str, str]:
        """Path -> content of what an OutputsUploaded names."""
        return {file.path: self.objects.get_bytes(file.object_key).decode() for file in report.outputs.files}

    def _events(self, topic: str, kind: type[T]) -> list[T]:
        return [it.message for it in self.log.events(topic) if isinstance(it.message, kind)]


@contextmanager
def agents_on(
    addresses: Mapping[str, str], home: Path, kafka_bootstrap: str, minio: tuple[str, str, str], bucket: str, **settings: str
) -> Iterator[dict[str, ServiceProcess]]:
    """Agent ids -> processes; each has a home and an address of its own."""
    endpoint, access_key, secret_key = minio
    store = {"ENDPOINT": endpoint, "ACCESS_KEY": access_key, "SECRET_KEY": secret_key, "BUCKET": bucket}
    given = {f"OBJECT_STORE__{name}": value for name, value in store.items()} | settings
    with ExitStack() as ends:
        found = {}
        for agent_id, address in addresses.items():
            (folder := home / agent_id).mkdir()
            process = ServiceProcess("trainer_agent", folder, kafka_bootstrap, AGENT__ID=agent_id, AGENT__ADDRESS=address, **given)
            ends.callback(process.close)
            found[agent_id] = process.start()
        yield found


def pause(agent: ServiceProcess) -> None:
    assert agent._process is not None
    os.kill(agent._process.pid, signal.SIGSTOP)


def go_on(agent: ServiceProcess) -> None:
    assert agent._process is not None
    os.kill(agent._process.pid, signal.SIGCONT)


def has_ended(agent: ServiceProcess) -> bool:
    assert agent._process is not None
    return agent._process.poll() is not None
