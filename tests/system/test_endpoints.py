"""A registered model behind a script of the user's, from the SDK and the command line to the answer, on the whole platform."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.platform import Platform
from trainyard import (
    AciWebservice,
    CondaDependencies,
    Environment,
    InferenceConfig,
    Model,
    TrainyardException,
    Webservice,
    WebserviceException,
)

SCORE = """
import json, os, six
def init():
    global greeting
    with open(os.path.join(os.environ['AZUREML_MODEL_DIR'], 'weights', 'greeting.txt')) as file:
        greeting = file.read()
def run(raw_data):
    return {'answer': f"{greeting} {json.loads(raw_data)['name']}", 'six': six.__name__}
"""


def test_a_model_is_registered_deployed_with_code_called_changed_and_rolled_back(platform: Platform, tmp_path: Path) -> None:
    space = platform.workspace
    weights, source = tmp_path / "weights", tmp_path / "source"
    weights.mkdir()
    source.mkdir()
    (source / "score.py").write_text(SCORE)
    for word in ("hello", "goodbye"):
        (weights / "greeting.txt").write_text(word)
        Model.register(space, weights, "greeting", show_progress=False)
    environment = Environment("scoring")
    environment.python.conda_dependencies = CondaDependencies.create(pip_packages=["six==1.17.0"])
    code = InferenceConfig("score.py", source_directory=source, environment=environment)
    config = AciWebservice.deploy_configuration(cpu_cores=1, memory_gb=1, auth_enabled=True, tags={"team": "greeters"})

    service = Model.deploy(space, "greeter", [Model(space, "greeting", version=1)], code, config)
    service.wait_for_deployment()
    first = service.run({"name": "you"})
    service.update(models=[Model(space, "greeting", version=2)])
    service.wait_for_deployment()
    platform.until(lambda: service.run({"name": "you"})["answer"] == "goodbye you", "the second version answers")
    command = [sys.executable, "-m", "trainyard", "endpoint", "rollback", "greeter", "--wait", "--config", str(platform.layout.home)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)

    assert first == {"answer": "hello you", "six": "six"}
    platform.until(lambda: service.run({"name": "you"})["answer"] == "hello you", "the first version answers again")
    assert httpx.post(service.scoring_uri, json={"name": "you"}).status_code == 401
    assert [it.name for it in Webservice.list(space, model_name="greeting", tags={"team": "greeters"})] == ["greeter"]
    platform.kill_and_wait("serving")
    platform.until(lambda: Webservice(space, "greeter").state == "Healthy", "the endpoint is back")
    assert Webservice(space, "greeter").run({"name": "you"})["answer"] == "hello you"
    service.delete()
    with pytest.raises(WebserviceException):
        Webservice(space, "greeter")


def test_an_endpoint_follows_the_alias_that_the_registry_moves_and_its_version_cannot_be_deleted(
    platform: Platform, tmp_path: Path
) -> None:
    space = platform.workspace
    (tmp_path / "score.py").write_text(
        "import os\ndef init(): pass\ndef run(data): return open(os.path.join(os.environ['AZUREML_MODEL_DIR'], 'word.txt')).read()\n"
    )
    versions = []
    for word in ("first", "second"):
        (tmp_path / "word.txt").write_text(word)
        versions.append(Model.register(space, tmp_path / "word.txt", "word", show_progress=False))
    versions[0].set_alias("champion")

    service = Model.deploy(space, "speaker", ["word@champion"], InferenceConfig(str(tmp_path / "score.py")))
    service.wait_for_deployment()
    assert service.run("") == "first"
    with pytest.raises(TrainyardException) as used:
        versions[0].delete()
    versions[1].set_alias("champion")

    platform.until(lambda: service.run("") == "second", "the endpoint follows")
    assert used.value.code == "ModelInUse"
    service.update_deployment_state()
    assert (service.model_id, service._message.alias) == ("word:2", "champion")
    service.roll_back()  # to what nobody could delete
    platform.until(lambda: service.run("") == "first", "the first version is back")
    service.delete()


def test_sampled_calls_are_replayed_against_another_version_by_the_command(platform: Platform, tmp_path: Path) -> None:
    space = platform.workspace
    (tmp_path / "score.py").write_text(
        "import json, os\ndef init(): pass\n"
        "def run(data): return {'sum': json.loads(data)['x'] + float(open(os.path.join(os.environ['AZUREML_MODEL_DIR'], 'w.txt')).read())}\n"
    )
    for weight in ("1.0", "1.0000000001", "2.0"):
        (tmp_path / "w.txt").write_text(weight)
        Model.register(space, tmp_path / "w.txt", "adder", show_progress=False)
    config = AciWebservice.deploy_configuration(collect_model_data=True)
    service = Model.deploy(space, "adding", ["adder:1"], InferenceConfig(str(tmp_path / "score.py")), config)
    service.wait_for_deployment()
    for number in range(3):
        service.run({"x": number})
    platform.until(
        lambda: sum(it.key == "adding" for it in platform.log.events("trainyard.inference")) == 3, "the calls are in the request log"
    )

    def replayed(against: str) -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "trainyard", "endpoint", "replay", "adding", "--since", "1h", "--against", against, "--json"]
        done = subprocess.run([*command, "--config", str(platform.layout.home)], capture_output=True, text=True, timeout=180)
        return done.returncode, json.loads(done.stdout)

    code, nearly = replayed("adder:2")
    other_code, other = replayed("adder:3")

    assert (code, nearly["samples"], nearly["within_tolerance"], nearly["differing"]) == (0, 3, 3, 0)
    assert (other_code, other["differing"], other["largest"]["where"]) == (6, 3, "sum")
    assert other["examples"][0]["before"] == "1.0"
    assert not [it.name for it in Webservice.list(space) if it.name.startswith("replay-")]


def _hears_sigint() -> None:
    """Whoever runs the tests in the background has children that do not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_replay_that_is_interrupted_leaves_no_endpoint_behind(platform: Platform, tmp_path: Path, number: signal.Signals) -> None:
    space, name = platform.workspace, f"broken-off-{number.name.lower()}"
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    (tmp_path / "w.txt").write_text("1")
    Model.register(space, tmp_path / "w.txt", name, show_progress=False)
    config = AciWebservice.deploy_configuration(sample_rate=1)
    service = Model.deploy(space, name, [f"{name}:1"], InferenceConfig(str(tmp_path / "score.py")), config)
    service.wait_for_deployment()
    service.run("x")
    platform.until(lambda: any(it.key == name for it in platform.log.events("trainyard.inference")), "the call is in the request log")

    def standing_in() -> list[str]:
        return [it.name for it in Webservice.list(space) if it.tags.get("replay-of") == name]

    command = [sys.executable, "-m", "trainyard", "endpoint", "replay", name, "--against", f"{name}:1", "--config"]
    with subprocess.Popen(
        [*command, str(platform.layout.home)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_hears_sigint
    ) as replay:
        platform.until(standing_in, "a version stands in")
        replay.send_signal(number)
        code = replay.wait(60)

    assert code == 130
    assert standing_in() == []
