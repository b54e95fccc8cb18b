"""Environments as runs have them: named, user-managed, of conda's words, of TensorFlow 1; commands; this machine as a target; azureml's names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from examples.mnist import make_digits
from services.chassis.environments import definition
from tests.system.platform import Platform
from trainyard import (
    ActivityFailedException,
    CondaDependencies,
    Dataset,
    Environment,
    Experiment,
    ScriptRunConfig,
    TensorFlow,
    TrainingException,
)
from trainyard._environment_cache import cached, default_cache, prune
from trainyard.job.v1 import job_pb2

SCRIPTS = Path(__file__).parent / "scripts"
REPO = Path(__file__).resolve().parents[2]


def warnings_of(platform: Platform, run_id: str) -> list[str]:
    return list(platform.jobs.GetRun(job_pb2.GetRunRequest(run_id=run_id), timeout=60).run.warnings)


def driver_log(run: object, folder: Path) -> str:
    run.download_file("azureml-logs/70_driver_log.txt", str(folder / "log.txt"))  # type: ignore[attr-defined]
    return (folder / "log.txt").read_text()


def test_unedited_session_code_of_tensorflow_1_trains_and_leaves_a_checkpoint_and_a_saved_model(
    platform: Platform, tmp_path: Path, files_over_http: tuple[Path, str]
) -> None:
    platform.pool("tf1")
    served, base = files_over_http
    make_digits.make(served)
    (tmp_path / "code").mkdir()
    shutil.copy(SCRIPTS / "tf1_mnist.py", tmp_path / "code")
    digits = Dataset.File.from_files([f"{base}/{name}" for name in make_digits.NAMES])

    estimator = TensorFlow(
        tmp_path / "code", entry_script="tf1_mnist.py", compute_target="tf1", framework_version="1.13",
        script_params={"--data-folder": digits.as_named_input("mnist").as_mount(), "--learning-rate": 0.05},
    )  # fmt: skip
    run = Experiment(platform.workspace, "tf1").submit(estimator)
    run.wait_for_completion()

    assert run.get_metrics("final_acc")["final_acc"] >= 0.85
    assert {"outputs/model/checkpoint", "outputs/model/mnist-tf.model.index", "outputs/saved_model/saved_model.pb"} <= set(
        run.get_file_names()
    )


def test_local_and_none_are_this_machine_and_a_registered_environment_is_built_there(platform: Platform, tmp_path: Path) -> None:
    environment = Environment(f"env-{uuid.uuid4().hex[:8]}")
    environment.python.conda_dependencies = CondaDependencies.create(pip_packages=["six==1.17.0"])
    environment.environment_variables["GREETING"] = "hello"
    environment.register(platform.workspace)
    found = platform.workspace.environments[environment.name]
    (tmp_path / "train.py").write_text("import os, six, sys\nprint(six.__version__, os.environ['GREETING'], sys.argv[1:])\n")
    experiment = Experiment(platform.workspace, "local")

    for target in (None, "local"):
        run = experiment.submit(ScriptRunConfig(tmp_path, "train.py", ["--rate", 0.1], compute_target=target, environment=found))
        run.wait_for_completion()
        assert driver_log(run, tmp_path) == "1.17.0 hello ['--rate', '0.1']\n"

    details = run.get_details()
    assert (details["target"], found.version) == ("local", "1")


def test_a_command_runs_without_a_shell_with_its_variables_and_inputs_filled_in(
    platform: Platform, tmp_path: Path, files_over_http: tuple[Path, str]
) -> None:
    served, base = files_over_http
    (served / "a.txt").write_text("A")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "show.py").write_text("import sys\nprint(open(sys.argv[1]).read(), sys.argv[2:])\n")
    data = Dataset.File.from_files(f"{base}/a.txt").as_named_input("data").as_mount()
    environment = Environment("variables")
    environment.environment_variables["GREETING"] = "two words"

    config = ScriptRunConfig(
        tmp_path / "code", command=["python", "show.py", data, "$GREETING", "$(id)", "$NOBODY"], environment=environment
    )
    run = Experiment(platform.workspace, "command").submit(config)
    run.wait_for_completion()

    assert driver_log(run, tmp_path) == "A ['two words', '$(id)', '$NOBODY']\n"


def test_a_command_that_does_not_exist_is_named(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()

    run = Experiment(platform.workspace, "command").submit(ScriptRunConfig(tmp_path / "code", command=["no-such-program"]))
    with pytest.raises(ActivityFailedException, match="no-such-program cannot be started") as caught:
        run.wait_for_completion()

    assert caught.value.code == "ScriptNotStarted"


def test_a_python_of_the_users_own_runs_the_script_and_nothing_is_built(platform: Platform, tmp_path: Path) -> None:
    environment = Environment("own")
    environment.python.user_managed_dependencies = True
    (tmp_path / "train.py").write_text("import sys\nfrom azureml.core import Run\nRun.get_context().log('a', 1)\nprint(sys.prefix)\n")

    run = Experiment(platform.workspace, "own").submit(ScriptRunConfig(tmp_path, "train.py", environment=environment))
    run.wait_for_completion()

    assert driver_log(run, tmp_path) == f"{sys.prefix}\n"
    assert run.get_metrics() == {"a": 1.0}
    assert "azureml-logs/20_image_build_log.txt" not in run.get_file_names()


@pytest.mark.skipif(any(map(shutil.which, ("micromamba", "mamba", "conda"))), reason="this machine has a conda")
def test_conda_packages_come_from_the_index_with_a_warning_and_others_are_named(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import six\nprint(six.__version__)\n")
    environment = Environment("conda")
    environment.python.conda_dependencies = CondaDependencies.create(conda_packages=["python=3.6.2", "six=1.17"])

    run = Experiment(platform.workspace, "conda").submit(ScriptRunConfig(tmp_path, "train.py", environment=environment))
    run.wait_for_completion()
    told = warnings_of(platform, run.id)
    environment.python.conda_dependencies.add_conda_package("cudatoolkit=10.0")
    refused = Experiment(platform.workspace, "conda").submit(ScriptRunConfig(tmp_path, "train.py", environment=environment))
    with pytest.raises(ActivityFailedException, match="cudatoolkit") as caught:
        refused.wait_for_completion()

    assert driver_log(run, tmp_path) == "1.17.0\n"
    assert any("Python 3.6.2 was asked for" in warning for warning in told)
    assert any("six=1.17 of the conda specification came from the package index as six==1.17.*" in warning for warning in told)
    assert (caught.value.code, caught.value.target) == ("UserError", "cudatoolkit")


def test_a_walk_through_with_azuremls_imports_runs_from_workspace_to_model(
    platform: Platform, tmp_path: Path, files_over_http: tuple[Path, str]
) -> None:
    served, base = files_over_http
    make_digits.make(served)
    (tmp_path / "tf-mnist").mkdir()
    shutil.copy(SCRIPTS / "azureml_train.py", tmp_path / "tf-mnist")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPO / "sdk"), str(REPO / "sdk" / "azureml-alias")]),
        "TRAINYARD_CONFIG": str(platform.layout.config),
    }

    told = subprocess.run(
        [sys.executable, str(SCRIPTS / "azureml_walkthrough.py"), base],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert told.returncode == 0, told.stdout + told.stderr
    answer = json.loads(told.stdout.splitlines()[-1])
    assert answer["metrics"]["images"] == 1437.0
    assert answer["model"] == ["azureml-walkthrough", 1]
    assert answer["files"] == ["model.txt"]


def test_several_processes_are_refused_before_anything_is_sent(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print()\n")
    estimator = TensorFlow(tmp_path, entry_script="train.py", node_count=2, framework_version="2.2")

    with pytest.raises(TrainingException, match="several processes"):
        Experiment(platform.workspace, "distributed").submit(estimator)

    assert list(Experiment(platform.workspace, "distributed").get_runs()) == []


def test_an_environment_is_in_use_as_long_as_its_run_goes_on(platform: Platform, tmp_path: Path) -> None:
    platform.pool("holding")
    go = tmp_path / "go"
    script = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)\n"
    environment_id = definition("none", "", ["six==1.17.0", "idna"]).id

    def in_use() -> bool:
        return any(it.id == environment_id and it.in_use for it in cached(default_cache()))

    run = platform.submit(tmp_path / "code", script, "holding", pip_packages=["six==1.17.0", "idna"])
    platform.until_status(run.id, "RUNNING")
    _, kept = prune(default_cache(), unused_since=datetime.now(UTC), ids=[environment_id])
    assert in_use()
    assert [it.id for it in kept] == [environment_id]

    go.touch()
    run.wait_for_completion()
    assert not in_use()


def trainyard_env(platform: Platform, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from trainyard._cli import app; app()", "env", *words]
    return subprocess.run(
        [*command, "--config", str(platform.layout.home)], cwd=REPO / "sdk", capture_output=True, text=True, timeout=300, check=False
    )


def test_an_environment_that_was_built_beforehand_is_found_by_the_run_that_needs_it(platform: Platform, tmp_path: Path) -> None:
    name = f"prebuilt-{uuid.uuid4().hex[:8]}"
    environment = Environment(name)
    # A wish that nothing else has: nobody has built it before.
    unique = f"idna!=0.{uuid.uuid4().int % 10**8}"
    environment.python.conda_dependencies = CondaDependencies.create(pip_packages=["six==1.16.0", unique])
    environment.register(platform.workspace)
    (tmp_path / "train.py").write_text("import six\nprint(six.__version__)\n")

    built = trainyard_env(platform, "prebuild", name)
    listed = trainyard_env(platform, "list", "--registered", "--contains", name, "--json")
    run = Experiment(platform.workspace, "prebuilt").submit(ScriptRunConfig(tmp_path, "train.py", environment=environment))
    run.wait_for_completion()

    assert built.returncode == 0, built.stdout + built.stderr
    assert "Streaming azureml-logs/20_image_build_log.txt" in built.stdout
    assert "Building environment" in built.stdout
    assert [json.loads(line)["version"] for line in listed.stdout.splitlines()] == [1]
    assert driver_log(run, tmp_path) == "1.16.0\n"
    assert "azureml-logs/20_image_build_log.txt" not in run.get_file_names()
    (kept,) = [it for it in cached(default_cache()) if unique in it.requirements]
    removed, _ = prune(default_cache(), unused_since=datetime.now(UTC), ids=[kept.id])
    assert [it.id for it in removed] == [kept.id]
