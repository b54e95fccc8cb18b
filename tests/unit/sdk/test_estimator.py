import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainyard import (
    CondaDependencies,
    Dataset,
    Environment,
    Estimator,
    TensorFlow,
    TrainingException,
    UserErrorException,
)
from trainyard._arguments import flatten
from trainyard._details import details
from trainyard.history.v1.history_pb2 import RunView
from trainyard.job.v1.job_pb2 import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print('hello')\n")
    return tmp_path


def an_estimator(folder: Path, **options: Any) -> Estimator:
    return Estimator(str(folder), **{"entry_script": "train.py", "compute_target": "pool", **options})


def test_script_params_become_argv_in_order_and_an_empty_value_makes_a_bare_flag() -> None:
    digits = Dataset.File.from_files("http://host:8/a.gz").as_named_input("digits").as_mount()

    made = flatten({"--data": digits, "--rate": 0.01, "--verbose": "", "--size": 50, "--zero": 0})

    assert made.words == [
        (False, "--data"), (True, "digits"), (False, "--rate"), (False, "0.01"), (False, "--verbose"), (False, "--size"), (False, "50"),
        (False, "--zero"), (False, "0"),
    ]  # fmt: skip
    assert list(made.inputs.values()) == [digits]


def test_an_input_carries_its_files_by_value(folder: Path) -> None:
    digits = Dataset.File.from_files(["http://host:8/deep/a%20b.gz"]).as_named_input("digits").as_download()

    spec = an_estimator(folder, script_params={"--data": digits})._to_spec()

    (item,) = spec.inputs
    assert (item.name, item.mode, item.files[0].path) == ("digits", item.MODE_DOWNLOAD, "http/host:8/deep/a b.gz")
    assert [argument.WhichOneof("value") for argument in spec.arguments] == ["text", "input"]


def test_two_different_inputs_of_one_name_are_refused(folder: Path) -> None:
    one = Dataset.File.from_files("http://host/a").as_named_input("data").as_mount()
    other = Dataset.File.from_files("http://host/b").as_named_input("data").as_mount()

    with pytest.raises(UserErrorException, match="'data'"):
        an_estimator(folder, script_params={"--a": one, "--b": other})._to_spec()


def test_a_missing_entry_script_is_named_with_what_is_there(folder: Path) -> None:
    with pytest.raises(UserErrorException, match=r"'mnist\.py'.*train\.py") as caught:
        an_estimator(folder, entry_script="mnist.py")

    assert caught.value.target == "mnist.py"


def test_an_entry_script_outside_the_folder_is_refused(folder: Path) -> None:
    with pytest.raises(UserErrorException, match="inside"):
        an_estimator(folder, entry_script="../train.py")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("vm_size", "STANDARD_NC6"),
        ("vm_priority", "lowpriority"),
        ("custom_docker_image", "me/mine:1"),
        ("image_registry_details", object()),
        ("distributed_backend", "gloo"),
    ],
)
def test_what_cannot_be_given_says_what_to_do_instead(folder: Path, option: str, value: Any) -> None:
    with pytest.raises(TrainingException) as caught:
        an_estimator(folder, **{option: value})

    assert caught.value.target == option


@pytest.mark.parametrize(("option", "value"), [("shm_size", "2g"), ("source_directory_data_store", object())])
def test_what_has_no_effect_is_told(folder: Path, option: str, value: Any) -> None:
    with pytest.warns(UserWarning, match=f"{option} has no effect") as told:
        Estimator(str(folder), entry_script="train.py", **{option: value})

    assert told[0].filename == __file__


def test_no_compute_target_and_local_are_this_machine(folder: Path) -> None:
    assert an_estimator(folder, compute_target=None)._to_spec().compute_target == "local"
    assert an_estimator(folder, compute_target="local")._to_spec().compute_target == "local"


def test_conda_packages_and_a_conda_file_make_a_specification(folder: Path) -> None:
    (folder / "conda.yml").write_text("channels: [conda-forge]\ndependencies: [numpy=1.22, {pip: [six]}]\n")

    spec = an_estimator(folder, conda_dependencies_file="conda.yml", conda_packages=["numpy=1.23"], pip_packages=["rich"])._to_spec()

    content = yaml.safe_load(spec.environment.conda_specification)
    assert content["dependencies"] == ["python=3.11", "numpy=1.23", "pip", {"pip": ["six", "rich"]}]
    assert content["channels"] == ["conda-forge"]
    assert list(spec.environment.pip_packages) == []


def test_an_environment_definition_takes_the_place_of_all_other_options(folder: Path) -> None:
    environment = Environment("mine")
    environment.python.conda_dependencies = CondaDependencies.create(pip_packages=["six"])
    environment.environment_variables["A"] = "1"

    spec = an_estimator(folder, environment_definition=environment)._to_spec()

    assert (spec.environment.name, list(spec.environment.pip_packages)) == ("mine", ["six"])
    assert dict(spec.environment.environment_variables) == {"A": "1"}
    combinations: list[tuple[str, Any]] = [
        ("pip_packages", ["six"]), ("conda_packages", ["six"]), ("use_gpu", True), ("user_managed", True), ("environment_variables", {"A": "1"}),
    ]  # fmt: skip
    for option, value in combinations:
        with pytest.raises(TrainingException, match=option) as caught:
            an_estimator(folder, environment_definition=environment, **{option: value})
        assert caught.value.target == option


def test_a_framework_version_beside_an_environment_definition_is_told_to_have_no_effect(folder: Path) -> None:
    with pytest.warns(UserWarning, match="framework_version has no effect"):
        estimator = TensorFlow(folder, entry_script="train.py", framework_version="2.0", environment_definition=Environment("mine"))

    spec = estimator._to_spec()
    assert spec.environment.framework == "none"
    assert details(RunView(run=Run(spec=spec)), {})["runDefinition"]["framework"] == "TensorFlow"


def test_an_environment_of_an_estimators_options_has_no_name(folder: Path) -> None:
    assert an_estimator(folder, pip_packages=["six"])._to_spec().environment.name == ""


def test_a_user_managed_environment_on_this_machine_is_the_python_that_submits(folder: Path) -> None:
    here = an_estimator(folder, user_managed=True, compute_target="local")._to_spec()
    there = an_estimator(folder, user_managed=True)._to_spec()

    assert here.environment.interpreter_path == sys.executable
    assert there.environment.interpreter_path == "python"


def test_an_earlier_runs_outputs_are_the_scripts_resume_from(folder: Path) -> None:
    class Outputs:
        def _to_input(self, name: str) -> Any:
            return Dataset.File.from_files("http://host/a").as_named_input(name).as_mount()

    spec = an_estimator(folder, script_params={"--rate": 1}, resume_from=Outputs())._to_spec()

    words = [argument.text or f"<{argument.input}>" for argument in spec.arguments]
    assert words == ["--rate", "1", "--resume-from", "<resume_from>"]
    with pytest.raises(UserErrorException, match="resume_from"):
        an_estimator(folder, resume_from="outputs")._to_spec()


@pytest.mark.parametrize("seconds", [0, -1, 1e12])
def test_a_time_limit_that_is_none_is_refused(folder: Path, seconds: float) -> None:
    with pytest.raises(TrainingException, match="max_run_duration_seconds"):
        an_estimator(folder, max_run_duration_seconds=seconds)._to_spec()


def test_an_unknown_option_is_a_type_error(folder: Path) -> None:
    with pytest.raises(TypeError, match="colour"):
        an_estimator(folder, colour="red")


def test_a_default_framework_version_warns(folder: Path) -> None:
    with pytest.warns(UserWarning, match="2.15.1") as told:
        TensorFlow(str(folder), entry_script="train.py", compute_target="pool")

    assert told[0].filename == __file__


@pytest.mark.parametrize("version", ["2.22", "3.0", "0.9", "1.16", "2", "latest", "2.15; rm", "2.15.1\n"])
def test_a_framework_version_that_does_not_exist_is_refused(folder: Path, version: str) -> None:
    with pytest.raises(TrainingException, match="framework_version"):
        TensorFlow(str(folder), entry_script="train.py", compute_target="pool", framework_version=version)


@pytest.mark.parametrize("version", ["1.13", "1.15.2", "2.0", "2.15", "2.15.1", "2.21"])
def test_documented_framework_versions_are_taken(folder: Path, version: str) -> None:
    spec = TensorFlow(str(folder), entry_script="train.py", compute_target="pool", framework_version=version)._to_spec()

    assert (spec.environment.framework, spec.environment.framework_version) == ("tensorflow", version)


def test_a_requirements_file_is_read_and_pips_options_are_refused(folder: Path) -> None:
    (folder / "good.txt").write_text("# tools\nrich>=13  # colour\n\npathspec\n")
    (folder / "bad.txt").write_text("--index-url http://elsewhere\nrich\n")

    assert an_estimator(folder, pip_requirements_file="good.txt").pip_packages == ["rich>=13", "pathspec"]
    with pytest.raises(TrainingException, match="options"):
        an_estimator(folder, pip_requirements_file="bad.txt")


def test_supported_versions_are_listed_and_each_is_taken(folder: Path) -> None:
    versions = TensorFlow.get_supported_versions()

    assert {"1.10", "1.12", "1.13", "2.0", "2.1", "2.2", "2.15", "2.21"} <= set(versions)
    for version in versions:
        TensorFlow(str(folder), entry_script="train.py", framework_version=version)
