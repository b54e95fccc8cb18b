"""deploy/topics.yaml is what the admin job, the services and the docs read: it must hold together."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from services.chassis import dead_letters
from services.chassis.topics import Topic, WrongPartitions, check_partitions, make_topics, topics
from trainyard import _cloudevents

SERVICES = {"dataset", "scheduler", "trainer_agent", "registry", "serving"}
all_topics = pytest.mark.parametrize("topic", topics().values(), ids=lambda topic: topic.name)


@all_topics
def test_a_topic_is_owned_by_a_service_or_by_none(topic: Topic) -> None:
    assert topic.owner in SERVICES | {"none"}


@all_topics
def test_a_topics_packages_exist_and_can_be_decoded(topic: Topic) -> None:
    modules = [f"trainyard.{name}" for name in _cloudevents._MODULES]

    files = [importlib.import_module(module).DESCRIPTOR for module in modules]

    for package in topic.packages:
        assert any(file.package == package and file.message_types_by_name for file in files)


@all_topics
def test_a_topic_has_a_sound_name_key_and_number_of_partitions(topic: Topic) -> None:
    assert re.fullmatch(r"trainyard\.[a-z]+", topic.name)
    assert topic.key
    assert topic.partitions >= 1


@all_topics
def test_retention_is_for_ever_or_a_time(topic: Topic) -> None:
    assert topic.retention_ms == -1 or topic.retention_ms >= 3_600_000


@all_topics
def test_what_a_service_owns_is_kept_for_ever_or_is_ephemeral(topic: Topic) -> None:
    """State is the fold of the log: what is folded must never be gone from it."""
    assert topic.owner == "none" or topic.ephemeral or topic.retention_ms == -1


def test_retention_is_told_in_milliseconds() -> None:
    assert topics()["trainyard.heartbeats"].retention_ms == 3_600_000
    assert topics()["trainyard.metrics"].retention_ms == 7 * 86_400_000
    assert topics()["trainyard.jobs"].retention_ms == -1


def test_partitions_are_fixed_for_ever() -> None:
    """A change moves keys to other partitions and breaks their order: this list only ever grows."""
    fixed = {
        "trainyard.jobs": 8,
        "trainyard.tasks": 8,
        "trainyard.agents": 4,
        "trainyard.leases": 64,
        "trainyard.heartbeats": 1,
        "trainyard.datasets": 4,
        "trainyard.models": 4,
        "trainyard.endpoints": 4,
        "trainyard.metrics": 8,
        "trainyard.logs": 8,
        "trainyard.inference": 8,
        "trainyard.deadletters": 1,
    }

    assert {name: topics()[name].partitions for name in fixed} == fixed


def test_there_is_a_topic_for_dead_letters() -> None:
    assert dead_letters.TOPIC in topics()


def test_partitions_as_told_and_topics_of_others_are_fine() -> None:
    check_partitions({"trainyard.jobs": 8, "a stranger's": 3})


class Admin:
    """Of a broker with these topics; makes none that is there."""

    def __init__(self, **partitions: int) -> None:
        self.partitions = {f"trainyard.{name}": count for name, count in partitions.items()}
        self.made: list[str] = []

    def __call__(self, **_: Any) -> Admin:
        return self

    def describe_topics(self) -> list[dict[str, Any]]:
        return [{"name": name, "partitions": [{}] * count} for name, count in self.partitions.items()]

    def create_topics(self, new: list[Any]) -> None:
        self.made = [topic.name for topic in new]

    def close(self) -> None:
        pass


def test_nothing_is_made_beside_a_topic_with_other_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Admin(leases=1)
    monkeypatch.setattr("kafka.admin.KafkaAdminClient", admin)

    with pytest.raises(WrongPartitions, match=r"trainyard\.leases has 1 partitions, deploy/topics.yaml says 64"):
        make_topics("a broker")

    assert admin.made == []


def test_what_is_missing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Admin(leases=64, jobs=0)
    monkeypatch.setattr("kafka.admin.KafkaAdminClient", admin)

    made = make_topics("a broker")

    assert made == admin.made == [name for name in topics() if name != "trainyard.leases"]
