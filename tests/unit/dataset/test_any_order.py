"""Requests, repeats, results, restarts and the outbox in any order: what a dataset's history may look like afterwards."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.chassis import codec
from services.chassis.handler import Command
from services.dataset.domain import Asked
from services.dataset.handlers import TOPIC, DatasetHandler, Probed
from services.dataset.shelf import ANSWER, LATEST, PROBE, VERSION
from tests.unit.on_memory import OnMemory
from trainyard._sources import mounted_path
from trainyard.dataset.v1.dataset_pb2 import Dataset, DatasetRejected, DatasetVersionRegistered, RegisterDataset, SourceFile
from trainyard.event.v1.artifact_pb2 import Failure

NAMES = st.sampled_from(["mnist", "mnist", "flowers", "-bad"])
SUBMISSIONS = st.sampled_from([f"s{number}" for number in range(6)])


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.service = OnMemory("dataset", DatasetHandler, [TOPIC], [ANSWER, LATEST, VERSION, PROBE])
        self.fixed: dict[tuple[str, str], bytes] = {}

    def teardown(self) -> None:
        self.service.close()

    @rule(
        name=NAMES,
        submission=SUBMISSIONS,
        again=st.booleans(),
        urls=st.sampled_from([["http://h/a"], ["http://h/a", "http://h/b"], ["http://h/a/"]]),
    )
    def somebody_asks(self, name: str, submission: str, again: bool, urls: list[str]) -> None:
        request = RegisterDataset(submission_id=submission, name=name, urls=urls, create_new_version=again)
        self.service.publish(TOPIC, name, request)

    @rule(chosen=st.integers(0, 10), works=st.booleans())
    def the_worker_comes_back(self, chosen: int, works: bool) -> None:
        pending = self.service.pending(PROBE)
        if pending:
            self._answer(codec.loads(pending[chosen % len(pending)], Asked), works)

    @rule(submission=SUBMISSIONS)
    def a_result_comes_for_what_is_answered_or_was_never_asked(self, submission: str) -> None:
        if (PROBE, submission) not in self.service.documents():
            self.service.command(Command(Probed(submission, Dataset(files=[SourceFile(url="http://h/a")]), self.service.now()), "no-cause"))

    @rule(crash=st.booleans())
    def the_outbox_leaves(self, crash: bool) -> None:
        self.service.flush(crash=crash)

    @rule()
    def the_service_restarts(self) -> None:
        self.service.restart()

    def _answer(self, asked: Asked, works: bool) -> None:
        files = [SourceFile(url=url, path=mounted_path(url), size_bytes=1, sha256="0" * 64) for url in asked.request.urls]
        found = Dataset(files=files) if works else Failure(code="SourceUnreachable", message="no", target=asked.request.urls[0])
        probed = Probed(asked.request.submission_id, found, self.service.now())
        self.service.command(Command(probed, asked.event_id, asked.correlation_id))

    @invariant()
    def versions_have_no_holes_and_nothing_fixed_ever_changes(self) -> None:
        documents = self.service.documents()
        for (kind, name), content in documents.items():
            if kind == LATEST:
                versions = {key for kind, key in documents if kind == VERSION and key.startswith(f"{name}:")}
                assert versions == {f"{name}:{number}" for number in range(1, int(content) + 1)}
        for key, content in self.fixed.items():
            assert documents[key] == content
        self.fixed = {key: content for key, content in documents.items() if key[0] in (ANSWER, VERSION)}

    @invariant()
    def every_submission_is_pending_or_answered_never_both(self) -> None:
        keys = self.service.documents().keys()

        assert not {key for kind, key in keys if kind == PROBE} & {key for kind, key in keys if kind == ANSWER}

    @rule()
    def a_replay_of_the_whole_log_leads_to_the_same(self) -> None:
        self.service.flush()

        assert self.service.replayed() == self.service.documents()
        facts = {it.event_id: it.message for it in self.service.events(TOPIC)}
        answered = [fact.submission_id for fact in facts.values() if isinstance(fact, (DatasetVersionRegistered, DatasetRejected))]
        assert len(answered) == len(set(answered))


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_any_order_of_events_leads_to_one_version_a_submission = AnyOrder.TestCase
