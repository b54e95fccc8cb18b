"""Requests, registrations, reports, restarts and the outbox in any order: what an endpoint's history may look like afterwards."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.chassis import codec
from services.chassis.handler import Command
from services.serving.domain.endpoint import Endpoint, state_of, wanted
from services.serving.domain.reports import CameUp, GaveUp, Progressed, Report, WentDown, WentIdle
from services.serving.handlers import MODELS, TOPIC, Decide, Follow, ServingHandler
from services.serving.shelf import ALIAS, ANSWER, DEPLOY, ENDPOINT, LEAVING, VERSION, Answer, Asked
from tests.unit.on_memory import OnMemory
from tests.unit.serving.builders import FAILURE, a_request, registered, scoring
from trainyard.endpoint.v1 import endpoint_pb2 as pb
from trainyard.model.v1.model_pb2 import AliasMoved, ModelChangeRejected, ModelVersionLeaving

NAMES = st.sampled_from(["digits"] * 6 + ["words", "NO"])
SUBMISSIONS = st.sampled_from([f"s{number}" for number in range(12)])
BEHIND = st.sampled_from([0, 0, 1, 2])


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.service = OnMemory("serving", ServingHandler, [TOPIC, MODELS], [ALIAS, ANSWER, DEPLOY, ENDPOINT, LEAVING, VERSION])
        self.given: dict[str, bytes] = {}
        self.numbers: dict[str, int] = {}
        self.first_asked: dict[str, str] = {}
        self.seen: dict[str, Asked] = {}
        self.service.publish(MODELS, "mnist", registered())

    def teardown(self) -> None:
        self.service.close()

    @rule(name=NAMES, submission=SUBMISSIONS, version=st.sampled_from([1, 1, 1, 2, 0]), overwrite=st.booleans())
    def somebody_deploys(self, name: str, submission: str, version: int, overwrite: bool) -> None:
        self.first_asked.setdefault(submission, name)
        self.service.publish(TOPIC, name, a_request(submission, name, version=version, overwrite=overwrite))

    @rule(name=NAMES)
    def somebody_deletes(self, name: str) -> None:
        self.service.publish(TOPIC, name, pb.DeleteEndpoint(endpoint=name))

    @rule(name=NAMES, submission=SUBMISSIONS, version=st.sampled_from([0, 0, 1, 2]), has_code=st.booleans(), tag=st.sampled_from(["", "a"]))
    def somebody_updates(self, name: str, submission: str, version: int, has_code: bool, tag: str) -> None:
        self.first_asked.setdefault(submission, name)
        request = pb.UpdateEndpoint(submission_id=submission, endpoint=name)
        if version:
            request.models.add(model="mnist", version=version)
        if has_code:
            request.scoring.CopyFrom(scoring())
        if tag:
            request.tags.values["tag"] = tag
        self.service.publish(TOPIC, name, request)

    @rule(name=NAMES, submission=SUBMISSIONS, deployment=st.sampled_from([0, 0, 1, 9]))
    def somebody_rolls_back(self, name: str, submission: str, deployment: int) -> None:
        self.first_asked.setdefault(submission, name)
        self.service.publish(TOPIC, name, pb.RollBackEndpoint(submission_id=submission, endpoint=name, deployment=deployment))

    @rule(name=NAMES, submission=SUBMISSIONS, version=st.sampled_from([0, 1, 2]), percent=st.sampled_from([0, 10, 100, 101]))
    def somebody_splits_the_traffic(self, name: str, submission: str, version: int, percent: int) -> None:
        self.first_asked.setdefault(submission, name)
        request = pb.UpdateTraffic(submission_id=submission, endpoint=name, split=pb.TrafficSplit(percent=percent))
        if version:
            request.beside.version = version
        self.service.publish(TOPIC, name, request)

    @rule(name=NAMES, submission=SUBMISSIONS)
    def somebody_deploys_by_alias(self, name: str, submission: str) -> None:
        self.first_asked.setdefault(submission, name)
        self.service.publish(TOPIC, name, a_request(submission, name, version=0, alias="champion", overwrite=True))

    @rule(version=st.integers(0, 3))
    def the_alias_moves(self, version: int) -> None:
        self.service.publish(MODELS, "mnist", AliasMoved(submission_id="m", model="mnist", alias="champion", version=version))

    @rule(name=NAMES)
    def the_supervisor_looks_at_the_alias(self, name: str) -> None:
        for _ in range(2):
            before = self._facts()
            self.service.command(Command(Follow(name, self.service.now()), correlation_id=name, recurs=True))
        assert self._facts() == before

    @rule(version=st.integers(1, 3), stays=st.booleans())
    def a_version_leaves_the_registry(self, version: int, stays: bool) -> None:
        self.service.publish(MODELS, "mnist", ModelVersionLeaving(submission_id=f"d{version}", model="mnist", version=version))
        if stays:
            self.service.publish(MODELS, "mnist", ModelChangeRejected(submission_id=f"d{version}", model="mnist"))

    @rule(name=NAMES, key=st.sampled_from([pb.KEY_PRIMARY, pb.KEY_SECONDARY, pb.KEY_UNSPECIFIED]))
    def somebody_makes_a_key_anew(self, name: str, key: pb.Key) -> None:
        self.service.publish(TOPIC, name, pb.RegenerateEndpointKey(endpoint=name, key=key))

    @rule(version=st.integers(1, 3), is_saved_model=st.booleans())
    def a_version_is_registered(self, version: int, is_saved_model: bool) -> None:
        self.service.publish(MODELS, "mnist", registered(version=version, files=None if is_saved_model else {"model/weights.h5": b""}))

    @rule(chosen=st.integers(0, 5))
    def the_worker_comes_back(self, chosen: int) -> None:
        pending = self.service.pending(DEPLOY)
        if pending:
            asked = codec.loads(pending[chosen % len(pending)], Asked)
            self.seen[asked.what.submission_id] = asked
            self.service.command(Command(Decide(asked.what, self.service.now()), asked.event_id, asked.correlation_id))

    @rule(submission=SUBMISSIONS)
    def the_worker_comes_back_once_more(self, submission: str) -> None:
        if submission in self.seen:
            asked, before = self.seen[submission], self._facts()
            self.service.command(Command(Decide(asked.what, self.service.now()), asked.event_id, asked.correlation_id))
            assert self._facts() == before

    @rule(name=NAMES, behind=BEHIND)
    def a_server_comes_up(self, name: str, behind: int) -> None:
        number = self._number(name, behind)
        self._report(CameUp(name, number, "d", ("serving_default",), f"h:{number}", f"http://h:{number}/", self.service.now()))

    @rule(name=NAMES, behind=BEHIND)
    def a_server_goes_down(self, name: str, behind: int) -> None:
        self._report(WentDown(name, self._number(name, behind), "it died"))

    @rule(name=NAMES, behind=BEHIND)
    def a_server_is_given_up(self, name: str, behind: int) -> None:
        self._report(GaveUp(name, self._number(name, behind), FAILURE))

    @rule(name=NAMES, behind=BEHIND)
    def nobody_calls(self, name: str, behind: int) -> None:
        self._report(WentIdle(name, self._number(name, behind)))

    @rule(name=NAMES)
    def somebody_calls(self, name: str) -> None:
        self.service.publish(TOPIC, name, pb.WakeEndpoint(endpoint=name))

    @rule(name=NAMES, behind=BEHIND, why=st.sampled_from(["fetching", "loading"]))
    def a_server_makes_progress(self, name: str, behind: int, why: str) -> None:
        self._report(Progressed(name, self._number(name, behind), why))

    @rule(crash=st.booleans())
    def the_outbox_leaves(self, crash: bool) -> None:
        self.service.flush(crash=crash)

    @rule()
    def the_service_restarts(self) -> None:
        self.service.restart()

    @rule()
    def a_replay_of_the_whole_log_leads_to_the_same(self) -> None:
        self.service.flush()

        assert self.service.replayed() == self.service.documents()

    def _number(self, name: str, behind: int) -> int:
        """Of the latest deployment, or of one before it."""
        content = self.service.documents().get((ENDPOINT, name))
        return max(1, codec.loads(content, Endpoint).highest - behind) if content is not None else 1

    def _report(self, report: Report) -> None:
        """A report of a deployment that is not wanted leads to no fact."""
        before = self._facts()
        content = self.service.documents().get((ENDPOINT, report.endpoint))
        is_wanted = content is not None and report.deployment in [it.number for it in wanted(codec.loads(content, Endpoint))]
        self.service.command(Command(report, correlation_id=report.endpoint))
        if not is_wanted:
            assert self._facts() == before

    def _facts(self) -> int:
        """How many this service has made so far."""
        return self.service.engine.counts["emitted"]

    def _endpoints(self) -> list[Endpoint]:
        return [codec.loads(content, Endpoint) for (kind, _), content in self.service.documents().items() if kind == ENDPOINT]

    @invariant()
    def numbers_only_grow_and_at_most_one_deployment_answers(self) -> None:
        for endpoint in self._endpoints():
            assert endpoint.highest >= self.numbers.get(endpoint.name, 0)
            self.numbers[endpoint.name] = endpoint.highest
            if endpoint.second is not None:
                assert endpoint.serving is not None
                assert endpoint.second.deployment.number not in (endpoint.serving.number, endpoint.latest.number)
                assert bool(endpoint.second.scoring_uri) == endpoint.second.lived >= endpoint.second.up
            if endpoint.serving is not None:
                assert endpoint.serving.number <= endpoint.latest.number
                assert endpoint.serving in endpoint.lived
            assert bool(endpoint.scoring_uri) == (endpoint.serving is not None)
            assert state_of(endpoint) != pb.ENDPOINT_STATE_HEALTHY or endpoint.serving == endpoint.latest
            assert state_of(endpoint) != pb.ENDPOINT_STATE_HEALTHY or endpoint.up != endpoint.asleep
            assert not (endpoint.asleep and (endpoint.up or endpoint.serving is None))

    @invariant()
    def an_answer_never_changes_and_only_what_waits_has_none(self) -> None:
        documents = self.service.documents()
        answers = {key: content for (kind, key), content in documents.items() if kind == ANSWER}
        waiting = {key for kind, key in documents if kind == DEPLOY}
        for key, content in self.given.items():
            assert answers[key] == content
        for submission, content in answers.items():
            given = codec.loads(content, Answer)
            assert given.endpoint == self.first_asked.get(submission, given.endpoint)  # a move of an alias is a submission of its own
        assert {it.waits_in for it in (codec.loads(content, Answer) for content in answers.values()) if not it.is_given} == waiting
        self.given = {key: content for key, content in answers.items() if codec.loads(content, Answer).is_given}

    @invariant()
    def every_deployment_began_once_and_in_order(self) -> None:
        for name in ("digits", "words"):
            begun = [it.message for it in self.service.events(TOPIC) if it.key == name and isinstance(it.message, pb.EndpointStarting)]
            numbers = list(dict.fromkeys(it.deployment for it in begun))
            assert numbers == list(range(1, len(numbers) + 1))
            assert len({it.submission_id for it in begun}) == len(numbers)


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_any_order_of_events_leads_to_one_deployment_that_answers = AnyOrder.TestCase
