"""Facts and where they go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

JOBS, LEASES, AGENTS = "trainyard.jobs", "trainyard.leases", "trainyard.agents"


@dataclass(frozen=True)
class Fact:
    """What has become true, and the topic and key it is told under."""

    topic: str
    key: str
    message: Message


def about_run(message: Any) -> Fact:
    return Fact(JOBS, message.run_id, message)


def to_agent(agent_id: str, message: Message) -> Fact:
    return Fact(LEASES, agent_id, message)


def about_pool(message: Any) -> Fact:
    return Fact(AGENTS, message.name, message)


def about_agent(message: Any) -> Fact:
    return Fact(AGENTS, message.agent_id, message)


def about_policy(message: Message) -> Fact:
    return Fact(AGENTS, "policy", message)
