"""TLS on endpoints' own addresses: the serving service as a process, with real certificates."""

from __future__ import annotations

import shutil
import ssl
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.component.service_process import ServiceProcess
from tests.component.serving.calls import TOPIC, a_name, history, kinds, until
from tests.component.serving.certificates import Authority, Certificate
from tests.component.serving.conftest import Registry
from tests.component.serving.test_service import _Through
from tests.component.serving.test_service_code import live
from tests.component.topic_log import TopicLog
from trainyard._deployment_configuration import DeploymentConfiguration
from trainyard._errors import WebserviceException
from trainyard._inference import predict
from trainyard._inference_config import InferenceConfig
from trainyard._model import Model
from trainyard._objects import MinioObjects
from trainyard._webservice import Webservice
from trainyard._webservice_kinds import AciWebservice

pytestmark = [
    pytest.mark.component,
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates"),
]
ONE = {"instances": [1.0]}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.signed("server")


@pytest.fixture(scope="module")
def space(service: ServiceProcess, objects: MinioObjects) -> Any:
    return SimpleNamespace(_clients=_Through(service.channel), _objects=objects)


@pytest.fixture
def model(registry: Registry, models: Path) -> str:
    name = a_name("tls")
    registry.register(name, 1, models / "half" / "model")
    registry.register(name, 2, models / "half-3" / "model")
    return name


def secured(made: Certificate, cname: str = "localhost", **more: Any) -> DeploymentConfiguration:
    return AciWebservice.deploy_configuration(
        ssl_enabled=True, ssl_cert_pem_file=str(made.certificate), ssl_key_pem_file=str(made.key), ssl_cname=cname, **more
    )


def test_a_model_answers_over_tls_for_callers_who_trust_its_authority_its_owner_and_the_door(
    space: Any, model: str, authority: Authority, certificate: Certificate, topic_log: TopicLog, service: ServiceProcess
) -> None:
    name = a_name("tls")
    found = live(Model.deploy(space, name, [f"{model}:1"], deployment_config=secured(certificate)))
    trusting = ssl.create_default_context(cafile=str(authority.certificate))

    assert found.scoring_uri.startswith("https://localhost:") and found.ssl_enabled
    assert httpx.post(found.scoring_uri, json=ONE, verify=trusting).json() == {"predictions": [2.5]}
    assert predict(found.grpc_address, model, {"x": [1.0]}, "", 30, None, authority.certificate.read_text())["y"].tolist() == [2.5]
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.post(found.scoring_uri, json=ONE)
    with pytest.raises(httpx.HTTPError):
        httpx.post(found.scoring_uri.replace("https:", "http:"), json=ONE)
    assert found.run(ONE) == {"predictions": [2.5]}
    assert found.predict({"x": [1.0]})["y"].tolist() == [2.5]
    until(lambda: httpx.post(found.door_scoring_uri, json=ONE).status_code == 200, "the door's knowledge of the endpoint")
    assert httpx.post(found.door_scoring_uri, json=ONE).json() == {"predictions": [2.5]}
    assert predict(found.door_grpc_address, model, {"x": [1.0]}, "", 30)["y"].tolist() == [2.5]

    found.update(models=[f"{model}:2"])
    live(found)
    assert found.scoring_uri.startswith("https:")
    until(lambda: found.run(ONE) == {"predictions": [3.5]}, "the new version, once the old one has drained")
    found.update(ssl_enabled=False)
    live(found)
    assert (found.run(ONE), found.scoring_uri.partition(":")[0]) == ({"predictions": [3.5]}, "http")
    _nowhere(certificate, topic_log, service)


def _nowhere(certificate: Certificate, topic_log: TopicLog, service: ServiceProcess) -> None:
    """The key is in files for their owner alone, and in nothing else."""
    secret = certificate.key.read_text().splitlines()[1].encode()
    assert not [it for it in topic_log.events(TOPIC) if secret in it.message.SerializeToString()]
    holding = [path for path in service.home.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert {path.suffix for path in holding} == {".pem", ".sslconfig"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in holding} == {0o700}


def test_code_answers_over_tls_sleeps_when_nobody_calls_and_the_door_wakes_it(
    space: Any, authority: Authority, certificate: Certificate, topic_log: TopicLog, tmp_path: Path
) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data.upper()\n")
    name = a_name("tls-code")
    settings = secured(certificate, idle_seconds=5)
    found = live(Model.deploy(space, name, [], InferenceConfig(str(tmp_path / "score.py")), settings))
    trusting = ssl.create_default_context(cafile=str(authority.certificate))

    with httpx.Client(verify=trusting) as client:
        answers = [client.post(found.scoring_uri, content="x").json() for _ in range(3)]
    with pytest.raises(httpx.HTTPError):
        httpx.post(found.scoring_uri.replace("https:", "http:"), content="x")
    until(lambda: "EndpointSlept" in kinds(history(topic_log, name)), "sleep")

    assert answers == ["X"] * 3
    assert found.run("y") == "Y"


def test_what_is_no_certificate_for_that_name_is_refused_before_anything_is_deployed(
    space: Any, model: str, authority: Authority, certificate: Certificate, tmp_path: Path
) -> None:
    other = authority.signed("other")
    mixed = Certificate(other.key, certificate.certificate)
    garbled = tmp_path / "garbled.pem"
    garbled.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    cases = {
        "its key is another one's": secured(mixed),
        "not for callers of elsewhere.example": secured(certificate, "elsewhere.example"),
        "one of them is no PEM": secured(Certificate(certificate.key, garbled)),
        "The PEM text has no certificate": secured(Certificate(certificate.key, certificate.key)),
        "is no host name": secured(certificate, "a b"),
    }

    for told, settings in cases.items():
        with pytest.raises(WebserviceException, match=told):
            Model.deploy(space, a_name("refused"), [f"{model}:1"], deployment_config=settings)

    assert not [it for it in Webservice.list(space) if it.name.startswith("refused-")]


def test_a_key_that_is_lost_is_told_and_given_again(space: Any, model: str, certificate: Certificate, service: ServiceProcess) -> None:
    name = a_name("lost")
    live(Model.deploy(space, name, [f"{model}:1"], deployment_config=secured(certificate)))
    for path in (service.home / "tls").iterdir():
        path.unlink()

    found = Webservice(space, name)
    found.update(models=[f"{model}:2"])
    with pytest.raises(WebserviceException, match="The key of the certificate for localhost is not kept here"):
        found.wait_for_deployment()
    assert found.run(ONE) == {"predictions": [2.5]}

    found.update(models=[f"{model}:2"], deployment_config=secured(certificate))
    live(found)
    until(lambda: found.run(ONE) == {"predictions": [3.5]}, "the new version, once the old one has drained")
