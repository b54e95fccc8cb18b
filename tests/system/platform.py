"""The whole platform as a test sees it: its processes, its log, its clients."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from deploy.local import supervision
from deploy.local.layout import Layout
from deploy.local.stack import is_serving
from tests.component.topic_log import TopicLog
from trainyard import AmlCompute, ComputeTarget, ComputeTargetException, Estimator, Experiment, Run, Workspace
from trainyard._cloudevents import Received
from trainyard.cluster.v1 import cluster_pb2_grpc
from trainyard.job.v1 import job_pb2, job_pb2_grpc, spec_pb2

PATIENCE_SECONDS = 90.0
TERMINAL = ("RunCompleted", "RunFailed", "RunCanceled", "RunRejected")


class Platform:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.workspace = Workspace.from_config(layout.config)
        self.log = TopicLog(layout.kafka_bootstrap)
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{layout.service_port('scheduler')}", options=[("grpc.max_reconnect_backoff_ms", 300)]
        )
        self.jobs = job_pb2_grpc.JobServiceStub(self.channel)
        self.compute = cluster_pb2_grpc.ComputeServiceStub(self.channel)

    # -- processes

    def pid(self, program: str) -> int:
        """0: it does not run now."""
        name = f"agents:{program}" if program.startswith("agent-") else program
        info = supervision.call(self.layout, lambda rpc: rpc.getProcessInfo(name))
        return int(info["pid"]) if info["statename"] in ("RUNNING", "STARTING") else 0

    def kill_and_wait(self, program: str) -> None:
        """kill -9, then until the supervisor's new process says that it is ready."""
        before = self.pid(program)
        assert before, f"{program} does not run"
        os.kill(before, signal.SIGKILL)
        port = self.layout.agent_port(int(program[6:])) if program.startswith("agent-") else self.layout.service_port(program)
        self.until(lambda: self.pid(program) not in (0, before) and is_serving(port), f"{program} is back")

    def lose_the_database_of(self, service: str) -> None:
        """Stopped, its store deleted, and started again until it says that it is ready."""
        supervision.call(self.layout, lambda rpc: rpc.stopProcess(service))
        files = list((self.layout.home / "db").glob(f"{service}.db*"))
        assert files
        for file in files:
            file.unlink()
        supervision.call(self.layout, lambda rpc: rpc.startProcess(service))
        self.until(lambda: is_serving(self.layout.service_port(service)), f"{service} is back")

    def pause(self, program: str) -> int:
        pid = self.pid(program)
        os.kill(pid, signal.SIGSTOP)
        return pid

    @staticmethod
    def go_on(pid: int) -> None:
        os.kill(pid, signal.SIGCONT)

    @staticmethod
    def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """The condition's first true value. Looks again and again: what it waits for happens in other processes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.05)
        raise AssertionError(f"never happened within {seconds:.0f} s: {what}")

    # -- pools and runs

    def pool(self, name: str, max_nodes: int = 1, min_nodes: int = 0, idle_seconds: int = 600) -> ComputeTarget:
        try:
            return ComputeTarget(self.workspace, name)
        except ComputeTargetException:
            wish = AmlCompute.provisioning_configuration(
                vm_size="LOCAL", min_nodes=min_nodes, max_nodes=max_nodes, idle_seconds_before_scaledown=idle_seconds
            )
            return ComputeTarget.create(self.workspace, name, wish)

    def submit(self, folder: Path, script: str, pool: str, experiment: str = "system", **options: Any) -> Run:
        """A script of the test's own, with an environment that has nothing in it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.py").write_text(script)
        estimator = Estimator(str(folder), entry_script="train.py", compute_target=pool, **options)
        return Experiment(self.workspace, experiment).submit(estimator)

    def status(self, run_id: str) -> str:
        run = self.jobs.GetRun(job_pb2.GetRunRequest(run_id=run_id), wait_for_ready=True, timeout=60).run
        return job_pb2.RunStatus.Name(run.status).removeprefix("RUN_STATUS_")

    def until_status(self, run_id: str, *wanted: str) -> str:
        return str(self.until(lambda: (status := self.status(run_id)) in wanted and status, f"{run_id} is {' or '.join(wanted)}"))

    def node_of(self, run_id: str) -> str:
        return str(self.jobs.GetRun(job_pb2.GetRunRequest(run_id=run_id), wait_for_ready=True, timeout=60).run.agent_ids[0])

    def node_logs(self, run: Run) -> list[str]:
        """Names of all that is in azureml-logs when a script of one process has run on one node."""
        node = self.node_of(run.id)
        logs = (f"55_azureml-execution-{node}", f"65_job_prep-{node}", "70_driver_log", f"75_job_post-{node}")
        return [*(f"azureml-logs/{name}.txt" for name in logs), "azureml-logs/process_info.json", "azureml-logs/process_status.json"]

    # -- events

    def events(self, *topics: str) -> Iterator[Received]:
        for topic in topics:
            yield from self.log.events(topic)

    def events_of(self, run_id: str, topic: str = "trainyard.jobs") -> list[Any]:
        """Messages about a run, in the order in which they lie in its partition."""
        found = [event for event in self.log.events(topic) if getattr(event.message, "run_id", "") == run_id]
        return [event.message for event in sorted(found, key=lambda event: (event.partition, event.offset))]

    def close(self) -> None:
        self.log.close()
        self.channel.close()


def names(messages: Sequence[Any]) -> list[str]:
    return [type(message).__name__ for message in messages]


def an_inline_run(
    pool: str, script: bytes, run_id: str = "", experiment: str = "system", arguments: Sequence[str] = (), **files: bytes
) -> Any:
    spec = spec_pb2.RunSpec(compute_target=pool, entry_script="train.py", environment=spec_pb2.EnvironmentSpec(framework="none"))
    contents: Mapping[str, bytes] = {"train.py": script, **files}
    for name, content in contents.items():
        spec.source.inline.files[name] = content
    spec.arguments.extend(spec_pb2.Argument(text=text) for text in arguments)
    return job_pb2.SubmitRun(submission_id=run_id, experiment=experiment, spec=spec)
