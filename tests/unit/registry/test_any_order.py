"""Requests, repeats, runs' events, restarts and the outbox in any order: what a model's history may look like afterwards."""

from __future__ import annotations

from google.protobuf.message import Message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.chassis import codec
from services.chassis.handler import Command
from services.registry.domain.registration import Asked
from services.registry.domain.runs import Run
from services.registry.handlers import JOBS, TOPIC, Checked, RegistryHandler
from services.registry.shelf import ANSWER, LATEST, REGISTER, RUN, VERSION
from tests.unit.on_memory import OnMemory
from tests.unit.registry import builders
from tests.unit.registry.builders import a_request, canceled, completed, queued
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.job.v1 import job_pb2 as job
from trainyard.model.v1.model_pb2 import ModelVersionRegistered, ModelVersionRejected

MODELS = st.sampled_from(["mnist", "mnist", "flowers", "-bad"])
SUBMISSIONS = st.sampled_from([f"s{number}" for number in range(6)])
PATHS = st.sampled_from(["outputs/model", "outputs/model", "outputs/other", "/etc"])
EPOCHS = st.integers(1, 3)


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.service = OnMemory("registry", RegistryHandler, [TOPIC, JOBS], [ANSWER, LATEST, REGISTER, RUN, VERSION])
        self.fixed: dict[tuple[str, str], bytes] = {}

    def teardown(self) -> None:
        self.service.close()

    @rule(model=MODELS, submission=SUBMISSIONS, path=PATHS)
    def somebody_asks(self, model: str, submission: str, path: str) -> None:
        self.service.publish(TOPIC, model, a_request(submission, model, path))

    @rule(
        event=st.one_of(
            st.just(queued()),
            st.builds(lambda epoch: job.RunStarted(run_id=builders.RUN, epoch=epoch), EPOCHS),
            st.builds(lambda epoch: job.RunRequeued(run_id=builders.RUN, lost_epoch=epoch), EPOCHS),
            st.builds(lambda epoch: completed("outputs/model/a", epoch=epoch), EPOCHS),
            st.builds(lambda epoch: canceled("outputs/model/b", epoch=epoch), EPOCHS),
        )
    )
    def the_run_goes_on(self, event: Message) -> None:
        self.service.publish(JOBS, builders.RUN, event)

    @rule(chosen=st.integers(0, 10), complete=st.booleans())
    def the_worker_comes_back(self, chosen: int, complete: bool) -> None:
        pending = self.service.pending(REGISTER)
        if pending:
            asked = codec.loads(pending[chosen % len(pending)], Asked)
            missing = None if complete else Failure(code="ArtifactMissing", message="gone")
            checked = Checked(asked.request.submission_id, self._run(), missing, self.service.now())
            self.service.command(Command(checked, asked.event_id, asked.correlation_id))

    @rule(submission=SUBMISSIONS)
    def a_result_comes_for_what_is_answered_or_was_never_asked(self, submission: str) -> None:
        if (REGISTER, submission) not in self.service.documents():
            self.service.command(Command(Checked(submission, self._run(), None, self.service.now()), "no-cause"))

    @rule(crash=st.booleans())
    def the_outbox_leaves(self, crash: bool) -> None:
        self.service.flush(crash=crash)

    @rule()
    def the_service_restarts(self) -> None:
        self.service.restart()

    def _run(self) -> Run | None:
        content = self.service.documents().get((RUN, builders.RUN))
        return None if content is None else codec.loads(content, Run)

    @invariant()
    def versions_have_no_holes_and_nothing_fixed_ever_changes(self) -> None:
        documents = self.service.documents()
        for (kind, model), content in documents.items():
            if kind == LATEST:
                versions = {key for kind, key in documents if kind == VERSION and key.startswith(f"{model}:")}
                assert versions == {f"{model}:{number}" for number in range(1, int(content) + 1)}
        for key, content in self.fixed.items():
            assert documents[key] == content
        run = self._run()
        fixed = {ANSWER, VERSION} | ({RUN} if run is not None and run.has_ended else set())
        self.fixed = {key: content for key, content in documents.items() if key[0] in fixed}

    @invariant()
    def every_submission_is_pending_or_answered_never_both(self) -> None:
        keys = self.service.documents().keys()

        assert not {key for kind, key in keys if kind == REGISTER} & {key for kind, key in keys if kind == ANSWER}

    @rule()
    def a_replay_of_the_whole_log_leads_to_the_same(self) -> None:
        self.service.flush()

        assert self.service.replayed() == self.service.documents()
        facts = {it.event_id: it.message for it in self.service.events(TOPIC)}
        answered = [fact.submission_id for fact in facts.values() if isinstance(fact, (ModelVersionRegistered, ModelVersionRejected))]
        assert len(answered) == len(set(answered))


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_any_order_of_events_leads_to_one_version_a_submission = AnyOrder.TestCase
