"""Sentences for tests of the scheduler's domain: a state that events are told to, and builders of what is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from services.scheduler.domain import Fact, Run, State, Tick, Unheld, World, decide, evolve, fold
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Failure
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1 import spec_pb2 as spec

START = datetime(2026, 1, 1, tzinfo=UTC)


def a_spec(target: str = "pool", **options: Any) -> Any:
    made = spec.RunSpec(compute_target=target, entry_script="train.py", environment=spec.EnvironmentSpec(framework="none"), **options)
    made.source.inline.files["train.py"] = b"print()"
    return made


def a_submission(run_id: str = "run", **options: Any) -> Any:
    return job.SubmitRun(submission_id=run_id, experiment=options.pop("experiment", "exp"), spec=a_spec(**options))


def a_pool(name: str = "pool", max_nodes: int = 2, min_nodes: int = 0, idle_seconds: int = 120, **options: Any) -> Any:
    made = cluster.CreatePool(
        submission_id=f"make-{name}", name=name, vm_size="STANDARD_D1", max_nodes=max_nodes, min_nodes=min_nodes, **options
    )
    made.idle_before_scaledown.FromSeconds(idle_seconds)
    return made


class Story:
    """What has happened so far. `tell` takes an input and returns the messages that followed."""

    def __init__(self, **world: Any) -> None:
        self.state = State()
        self.world = World(now=START, **world)
        self.facts: list[Fact] = []

    def tell(self, *messages: Message | Tick | Unheld) -> list[Any]:
        told: list[Fact] = []
        for message in messages:
            facts = decide(self.state, message, self.world)
            if isinstance(message, Message):
                self.state = evolve(self.state, message, self.world.now, cause=f"cause-{len(self.facts)}")
            self.state = fold(self.state, facts, self.world.now, cause=f"cause-{len(self.facts)}")
            self.facts += facts
            told += facts
        return [fact.message for fact in told]

    def later(self, seconds: float) -> Story:
        self.world = replace(self.world, now=self.world.now + timedelta(seconds=seconds))
        return self

    def run(self, run_id: str = "run") -> Run:
        return self.state.runs[run_id]

    def said(self, kind: type[Message]) -> list[Any]:
        return [fact.message for fact in self.facts if isinstance(fact.message, kind)]

    # -- scenes

    def with_pool(self, **options: Any) -> Story:
        self.tell(a_pool(**options))
        return self

    def with_agent(self, agent_id: str = "agent-0", incarnation: str = "first") -> Story:
        self.tell(cluster.AgentRegistered(agent_id=agent_id, incarnation=incarnation, address="127.0.0.1"))
        return self

    def with_run_offered(self) -> Story:
        """One pool with one node, and the run offered to it."""
        self.with_pool()
        self.tell(a_submission())
        return self.with_agent()

    def with_run_prepared(self) -> Story:
        self.with_run_offered()
        self.report(cluster.LeaseAccepted())
        self.report(cluster.TaskPrepared(address="127.0.0.1"))
        return self

    def with_run_running(self) -> Story:
        self.with_run_prepared()
        self.report(cluster.TaskStarted())
        return self

    def with_run_finalizing(self, exit_code: int = 0) -> Story:
        self.with_run_running()
        self.report(cluster.TaskExited(exit_code=exit_code, last_lines=["Traceback", "ValueError: boom"] if exit_code else []))
        return self

    def with_run_completed(self) -> Story:
        self.with_run_finalizing()
        self.report(some_outputs())
        return self

    def report(
        self, message: Any, epoch: int | None = None, agent_id: str = "agent-0", incarnation: str = "first", run_id: str = "run"
    ) -> list[Any]:
        message.run_id, message.agent_id, message.incarnation = run_id, agent_id, incarnation
        message.epoch = self.run(run_id).epoch if epoch is None else epoch
        return self.tell(message)


def some_outputs(*paths: str) -> Any:
    files = [Artifact(path=path, size_bytes=1, sha256="0" * 64, object_key=f"runs/run/1/{path}") for path in paths or ("outputs/a",)]
    return cluster.OutputsUploaded(outputs=ArtifactSet(files=files))


def names(messages: list[Any]) -> list[str]:
    return [type(message).__name__ for message in messages]


def a_failure(code: str = "EnvironmentBuildFailed") -> Any:
    return Failure(code=code, message="no such package", target="nope")
