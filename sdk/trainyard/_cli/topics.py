"""The broker's topics against deploy/topics.yaml, which the client's package carries along."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_ENTRY = re.compile(r"^  (trainyard\.\w+):\s*\n?\s*\{partitions: (\d+),[^}\n]*retention: (\w+)", re.MULTILINE)
_UNITS = {"h": 3_600_000, "d": 86_400_000}


def wanted() -> dict[str, tuple[int, int]] | None:
    """Topic -> partitions, retention in ms (-1: for ever); None where the file is not at hand."""
    places = (Path(__file__).resolve().parents[1] / "topics.yaml", Path(__file__).resolve().parents[3] / "deploy" / "topics.yaml")
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        return None
    return {
        name: (int(partitions), -1 if retention == "forever" else int(retention[:-1]) * _UNITS[retention[-1]])
        for name, partitions, retention in _ENTRY.findall(found.read_text("utf-8"))
    }


def differences(bootstrap: str) -> list[str] | None:
    """What is not as it should be, in words; None where nobody says how it should be."""
    expected = wanted()
    return None if expected is None else compare(expected, _described(bootstrap))


def compare(expected: dict[str, tuple[int, int]], there: dict[str, tuple[int, dict[str, str]]]) -> list[str]:
    """`there`: topic -> partitions, settings."""
    wrong = []
    for name, (partitions, retention) in expected.items():
        if name not in there:
            wrong.append(f"{name} is missing")
            continue
        has, settings = there[name]
        if has != partitions:
            wrong.append(f"{name} has {has} partitions, not {partitions}")
        for setting, value in (("retention.ms", str(retention)), ("cleanup.policy", "delete")):
            if settings.get(setting, value) != value:
                wrong.append(f"{name}: {setting} is {settings[setting]}, not {value}")
    return wrong


def records(bootstrap: str, topic: str) -> int:
    """How many a topic holds."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False)
    try:
        places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        first, last = consumer.beginning_offsets(places), consumer.end_offsets(places)
        return sum(last[place] - first[place] for place in places)
    finally:
        consumer.close()


def _described(bootstrap: str) -> dict[str, tuple[int, dict[str, str]]]:
    from kafka import KafkaAdminClient, KafkaConsumer
    from kafka.admin import ConfigResource, ConfigResourceType

    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False)
    try:
        partitions = {name: len(consumer.partitions_for_topic(name) or ()) for name in consumer.topics()}
    finally:
        consumer.close()
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in partitions if name.startswith("trainyard.")]
        found: dict[str, Any] = next(iter(admin.describe_configs(resources).values()), {})
    finally:
        admin.close()
    return {
        name: (number, {setting: str(entry["value"]) for setting, entry in found.get(name, {}).items()})
        for name, number in partitions.items()
    }
