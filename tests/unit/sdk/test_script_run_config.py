from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainyard import (
    ComputeTargetException,
    Dataset,
    Environment,
    RunConfiguration,
    ScriptRunConfig,
    TrainingException,
    UserErrorException,
)
from trainyard import _local as local

DIGITS = Dataset.File.from_files("http://host/a.gz").as_named_input("digits").as_mount()


class Reference:
    """What a reference to data looks like from here."""

    data_reference_name = "earlier"

    def _to_input(self, name: str) -> Any:
        return Dataset.File.from_files("http://host/earlier").as_named_input(name).as_mount()

    def __str__(self) -> str:
        return "$AZUREML_DATAREFERENCE_earlier"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print('hello')\n")
    return tmp_path


def words(spec: Any) -> list[str]:
    return [argument.text if argument.WhichOneof("value") == "text" else f"<{argument.input}>" for argument in spec.arguments]


def test_arguments_keep_their_order_with_numbers_and_datasets_in_place(folder: Path) -> None:
    spec = ScriptRunConfig(folder, "train.py", ["--data", DIGITS, "--rate", 0.01, "--size", 50, "-v"])._to_spec()

    assert words(spec) == ["--data", "<digits>", "--rate", "0.01", "--size", "50", "-v"]
    assert [item.name for item in spec.inputs] == ["digits"]
    assert (spec.entry_script, spec.compute_target, spec.max_duration.seconds) == ("train.py", "local", 2_592_000)


def test_a_command_is_words_without_a_shell_and_inputs_stand_by_name(folder: Path) -> None:
    as_list = ScriptRunConfig(folder, command=["python", "train.py", "--data", DIGITS, "--rate", 0.1, "$HOME"])._to_spec()
    as_text = ScriptRunConfig(folder, command="python train.py --name 'two words' $HOME")._to_spec()

    assert list(as_list.command) == ["python", "train.py", "--data", "${digits}", "--rate", "0.1", "$HOME"]
    assert list(as_text.command) == ["python", "train.py", "--name", "two words", "$HOME"]
    assert (as_list.entry_script, len(as_list.arguments)) == ("", 0)


@pytest.mark.parametrize("command", ["a && b", "a | b", "a; b", "a > out", "(a)", "a 'unclosed", ""])
def test_what_only_a_shell_understands_is_refused(folder: Path, command: str) -> None:
    with pytest.raises(TrainingException) as caught:
        ScriptRunConfig(folder, command=command)

    assert caught.value.target == "command"


def test_command_excludes_script_and_arguments(folder: Path) -> None:
    with pytest.raises(TrainingException, match="excludes"):
        ScriptRunConfig(folder, "train.py", command=["python"])
    with pytest.raises(TrainingException, match="excludes"):
        ScriptRunConfig(folder, arguments=["a"], command=["python"])


def test_what_is_set_on_run_config_afterwards_counts(folder: Path) -> None:
    config = ScriptRunConfig(folder, "train.py", ["--from", str(Reference())])

    config.run_config.environment = Environment("mine")
    config.run_config.environment.environment_variables["A"] = "1"
    config.run_config.target = "gpucluster"
    config.run_config.data_references = {"earlier": Reference()}

    spec = config._to_spec()
    assert (spec.environment.name, spec.compute_target) == ("mine", "gpucluster")
    assert words(spec) == ["--from", "<earlier>"]
    assert [item.name for item in spec.inputs] == ["earlier"]


def test_a_reference_in_the_arguments_is_an_input_of_its_own_name(folder: Path) -> None:
    assert words(ScriptRunConfig(folder, "train.py", ["--from", Reference()])._to_spec()) == ["--from", "<earlier>"]


def test_one_reference_given_in_both_places_is_one_input(folder: Path) -> None:
    reference = Reference()
    config = ScriptRunConfig(folder, "train.py", ["--from", reference])

    config.run_config.data_references = {"earlier": reference}

    assert [item.name for item in config._to_spec().inputs] == ["earlier"]


def test_two_objects_that_mean_the_same_data_are_one_input(folder: Path) -> None:
    config = ScriptRunConfig(folder, "train.py", ["--from", Reference()])

    config.run_config.data_references = {"earlier": Reference()}

    assert [item.name for item in config._to_spec().inputs] == ["earlier"]


def test_a_run_configuration_brings_script_target_and_environment(folder: Path) -> None:
    configuration = RunConfiguration("train.py", ["--a", 1])
    configuration.target = "pool"
    configuration.environment = Environment("mine")
    configuration.max_run_duration_seconds = 60

    spec = ScriptRunConfig(folder, run_config=configuration)._to_spec()

    assert (spec.entry_script, words(spec), spec.compute_target, spec.environment.name) == ("train.py", ["--a", "1"], "pool", "mine")
    assert spec.max_duration.seconds == 60
    with pytest.raises(TrainingException, match="compute_target"):
        ScriptRunConfig(folder, run_config=configuration, compute_target="other")


def test_a_resume_is_an_input_and_an_argument(folder: Path) -> None:
    spec = ScriptRunConfig(folder, "train.py", ["--a"], resume_from=Reference())._to_spec()

    assert words(spec) == ["--a", "--resume-from", "<resume_from>"]


@pytest.mark.parametrize("arguments", [["--a", None], ["--a", ["b"]], "--a b", [Dataset.File.from_files("http://host/a")]])
def test_what_is_no_argument_is_refused(folder: Path, arguments: Any) -> None:
    with pytest.raises(UserErrorException):
        ScriptRunConfig(folder, "train.py", arguments)


def test_a_script_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    with pytest.raises(UserErrorException, match=r"'trian\.py' does not exist.*train\.py"):
        ScriptRunConfig(folder, "trian.py")
    with pytest.raises(TrainingException, match="script is not given"):
        ScriptRunConfig(folder)


def test_the_local_pool_is_made_on_first_use_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: dict[str, Any] = {}

    def find(workspace: Any, name: str) -> Any:
        if name not in pools:
            raise ComputeTargetException("no such pool")
        return pools[name]

    find.create = lambda workspace, name, wish: pools.setdefault(name, wish)  # type: ignore[attr-defined]
    monkeypatch.setattr("trainyard._compute.ComputeTarget", find)
    workspace: Any = SimpleNamespace()

    local.ensure(workspace, "gpucluster")
    assert pools == {}
    local.ensure(workspace, "local")
    local.ensure(workspace, "local")

    assert list(pools) == ["local"]
    assert (pools["local"].vm_size, pools["local"].min_nodes, pools["local"].max_nodes) == ("LOCAL", 0, 1)


def test_the_name_of_an_environment_is_no_environment(folder: Path) -> None:
    with pytest.raises(TrainingException, match="environment is an Environment, not 'mine'") as caught:
        ScriptRunConfig(folder, "train.py", environment="mine")._to_spec()  # type: ignore[arg-type]

    assert caught.value.target == "environment"
