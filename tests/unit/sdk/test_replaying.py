"""A replay: what becomes of each sampled call, which calls are made at all, and where they go."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from trainyard import UserErrorException, WebserviceException
from trainyard._kafka import Raw, partition_of
from trainyard._replay import wire
from trainyard._replay.replaying import Report, replay
from trainyard._replay.samples import TOPIC, Range, samples
from trainyard._replay.target import Answer, CannotAsk, NobodyThere, Target
from trainyard.endpoint.v1.inference_pb2 import InferenceSampled, Payload

V1 = "/v1/models/half:predict"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def payload(body: Any) -> Payload:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Payload(content=content, size_bytes=len(content))


def a_sample(answered: Any = (1.0,), status: int = 200, path: str = V1, method: str = "POST", **fields: Any) -> InferenceSampled:
    body = {"predictions": list(answered)} if isinstance(answered, tuple) else answered
    made = InferenceSampled(
        sample_id=fields.pop("sample_id", "s1"),
        endpoint="digits",
        path=path,
        method=method,
        status=status,
        response=payload(body),
        **fields,
    )
    made.at.FromDatetime(fields.pop("at", NOON))
    return made


class Answers:
    """Gives the same answer to everything."""

    def __init__(self, answered: Any = (1.0,), status: int = 200) -> None:
        self.body = {"predictions": list(answered)} if isinstance(answered, tuple) else answered
        self.status = status

    def ask(self, sample: Any) -> Answer:
        if isinstance(self.body, CannotAsk):
            raise self.body
        return Answer(self.status, payload(self.body))


def report(sample: InferenceSampled, target: Answers, tolerance: float = 1e-6) -> Report:
    return replay([sample], target, tolerance)


def counts(found: Report) -> tuple[int, int, int, int, int]:
    return found.same, found.within_tolerance, found.differing, found.failed, found.skipped


@pytest.mark.parametrize(
    ("sample", "target", "expected"),
    [
        (a_sample(), Answers(), (1, 0, 0, 0, 0)),
        (a_sample(), Answers((1.0000001,)), (0, 1, 0, 0, 0)),
        (a_sample(), Answers((1.1,)), (0, 0, 1, 0, 0)),
        (a_sample(), Answers((1.0, 2.0)), (0, 0, 1, 0, 0)),
        (a_sample(), Answers(b"no json"), (0, 0, 1, 0, 0)),
        (a_sample(), Answers({"error": "no"}, 400), (0, 0, 0, 1, 0)),
        (a_sample(), Answers(CannotAsk("gone")), (0, 0, 0, 1, 0)),
        (a_sample({"error": "version 1 says no"}, 400), Answers({"error": "version 2 says no"}, 400), (1, 0, 0, 0, 0)),
        (a_sample({"error": "no"}, 400), Answers({"error": "no"}, 404), (0, 0, 1, 0, 0)),
        (a_sample({"error": "no"}, 400), Answers(), (0, 0, 1, 0, 0)),
        (a_sample(b"", 5, "", f"{wire.PREDICTION}Predict"), Answers(b"", 5), (1, 0, 0, 0, 0)),
        (a_sample(b"", 0, "", f"{wire.PREDICTION}Predict"), Answers(b"", 5), (0, 0, 0, 1, 0)),
        (a_sample("hello", path="/score"), Answers("hello"), (1, 0, 0, 0, 0)),
        (a_sample("hello", path="/score"), Answers("hallo"), (0, 0, 1, 0, 0)),
    ],
)
def test_a_call_comes_to_one_of_five_ends(sample: InferenceSampled, target: Answers, expected: tuple[int, ...]) -> None:
    found = report(sample, target)

    assert counts(found) == expected
    assert found.is_clean == (not (expected[2] or expected[3]))


@pytest.mark.parametrize("cut", ["request", "response"])
def test_what_was_cut_is_skipped_and_not_asked(cut: str) -> None:
    sample = a_sample()
    getattr(sample, cut).size_bytes = 1 << 20

    assert counts(report(sample, Answers(CannotAsk("it was asked")))) == (0, 0, 0, 0, 1)


def test_the_largest_difference_is_told_with_its_sample_and_the_first_few_that_differ() -> None:
    several = [a_sample((float(number),), sample_id=f"s{number}") for number in range(15)]

    found = replay(several, Answers((0.5,)), 0.0).as_dict()

    assert (found["samples"], found["differing"], len(found["examples"])) == (15, 15, 10)
    assert found["largest"] == {"sample": "s14", "difference": 13.5 / 14, "where": "predictions[0]", "before": "14.0", "after": "0.5"}
    assert found["examples"][0] == {
        "sample": "s0", "at": "2026-01-01T12:00:00+00:00", "call": f"POST {V1}", "outcome": "differs",
        "difference": 0.5, "where": "predictions[0]", "before": "0.0", "after": "0.5",
    }  # fmt: skip


def test_a_report_is_json_even_where_a_difference_has_no_size() -> None:
    found = report(a_sample(), Answers((math.nan,)))

    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["largest"]["difference"] == "inf"


def test_a_target_that_has_gone_ends_the_replay() -> None:
    asked: list[int] = []

    with pytest.raises(WebserviceException, match="20 calls in a row"):
        replay([a_sample()] * 100, Answers(CannotAsk("gone")), 0, lambda it: asked.append(it.samples))

    assert len(asked) == 19


# -- which calls


class Log:
    def __init__(self, *messages: Any) -> None:
        self.asked: dict[str, Any] = {}
        self.count = 8
        self._messages = messages

    def partitions(self, topic: str) -> int:
        return self.count

    def read(self, topics: list[str], **options: Any) -> Iterator[list[Raw]]:
        self.asked = {"topics": topics, **options}
        for offset, message in enumerate(self._messages):
            event = SimpleNamespace(message=message) if message is not None else None
            yield [Raw(TOPIC, 0, offset, NOON, b"digits", b"", event)]  # type: ignore[arg-type]


def ids(log: Log, wanted: Range) -> list[str]:
    return [it.sample_id for it in samples(log, "digits", wanted)]  # type: ignore[arg-type]


def test_each_sample_is_given_once_and_what_is_none_never() -> None:
    forged = a_sample(sample_id="forged")
    forged.endpoint = "another"

    assert ids(Log(a_sample(), None, a_sample(), forged, Payload(), a_sample(sample_id="s2")), Range()) == ["s1", "s2"]


def test_a_range_is_of_the_times_at_which_the_calls_came() -> None:
    log = Log(*(a_sample(sample_id=f"s{hour}", at=NOON + timedelta(hours=hour)) for hour in range(4)))

    assert ids(log, Range(NOON + timedelta(hours=1), NOON + timedelta(hours=3))) == ["s1", "s2"]
    assert log.asked["since"] == NOON + timedelta(hours=1)


def test_one_deployments_calls_may_be_asked_for_alone() -> None:
    log = Log(*(a_sample(sample_id=f"s{number}", deployment=number) for number in (1, 2, 3)))

    assert ids(log, Range(deployment=2)) == ["s2"]


def test_an_offset_is_of_the_endpoints_own_partition() -> None:
    log = Log()

    ids(log, Range(offset=7))

    assert log.asked["after"] == {(TOPIC, partition_of("digits", 8)): 6}
    log.count = 0
    with pytest.raises(UserErrorException, match="no topic"):
        ids(log, Range())


# -- where they go


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    class Echo(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told = json.dumps({"path": self.path, "method": self.command, "headers": dict(self.headers), "body": body.decode()}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_POST

        def log_message(self, *_: object) -> None: ...

    made = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def target(server: ThreadingHTTPServer, path: str) -> Target:
    service: Any = SimpleNamespace(
        name="other",
        scoring_uri=f"http://127.0.0.1:{server.server_address[1]}{path}",
        door_scoring_uri="",
        grpc_address="127.0.0.1:1" if "models" in path else "",
        door_grpc_address="",
        _certificate="",
        _access=SimpleNamespace(headers=lambda: {"authorization": "Bearer key"}),
    )
    return Target(service)


def asked(server: ThreadingHTTPServer, path: str, sample: InferenceSampled) -> Any:
    made = target(server, path)
    try:
        return json.loads(made.ask(sample).payload.content)
    finally:
        made.close()


@pytest.mark.parametrize(
    ("path", "sample", "to"),
    [
        ("/v1/models/new:predict", a_sample(), "/v1/models/new:predict"),
        ("/v1/models/new:predict", a_sample(path="/v1/models/half/versions/7:classify"), "/v1/models/new:classify"),
        ("/v1/models/new:predict", a_sample(path="/v1/models/half/labels/stable:regress"), "/v1/models/new:regress"),
        ("/v1/models/new:predict", a_sample(path="/v2/models/half/versions/7/infer"), "/v2/models/new/infer"),
        ("/endpoints/other/v1/models/new:predict", a_sample(path="/v2/models/half/infer"), "/endpoints/other/v2/models/new/infer"),
        ("/score", a_sample(path="/score"), "/score"),
        ("/score", a_sample(path="/score?a=1", method="GET"), "/score?a=1"),
        ("/endpoints/other/score", a_sample(path="/score"), "/endpoints/other/score"),
    ],
)
def test_a_call_goes_to_the_same_question_of_the_other_model_with_its_key(
    server: ThreadingHTTPServer, path: str, sample: InferenceSampled, to: str
) -> None:
    sample.request.CopyFrom(Payload(content=b"asked", content_type="text/plain", json_bytes=3))

    got = asked(server, path, sample)

    assert (got["path"], got["method"], got["body"]) == (to, sample.method, "asked")
    headers = {name.lower(): value for name, value in got["headers"].items()}
    assert (headers["authorization"], headers["trainyard-endpoint"], headers["content-type"]) == ("Bearer key", "other", "text/plain")
    assert headers["inference-header-content-length"] == "3"


@pytest.mark.parametrize(
    ("path", "sample"),
    [
        ("/v1/models/new:predict", a_sample(path="/v1/models/half")),
        ("/v1/models/new:predict", a_sample(path="/v2/repository/models/half/unload")),
        ("/v1/models/new:predict", a_sample(path="/score")),
        ("/v1/models/new:predict", a_sample(method="DELETE")),
        ("/v1/models/new:predict", a_sample(path="@elsewhere/v1/models/half:predict")),
        ("/v1/models/new:predict", a_sample(path="", method="/tensorflow.serving.ModelService/HandleReloadConfigRequest")),
        ("/score", a_sample()),
        ("/score", a_sample(path="/score/../metrics")),
        ("/score", a_sample(path="/score?a b")),
        ("/score", a_sample(path="", method=f"{wire.PREDICTION}Predict")),
    ],
)
def test_what_asks_no_model_there_is_not_asked(server: ThreadingHTTPServer, path: str, sample: InferenceSampled) -> None:
    with pytest.raises(CannotAsk, match="asks no model|script"):
        asked(server, path, sample)


def test_a_call_that_nobody_took_is_made_once_more_and_one_that_got_no_answer_in_time_is_not(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = target(server, "/score")
    calls = [0]

    def ask(sample: Any) -> Answer:
        calls[0] += 1
        raise NobodyThere("closed")

    monkeypatch.setattr(made, "_ask", ask)
    with pytest.raises(CannotAsk):
        made.ask(a_sample(path="/score"))
    assert calls == [2]

    def late(sample: Any) -> Answer:
        calls[0] += 1
        raise CannotAsk("late")

    monkeypatch.setattr(made, "_ask", late)
    with pytest.raises(CannotAsk):
        made.ask(a_sample(path="/score"))
    made.close()
    assert calls == [3]
