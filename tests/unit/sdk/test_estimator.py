from pathlib import Path
from typing import Any

import pytest

from trainyard import Dataset, Estimator, TensorFlow, TrainingException, UserErrorException
from trainyard._estimator import flatten


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print('hello')\n")
    return tmp_path


def an_estimator(folder: Path, **options: Any) -> Estimator:
    return Estimator(str(folder), **{"entry_script": "train.py", "compute_target": "pool", **options})


def test_script_params_become_argv_in_order_and_an_empty_value_makes_a_bare_flag() -> None:
    digits = Dataset.File.from_files("http://host:8/a.gz").as_named_input("digits").as_mount()

    arguments, used = flatten({"--data": digits, "--rate": 0.01, "--verbose": "", "--size": 50, "--zero": 0})

    assert arguments == [
        (False, "--data"), (True, "digits"), (False, "--rate"), (False, "0.01"), (False, "--verbose"), (False, "--size"), (False, "50"),
        (False, "--zero"), (False, "0"),
    ]  # fmt: skip
    assert used == [digits]


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
    [("conda_packages", ["cudnn"]), ("distributed_training", object()), ("node_count", 2), ("worker_count", 2), ("resume_from", "x")],
)
def test_what_is_not_supported_says_what_to_do_instead(folder: Path, option: str, value: Any) -> None:
    with pytest.raises(TrainingException, match="not supported yet") as caught:
        an_estimator(folder, **{option: value})

    assert caught.value.target == option
    assert caught.value.hint


def test_an_unknown_option_is_a_type_error(folder: Path) -> None:
    with pytest.raises(TypeError, match="colour"):
        an_estimator(folder, colour="red")


def test_a_default_framework_version_warns(folder: Path) -> None:
    with pytest.warns(UserWarning, match="2.15.1"):
        TensorFlow(str(folder), entry_script="train.py", compute_target="pool")


@pytest.mark.parametrize("version", ["2.22", "3.0", "0.9", "1.13", "2", "latest", "2.15; rm", "2.15.1\n"])
def test_a_framework_version_that_does_not_exist_is_refused(folder: Path, version: str) -> None:
    with pytest.raises(TrainingException, match="framework_version"):
        TensorFlow(str(folder), entry_script="train.py", compute_target="pool", framework_version=version)


@pytest.mark.parametrize("version", ["2.0", "2.15", "2.15.1", "2.21"])
def test_documented_framework_versions_are_taken(folder: Path, version: str) -> None:
    spec = TensorFlow(str(folder), entry_script="train.py", compute_target="pool", framework_version=version)._to_spec()

    assert (spec.environment.framework, spec.environment.framework_version) == ("tensorflow", version)


def test_a_requirements_file_is_read_and_pips_options_are_refused(folder: Path) -> None:
    (folder / "good.txt").write_text("# tools\nrich>=13  # colour\n\npathspec\n")
    (folder / "bad.txt").write_text("--index-url http://elsewhere\nrich\n")

    assert an_estimator(folder, pip_requirements_file="good.txt").pip_packages == ["rich>=13", "pathspec"]
    with pytest.raises(TrainingException, match="options"):
        an_estimator(folder, pip_requirements_file="bad.txt")
