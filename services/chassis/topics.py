"""The topics, as data: deploy/topics.yaml, read by the admin job, the services, the docs and the tests."""

from __future__ import annotations

from collections.abc import Mapping
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


class WrongPartitions(RuntimeError):
    """A broker's topic has another number of partitions than deploy/topics.yaml: what is sent by it would not reach all it is for."""


@cache
def topics() -> dict[str, Topic]:
    raw: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["topics"]
    return {
        name: Topic(
            name, int(it["partitions"]), it["key"], it["retention"], it["owner"], bool(it.get("ephemeral", False)), tuple(it["packages"])
        )
        for name, it in raw.items()
    }


def check_partitions(counts: Mapping[str, int]) -> None:
    """`counts` are a broker's partitions by topic; topics that are not there, or not known, are none of its business.

    Raises WrongPartitions.
    """
    wrong = [
        f"{name} has {counts[name]} partitions, deploy/topics.yaml says {topic.partitions}"
        for name, topic in topics().items()
        if name in counts and counts[name] != topic.partitions
    ]
    if wrong:
        raise WrongPartitions(
            f"{'; '.join(wrong)}. Keys are spread by that number: use a broker whose topics were made by Trainyard, "
            "or make these anew where nothing in them is needed."
        )


def make_topics(bootstrap: str) -> list[str]:
    """Makes what is missing; returns their names. Never changes a topic that is there: partitions are fixed for ever.

    Raises WrongPartitions, having made none, where one that is there has another number of them.
    """
    from kafka.admin import KafkaAdminClient, NewTopic
    from kafka.errors import TopicAlreadyExistsError

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        # One that is just being made by somebody else has none yet.
        there = {it["name"]: len(it["partitions"]) for it in admin.describe_topics() if it["partitions"]}
        check_partitions(there)
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
