"""Where the door sends a call, and how it finds the model's name in the bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.serving.access import KEY
from services.serving.adapters.door_process import DoorProcess, DoorTable
from services.serving.adapters.home_keeper import Keeper
from services.serving.door import about, peek
from services.serving.door.routes import NoRoute, NotAwake, Refused, Table, part_of
from services.serving.model_server.wire import Wire
from tests.unit.serving.builders import after, failed, live, starting, unhealthy
from trainyard.endpoint.v1 import endpoint_pb2 as pb

WIRE = Wire()
MAIN, BESIDE = {"deployment": 1, "grpc": "h:1", "rest": "h:2"}, {"deployment": 2, "grpc": "h:3", "rest": "h:4"}


def a_table(folder: Path, chance: float = 0.5, **routes: Any) -> Table:
    told = {name: {"model": "mnist", "has_code": False, "main": MAIN, **route} for name, route in routes.items()}
    (folder / "new").write_text(json.dumps(told))
    (folder / "new").replace(folder / "door.json")
    return Table(folder / "door.json", lambda: chance)


async def test_without_ports_there_is_no_door_and_the_service_goes_on(tmp_path: Path) -> None:
    running = asyncio.create_task(DoorProcess(Keeper(tmp_path), DoorTable(tmp_path), "127.0.0.1", 0, 0, "").run())
    for _ in range(3):
        await asyncio.sleep(0)

    assert not running.done()
    running.cancel()


TLS = pb.Tls(certificate_pem="-----BEGIN CERTIFICATE-----\n", cname="models.example")


def test_a_server_that_speaks_tls_is_found_where_it_lies_whatever_its_callers_call_it(tmp_path: Path) -> None:
    fact = live()
    fact.grpc_address, fact.scoring_uri = "models.example:7001", "https://models.example:8001/v1/models/mnist:predict"
    DoorTable(tmp_path, "127.0.0.1").keep([after(starting(tls=TLS), fact)])
    table = Table(tmp_path / "door.json")
    route = table.by_endpoint("digits")
    public = Table(tmp_path / "door.json", is_private=False)

    main, _ = table.choose(route, {}.get)

    assert (main.grpc, main.rest, main.certificate, main.cname) == (
        "127.0.0.1:7001",
        "127.0.0.1:8001",
        TLS.certificate_pem,
        "models.example",
    )
    with pytest.raises(NoRoute, match=r"this door does not: call it at https://models\.example:8001, gRPC models\.example:7001"):
        public.choose(route, {}.get)


def test_a_model_is_found_by_its_name_and_an_endpoint_by_its_own(tmp_path: Path) -> None:
    table = a_table(tmp_path, digits={}, words={"model": "words"}, code={"model": "mnist", "has_code": True})

    assert table.by_model("mnist").endpoint == "digits"
    assert table.by_endpoint("code").has_code
    with pytest.raises(NoRoute, match="there is: code, digits, words"):
        table.by_endpoint("nobody")
    with pytest.raises(NoRoute, match="no endpoint serves a model 'lost'"):
        table.by_model("lost")


def test_of_several_endpoints_with_one_model_the_header_says_which(tmp_path: Path) -> None:
    table = a_table(tmp_path, one={}, two={})

    with pytest.raises(NoRoute, match="is served by one, two: say which"):
        table.by_model("mnist")
    assert table.by_model("mnist", "two").endpoint == "two"


def test_an_unlisted_endpoint_takes_no_call_from_those_that_serve_its_model(tmp_path: Path) -> None:
    table = a_table(tmp_path, one={}, two={"unlisted": True})

    assert table.by_model("mnist").endpoint == "one"
    assert table.by_model("mnist", "two").endpoint == table.by_endpoint("two").endpoint == "two"


def test_the_table_is_read_again_when_it_changes_and_kept_where_it_makes_no_sense(tmp_path: Path) -> None:
    table = a_table(tmp_path, digits={})
    assert table.by_endpoint("digits")
    a_table(tmp_path, words={})
    assert table.by_endpoint("words")
    (tmp_path / "door.json").write_text("{")

    assert table.by_endpoint("words")


@pytest.mark.parametrize(("chance", "chosen"), [(0.0, 2), (0.24, 2), (0.25, 1), (0.99, 1)])
def test_calls_are_split_by_weight(tmp_path: Path, chance: float, chosen: int) -> None:
    table = a_table(tmp_path, chance, digits={"beside": BESIDE, "percent": 25})

    backend, copy = table.choose(table.by_endpoint("digits"), lambda _: None)

    assert (backend.deployment, copy) == (chosen, None)


@pytest.mark.parametrize("chance", [0.0, 0.99])
@pytest.mark.parametrize(("version", "chosen"), [(7, 1), (8, 2), (9, 1)])
def test_a_call_that_names_a_version_goes_where_it_is_whatever_chance_and_key_say(
    tmp_path: Path, chance: float, version: int, chosen: int
) -> None:
    versions: dict[str, Any] = {"main": MAIN | {"version": 7}, "beside": BESIDE | {"version": 8}, "percent": 50}
    table = a_table(tmp_path, chance, split=versions, sticky=versions | {"sticky_by": "x-user"})

    for name in ("split", "sticky"):
        backend, copy = table.choose(table.by_endpoint(name), lambda _: "somebody", version)
        assert (backend.deployment, copy) == (chosen, None)


def test_nobody_calls_a_shadow_by_its_version_and_one_version_twice_is_split_still(tmp_path: Path) -> None:
    shadow = {"main": MAIN | {"version": 7}, "beside": BESIDE | {"version": 8}, "shadow": True}
    twice = {"main": MAIN | {"version": 7}, "beside": BESIDE | {"version": 7}, "percent": 50}
    table = a_table(tmp_path, 0.0, shadow=shadow, twice=twice)

    assert table.choose(table.by_endpoint("shadow"), lambda _: None, 8)[0].deployment == 1
    assert table.choose(table.by_endpoint("twice"), lambda _: None, 7)[0].deployment == 2


def test_the_index_lists_what_answers_by_name_with_its_versions_and_whether_it_runs(tmp_path: Path) -> None:
    split = {"main": MAIN | {"version": 7}, "beside": BESIDE | {"version": 8}, "percent": 50}
    table = a_table(
        tmp_path,
        split=split,
        shadow=split | {"model": "words", "shadow": True, "asleep": True},
        code={"model": "code", "has_code": True},
        hidden={"model": "hidden", "unlisted": True},
        one={"model": "two", "main": MAIN | {"version": 1}, "asleep": True},
        two={"model": "two", "main": MAIN | {"version": 1}},
    )

    found = about.index(table.listed())

    assert [(it["name"], it["version"], it["state"]) for it in found] == [
        ("mnist", "7", "READY"), ("mnist", "8", "READY"), ("two", "1", "READY"), ("words", "7", "UNAVAILABLE"),
    ]  # fmt: skip
    assert "a call waits for it" in found[-1]["reason"]
    assert "say which in trainyard-endpoint" in found[2]["reason"]
    assert [it["name"] for it in about.index(table.listed(), ready=True)] == ["mnist", "mnist", "two"]


def test_a_call_that_goes_to_the_main_one_is_copied_where_it_has_a_shadow(tmp_path: Path) -> None:
    table = a_table(tmp_path, digits={"beside": BESIDE, "percent": 0, "shadow": True})

    backend, copy = table.choose(table.by_endpoint("digits"), lambda _: None)

    assert copy is not None
    assert (backend.deployment, copy.deployment) == (1, 2)


@given(st.text(max_size=20), st.floats(0, 100))
def test_the_same_key_always_goes_to_the_same_one_and_more_weight_takes_nobody_back(value: str, percent: float) -> None:
    at = part_of("digits", value)

    assert at == part_of("digits", value)
    assert 0 <= at < 1
    if at * 100 < percent:
        assert at * 100 < min(100, percent + 1)


def test_keys_fall_evenly_and_without_the_header_chance_decides(tmp_path: Path) -> None:
    table = a_table(tmp_path, 0.99, digits={"beside": BESIDE, "percent": 30, "sticky_by": "X-User"})
    route = table.by_endpoint("digits")

    chosen = [table.choose(route, {"x-user": str(number)}.get)[0].deployment for number in range(2000)]

    assert 500 < chosen.count(2) < 700
    assert table.choose(route, lambda _: None)[0].deployment == 1


def test_the_models_name_is_found_whatever_comes_before_it() -> None:
    request = WIRE.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "mnist", "s"
    request.inputs["x"].float_val.extend([1.0] * 1000)
    spec = request.SerializeToString()
    moved = (
        spec[len(WIRE.PredictRequest(model_spec=request.model_spec).SerializeToString()) :]
        + WIRE.PredictRequest(model_spec=request.model_spec).SerializeToString()
    )

    method = f"{peek.SERVING}Predict"
    assert peek.asked(method, spec) == peek.asked(method, moved) == peek.Asked("mnist")
    assert peek.asked(method, b"") == peek.Asked("")
    infer = WIRE.message("inference.ModelInferRequest")(model_name="mnist", id="1").SerializeToString()
    assert (peek.asked(peek.INFER, infer), peek.id_of(infer)) == (peek.Asked("mnist"), "1")


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_the_models_version_is_found_in_every_protocol(number: int) -> None:
    spec = WIRE.PredictRequest().model_spec
    spec.name, spec.version.value, spec.signature_name = "mnist", number, "s"
    unsigned = number % (1 << 64)

    def found(method: str, message: str, **fields: Any) -> int | None:
        return peek.asked(method, WIRE.message(message)(**fields).SerializeToString()).version

    assert found(f"{peek.SERVING}Predict", "tensorflow.serving.PredictRequest", model_spec=spec) == unsigned
    assert found("/tensorflow.serving.ModelService/GetModelStatus", "tensorflow.serving.GetModelStatusRequest", model_spec=spec) == unsigned
    tasks = [{"model_spec": spec}]
    assert found(f"{peek.SERVING}MultiInference", "tensorflow.serving.MultiInferenceRequest", tasks=tasks) == unsigned
    textual = number if number >= 0 else None
    assert found(peek.INFER, "inference.ModelInferRequest", model_name="mnist", model_version=str(number)) == textual
    assert found(f"{peek.INFERENCE}ModelReady", "inference.ModelReadyRequest", name="mnist", version=str(number)) == textual


@pytest.mark.parametrize("text", ["", "latest", "-1", "9" * 20, "\u0667", " 8", "8 "])
def test_a_version_that_is_no_number_is_the_servers_affair(text: str) -> None:
    assert peek.version_in(text) is None


@given(st.binary(max_size=60), st.sampled_from(sorted(peek._PLACES)))
def test_bytes_that_are_no_message_are_told_or_name_nobody(data: bytes, method: str) -> None:
    try:
        assert isinstance(peek.asked(method, data).model, str)
        assert isinstance(peek.id_of(data), str)
    except peek.Malformed as error:
        assert str(error)


def test_a_call_waits_until_an_endpoint_that_sleeps_is_awake(tmp_path: Path) -> None:
    asked: list[str] = []
    a_table(tmp_path, digits={"asleep": True})

    def wake(endpoint: str) -> None:
        asked.append(endpoint)
        a_table(tmp_path, digits={})

    table = Table(tmp_path / "door.json", wake=wake)

    assert not table.awake(table.by_endpoint("digits"), 30).asleep
    assert asked == ["digits"]
    a_table(tmp_path, digits={"asleep": True})
    with pytest.raises(NotAwake, match="is being started, and did not answer"):
        Table(tmp_path / "door.json").awake(Table(tmp_path / "door.json").by_endpoint("digits"), 0)


def test_who_has_no_key_wakes_nobody(tmp_path: Path) -> None:
    key, asked = "open-sesame", list[str]()
    (tmp_path / "digits.json").write_text(json.dumps({"kind": KEY, "digests": [hashlib.sha256(key.encode()).hexdigest()], "signs": ""}))
    asleep = {"asleep": True, "keys": str(tmp_path / "digits.json")}
    a_table(tmp_path, digits=asleep)

    def wake(endpoint: str) -> None:
        asked.append(endpoint)
        a_table(tmp_path, digits=asleep | {"asleep": False})

    table = Table(tmp_path / "door.json", wake=wake)
    route = table.by_endpoint("digits")

    for header in (None, "", "Bearer ", "Bearer guessed", key):
        with pytest.raises(Refused, match="key"):
            table.awake(route, 30, header)
    assert asked == []
    assert not table.awake(route, 30, f"Bearer {key}").asleep
    assert table.awake(table.by_endpoint("digits"), 30, None)  # one that runs says itself whom it turns away


def test_a_key_that_must_not_come_in_the_clear_is_not_asked_for(tmp_path: Path) -> None:
    locked = {"asleep": True, "keys": str(tmp_path / "lost.json"), "main": MAIN | {"certificate": "PEM", "cname": "models.example"}}
    a_table(tmp_path, digits=locked)
    public = Table(tmp_path / "door.json", wake=lambda _: a_table(tmp_path, digits=locked | {"asleep": False}) and None, is_private=False)

    assert not public.awake(public.by_endpoint("digits"), 30).asleep


def test_the_table_says_of_whom_callers_have_to_wait_for(tmp_path: Path) -> None:
    def row(*facts: Any) -> dict[str, Any]:
        written = DoorTable(tmp_path)
        written.keep([after(*facts)])
        found: dict[str, Any] = json.loads(written.file.read_text()).get("digits", {})
        return found

    slept, woken = pb.EndpointSlept(endpoint="digits", deployment=1), pb.EndpointWoken(endpoint="digits", deployment=1)
    up = row(starting(), live())

    assert (up["asleep"], up["main"]) == (False, {"deployment": 1, "version": 1, "grpc": "h:7001", "rest": "h:8001"})
    assert [row(starting(), live(), *more)["asleep"] for more in ([slept], [slept, woken], [slept, woken, live()], [unhealthy()])] == [
        True, True, False, True,
    ]  # fmt: skip
    assert row(starting()) == row(starting(), live(), failed()) == {}
