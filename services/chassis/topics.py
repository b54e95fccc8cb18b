"""The topics, as data: deploy/topics.yaml, read by the admin job, the services, the docs and the tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).resolve().parents[2] / "deploy" / "topics.yaml"
# One message at the most; larger things go through the object store.
MAX_MESSAGE_BYTES = 1 << 20
_UNITS = {"h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True)
class Topic:
    name: str
    partitions: int
    key: str
    retention: str
    owner: str
    ephemeral: bool
    packages: tuple[str, ...]

    @property
    def retention_ms(self) -> int:
        """-1: kept for ever."""
        return -1 if self.retention == "forever" else int(self.retention[:-1]) * _UNITS[self.retention[-1]]


@cache
def topics() -> dict[str, Topic]:
    raw: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["topics"]
    return {
        name: Topic(
            name, int(it["partitions"]), it["key"], it["retention"], it["owner"], bool(it.get("ephemeral", False)), tuple(it["packages"])
        )
        for name, it in raw.items()
    }


def make_topics(bootstrap: str) -> list[str]:
    """Makes what is missing; returns their names. Never changes a topic that is there: partitions are fixed for ever."""
    from kafka.admin import KafkaAdminClient, NewTopic
    from kafka.errors import TopicAlreadyExistsError

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        there = set(admin.list_topics())
        missing = [topic for topic in topics().values() if topic.name not in there]
        made = [
            NewTopic(
                name=topic.name,
                num_partitions=topic.partitions,
                replication_factor=1,
                topic_configs={
                    "retention.ms": str(topic.retention_ms),
                    "retention.bytes": "-1",
                    "cleanup.policy": "delete",
                    # The broker's clock orders a replay over several topics.
                    "message.timestamp.type": "LogAppendTime",
                    "max.message.bytes": str(MAX_MESSAGE_BYTES + 65536),
                },
            )
            for topic in missing
        ]
        if made:
            try:
                admin.create_topics(made)
            except TopicAlreadyExistsError:
                pass
        return [topic.name for topic in missing]
    finally:
        admin.close()
