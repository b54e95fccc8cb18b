"""What the benchmarks need of a running stack: its addresses, a bare gRPC client, and a run's events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from kafka import KafkaConsumer, TopicPartition

from trainyard._cloudevents import Received, Undecodable, UnknownType, decode
from trainyard.cluster.v1 import cluster_pb2_grpc
from trainyard.job.v1 import job_pb2_grpc

RUN_TOPICS = ("trainyard.jobs", "trainyard.tasks", "trainyard.leases", "trainyard.logs")


class Stack:
    """Handles to the stack whose `config.json` lies in `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config: dict[str, Any] = json.loads((home / "config.json").read_text())["trainyard"]
        channel = grpc.insecure_channel(self.config["services"]["scheduler"])
        self.jobs = job_pb2_grpc.JobServiceStub(channel)
        self.compute = cluster_pb2_grpc.ComputeServiceStub(channel)

    def tail(self, topics: tuple[str, ...] = RUN_TOPICS) -> Tail:
        return Tail(self.config["kafka_bootstrap"], topics)


class Tail:
    """Events of some topics from now on."""

    def __init__(self, bootstrap: str, topics: tuple[str, ...]) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
        parts = [TopicPartition(topic, part) for topic in topics for part in self._consumer.partitions_for_topic(topic) or ()]
        self._consumer.assign(parts)
        self._consumer.seek_to_end(*parts)
        for part in parts:
            self._consumer.position(part)

    def until(self, enough: Callable[[Received], bool], timeout_s: float = 120.0) -> Iterator[Received]:
        """Every event up to and with the first for which `enough` holds. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for records in self._consumer.poll(timeout_ms=200).values():
                for record in records:
                    try:
                        event = decode(record.topic, record.partition, record.offset, record.key, record.value, record.headers)
                    except (Undecodable, UnknownType):
                        continue
                    yield event
                    if enough(event):
                        return
        raise TimeoutError(f"no such event within {timeout_s} s")

    def close(self) -> None:
        self._consumer.close()
