from pathlib import Path

import pytest
import yaml

from trainyard import CondaDependencies, UserErrorException


def test_packages_channels_and_python_are_written_and_read_back_the_same(tmp_path: Path) -> None:
    made = CondaDependencies.create(conda_packages=["numpy=1.23", "python=3.6.2"], pip_packages=["six", "azureml-defaults"])
    made.add_channel("conda-forge")

    inside = made.save_to_file(tmp_path, "env/conda.yml")

    assert inside == "env/conda.yml"
    read = CondaDependencies(tmp_path / inside)
    assert read.as_dict() == made.as_dict()
    assert list(read.conda_packages) == ["python=3.6.2", "numpy=1.23"]
    assert list(read.pip_packages) == ["six", "azureml-defaults"]
    assert list(read.conda_channels) == ["conda-forge"]
    assert yaml.safe_load(made.serialize_to_string())["name"] == "project_environment"


def test_a_later_package_takes_the_place_of_the_earlier_and_can_be_removed() -> None:
    made = CondaDependencies()
    for package in ("numpy", "pandas", "NumPy=1.23"):
        made.add_conda_package(package)
    for package in ("six==1.0", "six[extra]>=1", "rich"):
        made.add_pip_package(package)

    made.remove_conda_package("pandas")
    made.remove_pip_package("rich")
    made.remove_pip_package("never-there")

    assert list(made.conda_packages) == ["python=3.11", "NumPy=1.23"]
    assert list(made.pip_packages) == ["six[extra]>=1"]


def test_tensorflow_is_added_and_removed_by_core_type() -> None:
    made = CondaDependencies()

    made.add_tensorflow_conda_package("gpu", "1.13.1")
    made.add_tensorflow_pip_package(version="2.2")

    assert list(made.conda_packages)[1:] == ["tensorflow-gpu=1.13.1"]
    assert list(made.pip_packages) == ["tensorflow==2.2"]
    made.remove_tensorflow_conda_package()
    made.remove_tensorflow_pip_package()
    assert (list(made.conda_packages)[1:], list(made.pip_packages)) == ([], [])
    with pytest.raises(UserErrorException, match="core_type"):
        made.add_tensorflow_pip_package("tpu")


@pytest.mark.parametrize("path", ["/etc/conda.yml", "../conda.yml"])
def test_a_file_is_never_written_outside_of_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserErrorException, match="inside"):
        CondaDependencies().save_to_file(tmp_path, path)


@pytest.mark.parametrize("text", ["- a\n- list", "dependencies: [{conda: [x]}]", "a: [", "dependencies: [1]"])
def test_what_is_no_specification_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yml").write_text(text)

    with pytest.raises(UserErrorException, match="bad.yml"):
        CondaDependencies(tmp_path / "bad.yml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserErrorException, match="no.yml cannot be read"):
        CondaDependencies(tmp_path / "no.yml")
