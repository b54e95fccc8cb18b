"""Requests, repeats, events of runs and endpoints, restarts and the outbox in any order: what a model's history may look like afterwards."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.message import Message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.chassis import codec
from services.chassis.handler import Command
from services.registry.domain.model import Leaving, Removal
from services.registry.domain.registration import Asked
from services.registry.domain.runs import Run
from services.registry.endpoint_shelf import ANSWERED, ASKED, ENDPOINT
from services.registry.endpoint_shelf import TOPIC as ENDPOINTS
from services.registry.handlers import JOBS, TOPIC, Checked, LookedAtEndpoints, RegistryHandler, Removed
from services.registry.shelf import ALIASES, ANSWER, CHANGED, DELETE, KINDS, LATEST, LEAVING, REGISTER, REMOVE, RUN, VERSION
from tests.unit.on_memory import OnMemory
from tests.unit.registry import builders
from tests.unit.registry.builders import a_request, canceled, completed, queued
from trainyard.endpoint.v1 import endpoint_pb2 as endpoint
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.job.v1 import job_pb2 as job
from trainyard.model.v1.model_pb2 import (
    DeleteModelVersion,
    ModelVersion,
    ModelVersionDeleted,
    ModelVersionLeaving,
    ModelVersionRegistered,
    ModelVersionRejected,
    SetAlias,
    SetStage,
    UpdateModelVersion,
)

MODELS = st.sampled_from(["mnist", "mnist", "flowers", "-bad"])
SUBMISSIONS = st.sampled_from([f"s{number}" for number in range(6)])
PATHS = st.sampled_from(["outputs/model", "outputs/model", "outputs/other", "/etc"])
EPOCHS = st.integers(1, 3)
VERSIONS = st.integers(1, 3)
CHANGES = st.sampled_from([f"c{number}" for number in range(6)] + ["s0"])


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.service = OnMemory("registry", RegistryHandler, [TOPIC, JOBS, ENDPOINTS], [*KINDS, ENDPOINT, ASKED, ANSWERED])
        self.fixed: dict[tuple[str, str], bytes] = {}
        self.versions: dict[str, ModelVersion] = {}

    def teardown(self) -> None:
        self.service.close()

    @initialize(count=st.integers(0, 3))
    def there_are_versions(self, count: int) -> None:
        for version in range(1, count + 1):
            fact = ModelVersionRegistered(submission_id=f"r{version}", model="mnist", version=version, digest=f"{version}" * 64)
            self.service.publish(TOPIC, "mnist", fact)

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

    @rule(model=MODELS, submission=CHANGES, version=VERSIONS, what=st.integers(0, 4), with_aliases=st.booleans())
    def somebody_changes_something(self, model: str, submission: str, version: int, what: int, with_aliases: bool) -> None:
        whose: dict[str, Any] = {"submission_id": submission, "model": model, "version": version}
        requests: list[Message] = [
            SetAlias(**{**whose, "version": version - 1}, alias="champion"),
            SetStage(**whose, stage="MODEL_STAGE_STAGING"),
            UpdateModelVersion(**whose, tags={submission: model}, digest="" if with_aliases else "e" * 64),
            DeleteModelVersion(**whose, with_aliases=with_aliases),
            DeleteModelVersion(**whose, with_aliases=with_aliases),
        ]
        self.service.publish(TOPIC, model, requests[what])

    @rule(
        event=st.one_of(
            st.builds(lambda v: endpoint.DeployEndpoint(submission_id=f"d{v}", endpoint="abc", model="mnist", version=v), VERSIONS),
            st.builds(lambda n: endpoint.EndpointLive(endpoint="abc", deployment=n), VERSIONS),
            st.builds(lambda n: endpoint.EndpointFailed(endpoint="abc", deployment=n), VERSIONS),
            st.just(endpoint.DeleteEndpoint(endpoint="abc")),
            st.just(endpoint.EndpointDeleted(endpoint="abc")),
        )
    )
    def an_endpoint_goes_on(self, event: Message) -> None:
        self.service.publish(ENDPOINTS, "abc", event)

    @rule(version=VERSIONS, number=VERSIONS)
    def a_deployment_begins(self, version: int, number: int) -> None:
        """As the serving service may decide: the version is there, and not leaving."""
        documents = self.service.documents()
        content = documents.get((VERSION, f"mnist:{version}"))
        if (
            content is not None
            and not ModelVersion.FromString(content).HasField("deleted_at")
            and (LEAVING, f"mnist:{version}") not in documents
        ):
            fact = endpoint.EndpointStarting(submission_id=f"d{version}", endpoint="abc", model="mnist", version=version, deployment=number)
            self.service.publish(ENDPOINTS, "abc", fact)

    @rule(chosen=st.integers(0, 10))
    def the_endpoints_were_looked_at(self, chosen: int) -> None:
        if pending := self.service.pending(DELETE):
            leaving = codec.loads(pending[chosen % len(pending)], Leaving)
            self.service.command(
                Command(LookedAtEndpoints(leaving.submission_id, self.service.now()), leaving.event_id, leaving.correlation_id)
            )

    @rule()
    def files_are_removed(self) -> None:
        for content in self.service.pending(REMOVE):
            removal = codec.loads(content, Removal)
            self.service.command(Command(Removed(removal.submission_id), removal.event_id, removal.correlation_id))

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
        fixed = {ANSWER, CHANGED} | ({RUN} if run is not None and run.has_ended else set())
        self.fixed = {key: content for key, content in documents.items() if key[0] in fixed}

    @invariant()
    def the_files_of_a_version_never_change_and_what_is_deleted_stays_so(self) -> None:
        documents = self.service.documents()
        now = {key: ModelVersion.FromString(content) for (kind, key), content in documents.items() if kind == VERSION}
        for key, before in self.versions.items():
            assert (now[key].digest, now[key].artifacts) == (before.digest, before.artifacts)
            assert not before.HasField("deleted_at") or now[key] == before
        self.versions = now

    @invariant()
    def aliases_point_at_what_is_there_and_no_endpoint_has_what_is_not(self) -> None:
        documents = self.service.documents()
        gone = {key for key, version in self.versions.items() if version.HasField("deleted_at")}
        for (kind, key), content in documents.items():
            if kind == ALIASES:
                assert not {f"{key}:{version}" for version in json.loads(content).values()} - (self.versions.keys() - gone)
            if kind == ENDPOINT:
                had = json.loads(content)
                used = [use for name in ("latest", "serving") if had[name] for use in had[name]["uses"]]
                assert not {f"{use['model']}:{use['version']}" for use in used} & gone

    @invariant()
    def a_version_is_leaving_exactly_as_long_as_its_deletion_is_under_way(self) -> None:
        documents = self.service.documents()
        deletions = [codec.loads(content, Leaving) for (kind, _), content in documents.items() if kind == DELETE]

        assert {f"{it.model}:{it.version}" for it in deletions} == {key for kind, key in documents if kind == LEAVING}

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
        begun = [fact.submission_id for fact in facts.values() if isinstance(fact, ModelVersionLeaving)]
        ended = [fact.submission_id for fact in facts.values() if isinstance(fact, ModelVersionDeleted)]
        assert len(begun) == len(set(begun)) and len(ended) == len(set(ended)) and set(ended) <= set(begun)


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_any_order_of_events_leads_to_one_version_a_submission = AnyOrder.TestCase
