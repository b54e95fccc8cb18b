"""Code, several models, aliases, changes and rollback: given these facts, when this request, then this fact."""

from __future__ import annotations

from typing import Any

import pytest

from services.serving.domain import decisions
from services.serving.domain.decisions import decide_key, follow_alias
from services.serving.domain.endpoint import Endpoint, evolve, state_of, wanted
from services.serving.domain.reports import conclude
from tests.unit.serving.builders import (
    NOW,
    a_request,
    a_roll_back,
    a_split,
    a_version,
    after,
    an_update,
    came_up,
    deleted,
    failed,
    known,
    live,
    scoring,
    starting,
    unhealthy,
    went_down,
)
from trainyard.endpoint.v1 import endpoint_pb2 as pb

ONE, TWO = a_version(), a_version(version=2)
NOTES = a_version("notes", 3, {"notes.txt": b"text"})


def decide(request: Any, endpoint: Endpoint | None = None, **aliases: int) -> Any:
    return decisions.decide(request, endpoint, known(ONE, TWO, NOTES, **aliases), NOW)


def reference(model: str = "mnist", version: int = 1) -> pb.ModelReference:
    return pb.ModelReference(model=model, version=version)


TLS = pb.Tls(certificate_pem="-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n", cname="models.example")
OTHER_TLS = pb.Tls(certificate_pem=TLS.certificate_pem.replace("AA", "BB"), cname="models.example")

# -- deployments


def test_code_may_have_models_that_no_server_knows_and_several_and_none() -> None:
    several = decide(a_request(scoring=scoring(), more_models=[reference("notes", 3)], limits=pb.Limits(cpu_cores=2)))
    none = decide(pb.DeployEndpoint(submission_id="s1", endpoint="digits", scoring=scoring()))

    assert after(several).latest.title == "score.py with mnist:1, notes:3"
    assert (several.scoring, several.limits.cpu_cores) == (scoring(), 2)
    assert (none.model, none.deployment, after(none).latest.title) == ("", 1, "score.py")
    assert decide(a_request(model="notes", version=3, scoring=scoring())).deployment == 1
    assert decide(a_request(model="notes", version=3)).failure.code == "NotASavedModel"


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"more_models": [reference("notes", 3)]}, "models"),
        ({"more_models": [reference()], "scoring": scoring()}, "models"),
        ({"more_models": [reference(f"m{number}") for number in range(50)], "scoring": scoring()}, "models"),
        ({"more_models": [reference("notes", 0)], "scoring": scoring()}, "model"),
        ({"alias": "champion"}, "alias"),
        ({"scoring": scoring("score.txt")}, "entry_script"),
        ({"scoring": scoring("../score.py")}, "entry_script"),
        ({"scoring": scoring("/score.py")}, "entry_script"),
        ({"scoring": scoring("a//score.py")}, "entry_script"),
        ({"scoring": pb.Scoring(entry_script="score.py")}, "source"),
        ({"limits": pb.Limits(cpu_cores=float("nan"))}, "cpu_cores"),
        ({"limits": pb.Limits(cpu_cores=-1)}, "cpu_cores"),
        ({"limits": pb.Limits(memory_bytes=1)}, "memory"),
        ({"tags": pb.Labels(values={"": "x"})}, "tags"),
        ({"properties": pb.Labels(values={str(number): "" for number in range(51)})}, "properties"),
        ({"description": "x" * 1001}, "description"),
        ({"tls": pb.Tls(certificate_pem="no PEM", cname="h")}, "certificate"),
        ({"tls": pb.Tls(certificate_pem=f"{TLS.certificate_pem}{'x' * (1 << 16)}", cname="h")}, "certificate"),
        ({"tls": pb.Tls(certificate_pem=f"{TLS.certificate_pem}-----BEGIN PRIVATE KEY-----", cname="h")}, "certificate"),
        ({"tls": pb.Tls(certificate_pem=TLS.certificate_pem)}, "cname"),
        ({"tls": pb.Tls(certificate_pem=TLS.certificate_pem, cname="a/b")}, "cname"),
        ({"tls": pb.Tls(certificate_pem=TLS.certificate_pem, cname="h:80")}, "cname"),
        ({"tls": pb.Tls(certificate_pem=TLS.certificate_pem, cname="a." * 130)}, "cname"),
    ],
)
def test_what_is_wrong_by_itself_is_refused_by_name(fields: dict[str, Any], target: str) -> None:
    fact = decide(a_request(**fields))

    assert isinstance(fact, pb.EndpointRejected)
    assert (fact.failure.code, fact.failure.target) == ("UserError", target)


def test_a_script_that_is_not_in_its_source_is_refused_with_what_is() -> None:
    request = scoring()
    request.entry_script = "skore.py"

    fact = decide(a_request(scoring=request))

    assert "it has: score.py" in fact.failure.message


def test_a_version_that_leaves_the_registry_or_runs_python_is_not_deployed() -> None:
    leaving = decisions.decide(a_request(), None, known(a_version_of(leaving="d1")), NOW)
    python = decisions.decide(a_request(), None, known(a_version_of(operations=("PyFunc",))), NOW)
    by_code = decisions.decide(a_request(scoring=scoring()), None, known(a_version_of(operations=("PyFunc",))), NOW)

    assert leaving.failure.code == "ModelLeaving"
    assert (python.failure.code, "PyFunc" in python.failure.message) == ("ModelRefused", True)
    assert by_code.deployment == 1


def a_version_of(**fields: Any) -> Any:
    from dataclasses import replace

    return replace(ONE, **fields)


# -- changes


def test_what_is_no_matter_of_the_server_changes_without_a_deployment() -> None:
    endpoint = after(starting(settings=pb.EndpointSettings(tags={"a": "1"}, properties={"p": "1"}, description="old")), live())

    fact = decide(
        an_update(tags=pb.Labels(values={"b": "2"}), properties=pb.Labels(values={"q": "2"}), authentication=pb.AUTHENTICATION_KEY),
        endpoint,
    )

    assert isinstance(fact, pb.EndpointChanged)
    changed = evolve(endpoint, fact)
    assert changed is not None
    assert changed.settings == pb.EndpointSettings(
        authentication=pb.AUTHENTICATION_KEY, tags={"b": "2"}, properties={"p": "1", "q": "2"}, description="old"
    )
    assert (changed.latest, changed.serving) == (endpoint.latest, endpoint.serving)
    assert decide(an_update(description=""), endpoint).settings.description == ""


def test_a_property_never_changes() -> None:
    endpoint = after(starting(settings=pb.EndpointSettings(properties={"p": "1"})), live())

    fact = decide(an_update(properties=pb.Labels(values={"p": "2"})), endpoint)

    assert (fact.failure.code, fact.failure.target) == ("UserError", "p")


def test_other_models_code_or_limits_are_a_new_deployment_with_all_else_as_it_was() -> None:
    endpoint = after(starting(scoring=scoring(), limits=pb.Limits(cpu_cores=1), settings=pb.EndpointSettings(description="d")), live())

    models = decide(an_update(models=[reference(version=2)]), endpoint)
    code = decide(an_update(scoring=scoring("other.py")), endpoint)
    limits = decide(an_update(limits=pb.Limits(cpu_cores=4)), endpoint)

    assert (models.deployment, models.version, models.scoring, models.limits.cpu_cores) == (2, 2, scoring(), 1)
    assert (code.version, code.scoring.entry_script, code.settings.description) == (1, "other.py", "d")
    assert (limits.version, limits.scoring, limits.limits.cpu_cores) == (1, scoring(), 4)


def test_tls_is_kept_by_whatever_follows_until_somebody_ends_it() -> None:
    endpoint = after(decide(a_request(tls=TLS)), live(), starting(2, version=2, tls=OTHER_TLS), live(2))

    update = decide(an_update(models=[reference(version=1)]), endpoint)
    back = decide(a_roll_back(), endpoint)
    beside = decide(a_split(1), endpoint)
    ended = decide(an_update(tls=pb.Tls()), endpoint)
    anew = decide(a_request(overwrite=True), endpoint)

    assert update.tls == back.tls == beside.tls == OTHER_TLS
    assert isinstance(ended, pb.EndpointStarting) and not ended.HasField("tls")
    assert not anew.HasField("tls")


@pytest.mark.parametrize("endpoint", [None, after(starting(), live(), deleted())], ids=["never there", "deleted"])
@pytest.mark.parametrize("request_", [an_update(), a_roll_back()], ids=["update", "rollback"])
def test_what_is_not_there_cannot_be_changed(endpoint: Endpoint | None, request_: Any) -> None:
    assert decide(request_, endpoint).failure.code == "EndpointNotFound"


# -- rollback


def deployments(*versions: int) -> list[Any]:
    """Each was live in its turn."""
    return [fact for number, version in enumerate(versions, 1) for fact in (starting(number, version=version), live(number))]


def test_a_rollback_deploys_what_was_live_before_and_twice_goes_back_by_two() -> None:
    facts = deployments(1, 2, 1)
    first = decide(a_roll_back(), after(*facts))
    second = decide(a_roll_back(), after(*facts, first, live(4)))
    third = decide(a_roll_back(), after(*facts, first, live(4), second, live(5)))

    assert (first.deployment, first.version, first.rolled_back_to) == (4, 2, 2)
    assert (second.deployment, second.version, second.rolled_back_to) == (5, 1, 1)
    assert third.failure.code == "NothingToRollBack"


def test_a_deployment_that_never_was_live_is_rolled_back_to_what_answers() -> None:
    fact = decide(a_roll_back(), after(*deployments(1), starting(2, version=2), failed(2)))

    assert (fact.deployment, fact.version) == (3, 1)


def test_a_rollback_may_name_a_deployment_that_was_live_and_no_other() -> None:
    endpoint = after(*deployments(1, 2, 2), starting(4, version=2), failed(4))

    assert decide(a_roll_back(deployment=1), endpoint).version == 1
    refused = decide(a_roll_back(deployment=4), endpoint)
    assert (refused.failure.code, "1 (mnist:1), 2 (mnist:2)" in refused.failure.message) == ("NothingToRollBack", True)


def test_what_the_registry_has_no_more_is_not_rolled_back_to() -> None:
    fact = decisions.decide(a_roll_back(), after(*deployments(1, 2)), known(TWO), NOW)

    assert fact.failure.code == "ModelNotFound"


# -- aliases


def test_an_alias_stands_for_the_version_that_it_points_at() -> None:
    fact = decide(a_request(version=0, alias="champion"), champion=2)

    assert (fact.version, fact.alias, fact.alias_version) == (2, "champion", 2)
    assert decide(a_request(version=0, alias="champion")).failure.code == "AliasNotFound"


def test_an_endpoint_follows_its_alias_once_for_each_move() -> None:
    endpoint = after(decide(a_request(version=0, alias="champion", scoring=scoring()), champion=1), live())

    (fact,) = follow_alias(endpoint, 2, NOW)
    followed = after(decide(a_request(version=0, alias="champion"), champion=1), live(), fact)

    assert isinstance(fact, pb.EndpointStarting)
    assert (fact.deployment, fact.version, fact.scoring) == (2, 2, scoring())
    assert follow_alias(endpoint, 1, NOW) == follow_alias(followed, 2, NOW) == []
    assert follow_alias(endpoint, 0, NOW) == follow_alias(after(starting(), live()), 2, NOW) == follow_alias(None, 2, NOW) == []
    assert follow_alias(after(fact, deleted()), 3, NOW) == []


def test_a_rollback_stays_until_the_alias_moves_again() -> None:
    first = decide(a_request(version=0, alias="champion"), champion=1)
    (second,) = follow_alias(after(first, live()), 2, NOW)
    back = decide(a_roll_back(), after(first, live(), second, live(2)))
    endpoint = after(first, live(), second, live(2), back, live(3))

    assert (back.version, back.alias) == (1, "champion")
    assert follow_alias(endpoint, 2, NOW) == []
    assert [fact.version for fact in follow_alias(endpoint, 3, NOW) if isinstance(fact, pb.EndpointStarting)] == [3]


# -- traffic between two deployments


def test_a_second_deployment_has_another_version_and_all_else_as_the_one_that_answers() -> None:
    endpoint = after(starting(scoring=scoring(), limits=pb.Limits(cpu_cores=1)), live())

    fact = decide(a_split(2, 25, sticky_by="x-user"), endpoint)
    with_it = after(starting(scoring=scoring()), live(), fact)

    assert (fact.deployment, fact.version, fact.scoring, fact.limits.cpu_cores) == (2, 2, scoring(), 1)
    assert (fact.beside.percent, fact.beside.sticky_by) == (25, "x-user")
    assert (with_it.latest.number, with_it.serving, state_of(with_it)) == (1, with_it.latest, pb.ENDPOINT_STATE_HEALTHY)
    assert [it.number for it in wanted(with_it)] == [1, 2]


def test_the_traffic_shifts_when_the_second_one_answers_and_then_at_once() -> None:
    facts = [starting(), live(), decide(a_split(2), after(starting(), live()))]

    loaded, up, shifted = conclude(after(*facts), came_up(2))
    facts += [loaded, up, shifted]
    more = decide(a_split(0, 50, "s6"), after(*facts))
    same = decide(a_split(2, 60, "s7"), after(*facts))

    assert (type(loaded), type(up), shifted.submission_id) == (pb.VersionLoaded, pb.EndpointLive, "s5")  # type: ignore[union-attr]
    assert (more.deployment, more.split.percent, same.deployment, same.split.percent) == (2, 50, 2, 60)
    endpoint = after(*facts, more)
    assert endpoint.second is not None
    assert (endpoint.second.up, endpoint.second.split.percent, endpoint.scoring_uri) == (True, 50, after(starting(), live()).scoring_uri)


@pytest.mark.parametrize(
    "fact",
    [pb.TrafficShifted(endpoint="digits"), failed(2), deleted(), failed(1)],
    ids=["ended", "it failed", "deleted", "the first one failed"],
)
def test_what_ends_the_second_deployment(fact: Any) -> None:
    endpoint = after(starting(), live(), decide(a_split(2), after(starting(), live())), live(2), fact)

    assert endpoint.second is None
    assert [it.number for it in wanted(endpoint)] in ([1], [])


def test_a_new_deployment_ends_the_split_when_it_goes_live_and_numbers_go_on() -> None:
    facts = [starting(), live(), decide(a_split(2), after(starting(), live())), live(2)]
    third = decide(a_request("s8", overwrite=True), after(*facts))

    assert third.deployment == 3
    assert [it.number for it in wanted(after(*facts, third))] == [1, 2, 3]
    assert [it.number for it in wanted(after(*facts, third, live(3)))] == [3]


def test_the_second_one_may_go_down_and_come_back_alone() -> None:
    facts = [starting(), live(), decide(a_split(2), after(starting(), live())), live(2)]

    (down,) = conclude(after(*facts), went_down(2))
    (back,) = conclude(after(*facts, down), came_up(2))

    assert (down, type(back)) == (unhealthy(2), pb.EndpointLive)
    assert state_of(after(*facts, down)) == pb.ENDPOINT_STATE_HEALTHY


@pytest.mark.parametrize(
    ("request_", "facts", "code"),
    [
        (a_split(2), [starting()], "NothingToSplit"),
        (a_split(0), [starting(), live()], "NothingToSplit"),
        (a_split(9), [starting(), live()], "ModelNotFound"),
        (a_split(2, 101), [starting(), live()], "UserError"),
        (a_split(2, float("nan")), [starting(), live()], "UserError"),
        (a_split(2, sticky_by="X User"), [starting(), live()], "UserError"),
        (a_split(2), [starting(), live(), deleted()], "EndpointNotFound"),
    ],
)
def test_what_cannot_be_split_is_refused(request_: Any, facts: list[Any], code: str) -> None:
    assert decide(request_, after(*facts)).failure.code == code


# -- keys


def test_a_key_is_made_anew_as_often_as_asked_and_the_other_stays() -> None:
    endpoint = after(starting(), live())

    (first,) = decide_key(endpoint, pb.KEY_PRIMARY)
    again = after(starting(), live(), first)
    (second,) = decide_key(again, pb.KEY_PRIMARY)

    assert isinstance(first, pb.EndpointKeyRegenerated)
    assert after(starting(), live(), first, second, first).keys_made == (2, 0)
    assert decide_key(None, pb.KEY_PRIMARY) == decide_key(endpoint, pb.KEY_UNSPECIFIED) == decide_key(after(starting(), deleted()), 1) == []


def test_who_takes_a_deleted_endpoints_name_has_keys_and_settings_of_its_own() -> None:
    before = after(starting(settings=pb.EndpointSettings(description="old")), live(), deleted())

    again = evolve(before, starting(2))

    assert again is not None
    assert (again.born, again.keys_made, again.lived, again.settings.description) == (2, (0, 0), (), "")


@pytest.mark.parametrize(
    ("uri", "address"),
    [("http://[", ""), ("", "h:1"), ("http://h:70000/x", ""), ("ftp://h:1/x", ""), ("http://h:1/x", "h"), ("http://h:1/x", "a b:1")],
)
def test_an_address_that_is_none_leads_nowhere(uri: str, address: str) -> None:
    endpoint = after(starting(), live())

    assert evolve(endpoint, pb.EndpointLive(endpoint="digits", deployment=1, scoring_uri=uri, grpc_address=address)) == endpoint


def test_no_request_makes_an_endpoint_that_no_event_can_hold() -> None:
    endpoint = after(starting(), live())
    large = {f"p{number}": "x" * 1000 for number in range(50)}
    while (fact := decide(an_update(properties=pb.Labels(values=large)), endpoint)).DESCRIPTOR.name == "EndpointChanged":
        endpoint = evolve(endpoint, fact)
        assert endpoint is not None
        large = {f"{name}x": value for name, value in large.items()}

    assert (fact.failure.code, fact.failure.target) == ("UserError", "properties")
    assert "one event holds 1000000" in fact.failure.message


# -- the request log


def test_calls_are_sampled_as_the_deployment_says_and_as_it_is_changed_without_a_new_server() -> None:
    deployed = decide(a_request(sample_rate=0.25, unlisted=True))
    before = after(deployed, live())

    changed = decide(an_update(sample_rate=0.0), before)
    left = decide(an_update(tags=pb.Labels(values={"a": "b"})), before)

    assert (before.settings.sample_rate, before.settings.unlisted) == (0.25, True)
    assert (type(changed), changed.settings.sample_rate, changed.settings.unlisted) == (pb.EndpointChanged, 0.0, True)
    assert left.settings.sample_rate == 0.25
    assert after(deployed, live(), changed).settings.sample_rate == 0.0


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    before = after(starting(), live())

    assert decide(a_request(sample_rate=rate)).failure.target == "sample_rate"
    assert decide(an_update(sample_rate=rate), before).failure.target == "sample_rate"
