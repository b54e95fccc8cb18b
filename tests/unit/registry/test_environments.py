"""Named environments: what a request leads to, on the real engine over a log in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.registry.environment_handlers import TOPIC
from services.registry.environment_shelf import ANSWER, LATEST, VERSION, EnvironmentShelf
from services.registry.handlers import RegistryHandler
from tests.unit.on_memory import OnMemory
from trainyard.environment.v1.environment_pb2 import EnvironmentRejected, EnvironmentVersionRegistered, RegisterEnvironment
from trainyard.event.v1.dead_letter_pb2 import DeadLetter
from trainyard.job.v1.spec_pb2 import EnvironmentSpec

KINDS = [ANSWER, LATEST, VERSION]
FACTS = (EnvironmentVersionRegistered, EnvironmentRejected)


def a_service() -> OnMemory:
    return OnMemory("registry", RegistryHandler, [TOPIC], KINDS)


def a_request(
    submission_id: str = "s1", name: str = "mnist-env", packages: tuple[str, ...] = ("six",), **fields: Any
) -> RegisterEnvironment:
    definition = EnvironmentSpec(**{"framework": "none", "pip_packages": packages, **fields})
    return RegisterEnvironment(submission_id=submission_id, name=name, definition=definition)


@pytest.fixture
def service() -> Iterator[OnMemory]:
    made = a_service()
    yield made
    made.close()


def ask(service: OnMemory, request: RegisterEnvironment) -> Any:
    """The fact that answers it, or None."""
    before = len(service.events(TOPIC))
    service.publish(TOPIC, request.name, request)
    service.flush()
    told = [event.message for event in service.events(TOPIC)[before:] if isinstance(event.message, FACTS)]
    return told[0] if told else None


def test_a_definition_becomes_a_version_that_carries_its_name(service: OnMemory) -> None:
    fact = ask(service, a_request(environment_variables={"A": "1"}))

    assert (fact.name, fact.version, fact.submission_id) == ("mnist-env", 1, "s1")
    assert (fact.definition.name, fact.definition.version) == ("mnist-env", 1)
    assert dict(fact.definition.environment_variables) == {"A": "1"}
    assert fact.HasField("registered_at")


def test_the_latest_definition_again_makes_no_new_version_and_is_answered_with_it(service: OnMemory) -> None:
    first = ask(service, a_request("s1"))
    named = a_request("s2")
    named.definition.name, named.definition.version = "something", 9

    again = ask(service, named)
    changed = ask(service, a_request("s3", packages=("six", "rich")))
    back = ask(service, a_request("s4"))

    assert [it.version for it in (first, again, changed, back)] == [1, 1, 2, 3]
    assert again.registered_at == first.registered_at
    with service.store.reading() as documents:
        assert [it.version for it in EnvironmentShelf(documents).versions("mnist-env")] == [3, 2, 1]


def test_a_submission_that_comes_again_is_answered_once(service: OnMemory) -> None:
    ask(service, a_request("s1"))

    assert ask(service, a_request("s1", packages=("other",))) is None
    with service.store.reading() as documents:
        assert EnvironmentShelf(documents).latest("mnist-env") == 1


@pytest.mark.parametrize(
    ("request_", "target"),
    [
        (a_request(name="AzureML-Mine"), "name"),
        (a_request(name="azureml-mine"), "name"),
        (a_request(name="-x"), "name"),
        (a_request(name="a/b"), "name"),
        (a_request(framework="torch"), "framework"),
        (a_request(packages=("p",) * 501), "pip_packages"),
        (a_request(conda_specification="x" * 70_000), "conda_specification"),
        (a_request(environment_variables={"A B": "1"}), "A B"),
    ],
)
def test_what_is_wrong_with_a_definition_is_named(service: OnMemory, request_: RegisterEnvironment, target: str) -> None:
    fact = ask(service, request_)

    assert isinstance(fact, EnvironmentRejected)
    assert (fact.failure.code, fact.failure.target) == ("UserError", target)
    with service.store.reading() as documents:
        assert EnvironmentShelf(documents).names() == []


@pytest.mark.parametrize(("key", "request_"), [("e", a_request("", "e")), ("n" * 300, a_request("s", "n" * 300)), ("other", a_request())])
def test_what_nobody_could_answer_is_a_dead_letter(service: OnMemory, key: str, request_: RegisterEnvironment) -> None:
    service.publish(TOPIC, key, request_)
    service.flush()

    assert [type(event.message) for event in service.events("trainyard.deadletters")] == [DeadLetter]
    assert service.documents() == service.replayed() == {}


class AnyOrder(RuleBasedStateMachine):
    """Requests, repeats, crashes and restarts in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.service = a_service()
        self.fixed: dict[tuple[str, str], bytes] = {}

    def teardown(self) -> None:
        self.service.close()

    @rule(
        submission=st.sampled_from([f"s{number}" for number in range(6)]),
        name=st.sampled_from(["a", "a", "b", "-bad"]),
        packages=st.sampled_from([("six",), ("rich",)]),
    )
    def somebody_asks(self, submission: str, name: str, packages: tuple[str, ...]) -> None:
        self.service.publish(TOPIC, name, a_request(submission, name, packages))

    @rule(crash=st.booleans())
    def the_outbox_leaves(self, crash: bool) -> None:
        self.service.flush(crash=crash)

    @rule()
    def the_service_restarts(self) -> None:
        self.service.restart()

    @invariant()
    def versions_have_no_holes_and_nothing_ever_changes(self) -> None:
        documents = self.service.documents()
        for (kind, name), content in documents.items():
            if kind == LATEST:
                versions = {key for kind, key in documents if kind == VERSION and key.startswith(f"{name}:")}
                assert versions == {f"{name}:{number}" for number in range(1, int(content) + 1)}
        for key, content in self.fixed.items():
            assert documents[key] == content
        self.fixed = {key: content for key, content in documents.items() if key[0] != LATEST}

    @rule()
    def a_replay_of_the_whole_log_leads_to_the_same(self) -> None:
        self.service.flush()

        assert self.service.replayed() == self.service.documents()
        facts = {it.event_id: it.message for it in self.service.events(TOPIC)}
        answered = [fact.submission_id for fact in facts.values() if isinstance(fact, FACTS)]
        assert len(answered) == len(set(answered))


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_any_order_of_events_leads_to_one_answer_a_submission = AnyOrder.TestCase
