"""Endpoints from the client's side: what is asked of the serving service, and what is refused before."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tests.unit.client.platform import Platform
from trainyard import (
    AciWebservice,
    CondaDependencies,
    Environment,
    InferenceConfig,
    LocalWebservice,
    Model,
    ResourceConfiguration,
    UserErrorException,
    Webservice,
    WebserviceException,
    Workspace,
)
from trainyard._cli import app
from trainyard._replay.target import Target
from trainyard.endpoint.v1 import endpoint_pb2


@pytest.fixture
def models(platform: Platform, tmp_path: Path) -> list[Model]:
    path = tmp_path / "weights"
    path.write_bytes(b"w")
    wish = ResourceConfiguration(cpu=2, memory_in_gb=1)
    return [
        Model.register(platform.workspace(), path, name, show_progress=False, resource_configuration=wish) for name in ("digits", "words")
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    (folder / "helper.py").write_text("")
    return folder


def deploy(platform: Platform, models: Any, *more: Any, **options: Any) -> Webservice:
    return Model.deploy(platform.workspace(), "scorer", models, *more, **options)


def asked(platform: Platform) -> Any:
    return platform.last(endpoint_pb2.DeployEndpoint)


def test_a_script_goes_with_its_folder_and_its_environment(platform: Platform, models: list[Model], source: Path) -> None:
    environment = Environment("scoring")
    environment.python.conda_dependencies = CondaDependencies.create(pip_packages=["joblib"])
    environment.environment_variables = {"A": "1"}

    deploy(platform, models, InferenceConfig(entry_script="score.py", source_directory=str(source), environment=environment))

    request = asked(platform)
    assert (request.model, [it.model for it in request.more_models]) == ("digits", ["words"])
    assert request.scoring.entry_script == "score.py"
    assert [file.path for file in request.scoring.source.snapshot.files] == ["helper.py", "score.py"]
    assert (list(request.scoring.environment.pip_packages), dict(request.scoring.environment.environment_variables)) == (
        ["joblib"],
        {"A": "1"},
    )
    sent = {f"snapshots/blobs/{file.sha256}" for file in request.scoring.source.snapshot.files}
    assert sent <= set(platform.objects.kept)


def test_a_long_source_is_named_and_not_listed_in_the_event(platform: Platform, models: list[Model], source: Path) -> None:
    for number in range(300):
        (source / f"{number}.txt").write_text("")

    deploy(platform, models[:1], InferenceConfig("score.py", source_directory=source))

    snapshot = asked(platform).scoring.source.snapshot
    assert (len(snapshot.files), snapshot.count) == (0, 302)
    assert snapshot.manifest_key in platform.objects.kept


def test_without_a_folder_the_script_goes_alone(platform: Platform, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source)

    deploy(platform, [], InferenceConfig("score.py"))

    assert list(asked(platform).scoring.source.inline.files) == ["score.py"]
    assert (asked(platform).model, asked(platform).scoring.environment.framework) == ("", "none")


def test_settings_are_asked_for_and_what_the_models_wish_is_left_to_the_service(platform: Platform, models: list[Model]) -> None:
    config = AciWebservice.deploy_configuration(memory_gb=4, tags={"team": "a"}, description="d", auth_enabled=True)

    service = deploy(platform, models[:1], deployment_config=config)

    request = asked(platform)
    assert (request.limits.cpu_cores, request.limits.memory_bytes) == (0, 4 << 30)
    assert (service.cpu_cores, service.memory_gb, service.auth_enabled, service.token_auth_enabled) == (2, 4, True, False)
    assert (service.tags, service.description, service.get_keys()) == ({"team": "a"}, "d", ("one", "two"))


def test_models_are_named_by_object_id_or_alias(platform: Platform, models: list[Model]) -> None:
    deploy(platform, ["digits@champion"])
    first = asked(platform)
    deploy(platform, ["digits:1"], overwrite=True)

    assert (first.model, first.version, first.alias) == ("digits", 0, "champion")
    assert (asked(platform).version, asked(platform).alias) == (1, "")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"models": []}, "exactly one model"),
        ({"models": ["digits"]}, "names no model version"),
        ({"models": ["@champion"]}, "names no model version"),
        ({"models": "digits:1"}, "list of Model"),
        ({"models": ["digits:1"], "inference_config": {}}, "is an InferenceConfig"),
        ({"models": ["digits:1"], "deployment_config": {}}, "no deployment configuration"),
        ({"models": ["digits:1"], "deployment_target": "aks"}, "deployment_target"),
        ({"models": ["digits:1"], "inference_config": InferenceConfig("nowhere.py")}, "is not in"),
    ],
)
def test_what_cannot_be_deployed_is_refused_before_anything_is_asked(platform: Platform, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(WebserviceException, match=words):
        Model.deploy(platform.workspace(), "scorer", **wrong)

    assert not [it for it in platform.asked if isinstance(it, endpoint_pb2.DeployEndpoint)]


@pytest.mark.parametrize("options", [{"cpu_cores": 0}, {"memory_gb": "1"}, {"ssl_enabled": True}, {"ssl_cname": "h"}, {"ssl_enabled": True, "ssl_cname": "h", "ssl_cert_pem_file": "a.pem"}, {"cmk_key_name": "k"}, {"primary_key": "k"}, {"auth_enabled": True, "token_auth_enabled": True}])  # fmt: skip
def test_settings_that_would_promise_what_is_not_there_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserErrorException):
        AciWebservice.deploy_configuration(**options)


def test_a_certificate_goes_into_the_request_and_its_key_to_the_serving_service_alone(
    platform: Platform, models: list[Model], tmp_path: Path
) -> None:
    certificate = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"
    (tmp_path / "both.pem").write_text(f"-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n{certificate}")
    tls = {"ssl_enabled": True, "ssl_cert_pem_file": str(tmp_path / "both.pem"), "ssl_key_pem_file": str(tmp_path / "both.pem")}

    deploy(platform, models[:1], deployment_config=AciWebservice.deploy_configuration(ssl_cname="h", **tls))

    assert platform.last(endpoint_pb2.DeployEndpoint).tls == endpoint_pb2.Tls(certificate_pem=certificate, cname="h")
    kept = platform.last(endpoint_pb2.KeepCertificateRequest)
    assert (kept.certificate_pem, "secret" in kept.key_pem, kept.cname) == (certificate, True, "h")
    with pytest.raises(UserErrorException, match="cannot be read as PEM"):
        deploy(
            platform, models[:1], deployment_config=AciWebservice.deploy_configuration(ssl_cname="h", **{**tls, "ssl_key_pem_file": "/no"})
        )


def test_options_of_azures_cloud_say_that_they_do_nothing() -> None:
    with pytest.warns(UserWarning, match="location has no effect"):
        AciWebservice.deploy_configuration(location="westeurope")
    with pytest.warns(UserWarning, match="port has no effect"):
        LocalWebservice.deploy_configuration(port=8890)
    with pytest.warns(UserWarning, match="base_image has no effect"):
        InferenceConfig("score.py", base_image="an/image")


def test_an_update_says_what_changes_and_no_more(platform: Platform, models: list[Model]) -> None:
    service = deploy(platform, models[:1], deployment_config=AciWebservice.deploy_configuration(tags={"a": "1", "b": "2"}))

    service.remove_tags(["a"])
    service.add_tags({"c": "3"})
    service.add_properties({"p": "1"})
    request = platform.last(endpoint_pb2.UpdateEndpoint)
    assert (request.HasField("tags"), request.HasField("limits"), request.HasField("description"), request.authentication) == (
        False,
        False,
        False,
        0,
    )
    assert (service.tags, service.properties) == ({"b": "2", "c": "3"}, {"p": "1"})
    service.update(models=["digits@champion"], memory_gb=8)
    request = platform.last(endpoint_pb2.UpdateEndpoint)
    assert (request.models[0].model, request.alias, request.limits.cpu_cores, request.limits.memory_bytes) == (
        "digits",
        "champion",
        0,
        8 << 30,
    )
    with pytest.raises(UserErrorException):
        service.update(ssl_enabled=True)
    with pytest.raises(WebserviceException, match="models is empty"):
        service.update(models=[])


def test_keys_tokens_and_rollback_are_asked_for(platform: Platform, models: list[Model]) -> None:
    service = deploy(platform, models[:1], deployment_config=AciWebservice.deploy_configuration(token_auth_enabled=True))

    service.regen_key("Primary")
    service.roll_back(3)

    assert platform.last(endpoint_pb2.RegenerateEndpointKey).key == endpoint_pb2.KEY_PRIMARY
    assert platform.last(endpoint_pb2.RollBackEndpoint).deployment == 3
    assert service.get_token() == ("signed", datetime.fromtimestamp(900, UTC))
    assert service.get_access_token().expiry_on == datetime.fromtimestamp(1000, UTC)
    for wrong in ({"key": "Third"}, {"key": "Primary", "set_key": "mine"}):
        with pytest.raises(WebserviceException):
            service.regen_key(**wrong)
    with pytest.raises(WebserviceException):
        service.roll_back(0)


class Sleeper:
    """An endpoint that sleeps behind a door, and where calls of it went: address and certificate."""

    def __init__(self, platform: Platform, monkeypatch: pytest.MonkeyPatch, port: int, certificate: str) -> None:
        def post(uri: str, verify: Any, **_: Any) -> Any:
            self.called.append((uri, verify))
            if self.falls_asleep:
                self.falls_asleep = False
                platform.endpoints["scorer"] = asleep
                raise httpx.ConnectError("refused")
            return httpx.Response(200, json={"predictions": []})

        def predict(address: str, model: str, inputs: Any, signature: str, timeout: float, headers: Any, certificate: str) -> Any:
            self.called.append((address, certificate))
            return {}

        monkeypatch.setattr(httpx, "post", post)
        monkeypatch.setattr("trainyard._endpoint_tls.trusting", lambda certificate: certificate)
        monkeypatch.setattr("trainyard._inference.predict", predict)
        self.called: list[tuple[str, str]] = []
        self.falls_asleep = False
        told: dict[str, Any] = {
            "endpoint": "scorer",
            "state": endpoint_pb2.ENDPOINT_STATE_HEALTHY,
            "tls": endpoint_pb2.Tls(certificate_pem=certificate, cname="127.0.0.1"),
            "door_scoring_uri": "http://door/endpoints/scorer/v1/models/digits:predict",
            "door_grpc_address": "door:1",
        }
        asleep = endpoint_pb2.Endpoint(**told, asleep=True)
        own = f"http{'s' if certificate else ''}://127.0.0.1:{port}/v1/models/digits:predict"
        platform.awake["scorer"] = endpoint_pb2.Endpoint(**told, scoring_uri=own, grpc_address="127.0.0.1:2")
        platform.endpoints["scorer"] = asleep


@pytest.fixture
def listening() -> Iterator[int]:
    """A port where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("awake_before", [False, True])
def test_key_and_body_of_an_endpoint_with_tls_that_sleeps_never_go_to_the_door(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, listening: int, awake_before: bool
) -> None:
    sleeper = Sleeper(platform, monkeypatch, listening, "its certificate")
    if awake_before:
        sleeper.falls_asleep = True
        platform.endpoints["scorer"] = platform.awake["scorer"]

    Webservice(platform.workspace(), "scorer").run("[]")
    Webservice(platform.workspace(), "scorer").predict({"x": [1.0]})

    own = (f"https://127.0.0.1:{listening}/v1/models/digits:predict", "its certificate")
    assert sleeper.called == [own] * (1 + awake_before) + [("127.0.0.1:2", "its certificate")]
    assert platform.last(endpoint_pb2.WakeEndpoint).endpoint == "scorer"


def test_predict_wakes_an_endpoint_with_tls_and_a_replay_does(platform: Platform, monkeypatch: pytest.MonkeyPatch, listening: int) -> None:
    sleeper = Sleeper(platform, monkeypatch, listening, "its certificate")
    asleep = platform.endpoints["scorer"]

    Webservice(platform.workspace(), "scorer").predict({"x": [1.0]})
    platform.endpoints["scorer"] = asleep
    service = Webservice(platform.workspace(), "scorer")
    monkeypatch.setattr("trainyard._replay.target.trusting", lambda _: True)
    with closing(Target(service)):
        assert not service.asleep

    assert sleeper.called == [("127.0.0.1:2", "its certificate")]


def test_without_tls_the_door_wakes_it(platform: Platform, monkeypatch: pytest.MonkeyPatch, listening: int) -> None:
    sleeper = Sleeper(platform, monkeypatch, listening, "")
    service = Webservice(platform.workspace(), "scorer")

    service.run("[]")
    service.predict({"x": [1.0]})

    assert sleeper.called == [("http://door/endpoints/scorer/v1/models/digits:predict", ""), ("door:1", "")]


def test_endpoints_are_listed_by_model_tags_and_properties(platform: Platform, models: list[Model], source: Path) -> None:
    workspace = platform.workspace()
    Model.deploy(workspace, "one", models[:1], deployment_config=AciWebservice.deploy_configuration(tags={"team": "a"}))
    Model.deploy(workspace, "both", models, InferenceConfig("score.py", source_directory=source))

    def names(**wanted: Any) -> list[str]:
        return [it.name for it in Webservice.list(workspace, **wanted)]

    assert names() == ["one", "both"]
    assert names(model_name="words") == names(model_id="words:1") == ["both"]
    assert names(tags={"team": "a"}) == names(tags=["team"]) == ["one"]
    assert names(model_id="words:2") == names(image_name="i") == names(properties={"p": "1"}) == []
    with pytest.raises(WebserviceException, match="there already"):
        Webservice.check_for_existing_webservice(workspace, "one")


def test_no_key_is_in_what_an_endpoint_shows(platform: Platform, models: list[Model]) -> None:
    service = deploy(platform, models[:1], deployment_config=AciWebservice.deploy_configuration(auth_enabled=True))

    shown = f"{service.serialize()} {service!r}"

    assert "'authEnabled': True" in shown
    assert not any(secret in shown.split("'") for secret in service.get_keys())


def test_the_command_line_deploys_with_code_changes_and_rolls_back(
    platform: Platform, models: list[Model], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source.parent / "config.json").write_text(json.dumps(platform.config()))
    monkeypatch.setenv("TRAINYARD_CONFIG", str(source.parent / "config.json"))
    monkeypatch.setattr(Workspace, "_objects", platform.objects)

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        return done.output

    run("model", "deploy", "digits@champion", "scorer", "--script", "score.py", "--source", str(source), "--auth", "key", "--tag", "a=1")
    assert (asked(platform).alias, asked(platform).authentication) == ("champion", endpoint_pb2.AUTHENTICATION_KEY)
    assert '"primary": "one"' in run("endpoint", "keys", "scorer", "--regenerate", "primary", "--json").replace('":"', '": "')
    run("endpoint", "update", "scorer", "--model", "digits:1", "--cpu-cores", "1.5", "--tag", "b=2")
    assert platform.last(endpoint_pb2.UpdateEndpoint).limits.cpu_cores == 1.5
    run("endpoint", "rollback", "scorer", "--to", "1")
    assert platform.last(endpoint_pb2.RollBackEndpoint).deployment == 1
    assert "scorer" in run("endpoint", "list", "--tag", "b=2", "--json")
    assert run("endpoint", "list", "--tag", "a=1", "--json") == ""


# -- the request log, and what became of an endpoint


@pytest.mark.parametrize(
    ("options", "rate"),
    [({}, 0), ({"collect_model_data": True}, 1), ({"collect_model_data": True, "sample_rate": 0.1}, 0.1), ({"sample_rate": 0.5}, 0.5)],
)
def test_the_rate_of_sampled_calls_goes_along(platform: Platform, models: list[Model], options: dict[str, Any], rate: float) -> None:
    service = deploy(platform, models[:1], deployment_config=AciWebservice.deploy_configuration(**options))

    assert (asked(platform).sample_rate, service.sample_rate, service.serialize()["sampleRate"]) == (rate, rate, rate)


def test_the_rate_is_changed_alone_and_0_is_not_nothing(platform: Platform, models: list[Model]) -> None:
    service = deploy(platform, models[:1], deployment_config=AciWebservice.deploy_configuration(sample_rate=0.5))

    service.update(tags={"a": "b"})
    assert not platform.last(endpoint_pb2.UpdateEndpoint).HasField("sample_rate")
    service.update(collect_model_data=False)

    request = platform.last(endpoint_pb2.UpdateEndpoint)
    assert (request.HasField("sample_rate"), request.HasField("limits"), service.sample_rate) == (True, False, 0)


@pytest.mark.parametrize(
    "options",
    [{"sample_rate": 2}, {"sample_rate": -1}, {"sample_rate": "1"}, {"sample_rate": True}, {"sample_rate": 0.5, "collect_model_data": False}, {"sample_rate": 0, "collect_model_data": True}],
)  # fmt: skip
def test_rates_that_are_none_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserErrorException):
        AciWebservice.deploy_configuration(**options)


def test_the_command_tells_what_became_of_endpoints(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps(platform.config()))
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0) -> list[Any]:
        done = CliRunner().invoke(app, ["endpoint", *words, "--json"])
        assert done.exit_code == code, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    (told,) = run("history", "digits")
    (then,) = run("show", "digits", "--as-of", "1h")
    there = run("list", "--as-of", "1h")

    assert [it["what"] for it in told["turns"]] == ["EndpointStarting", "EndpointLive"]
    assert [(it["model"], it["until"] is None) for it in told["services"]] == [("digits:1", False), ("digits:2", True)]
    assert ([it["model"] for it in then["services"]], then["last"]["what"]) == (["digits:2"], "EndpointLive")
    assert [(it["name"], it["model"], it["deployment"]) for it in there] == [("digits", "digits:2", "2"), ("words", "digits:2", "2")]
    run("list", "--as-of", "1h", "--model", "digits", code=2)


@pytest.mark.parametrize(
    "words",
    [[], ["--against", "m:1", "--endpoint", "other"], ["--against", "m:1", "--tolerance", "-1"], ["--against", "m:1", "--since", "yesterday"], ["--against", "m:1", "--tolerance", "nan"]],
)  # fmt: skip
def test_a_replay_that_is_none_is_refused_before_anything_is_asked(platform: Platform, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(platform.config()))

    done = CliRunner().invoke(app, ["endpoint", "replay", "digits", *words, "--config", str(tmp_path)])

    assert done.exit_code == 2, done.output
    assert platform.asked == []


# -- the older way


def test_a_script_is_named_and_deployed_the_older_way(
    platform: Platform, models: list[Model], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainyard._container_image import ContainerImage

    monkeypatch.chdir(source)
    (source / "parts").mkdir()
    (source / "parts" / "a.txt").write_text("a")
    with pytest.warns(UserWarning, match="docker_file has no effect"):
        config = ContainerImage.image_configuration("score.py", "python", dependencies=["helper.py", "parts"], docker_file="x")

    service = Webservice.deploy_from_model(platform.workspace(), "older", models[:1], config)
    local = Webservice.deploy_local_from_model(platform.workspace(), "local", models[:1], config, wait=True)

    assert (service.name, local.state, asked(platform).overwrite) == ("older", "Healthy", True)
    assert sorted(asked(platform).scoring.source.inline.files) == ["helper.py", "parts/a.txt", "score.py"]


@pytest.mark.parametrize("given", ["../elsewhere", "/etc/passwd", "nowhere.py"])
def test_what_goes_with_a_script_lies_below_the_working_directory(
    platform: Platform, models: list[Model], source: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    from trainyard._container_image import ContainerImage

    monkeypatch.chdir(source)

    with pytest.raises(UserErrorException, match="below the working directory"):
        Webservice.deploy_from_model(
            platform.workspace(), "older", models[:1], ContainerImage.image_configuration("score.py", dependencies=[given])
        )
