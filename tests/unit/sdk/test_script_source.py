"""Files that would be imported in the place of the packages that a run needs."""

from __future__ import annotations

import warnings

import pytest

from trainyard._errors import TrainingException
from trainyard._script_source import refuse_shadows


@pytest.mark.parametrize("script", ["horovod.py", "trainyard.py", "azureml.py", "tensorflow.py", "src/tensorflow.py", "keras.py"])
def test_a_script_that_is_called_as_a_package_which_its_run_needs_is_refused_with_a_better_name(script: str) -> None:
    with pytest.raises(TrainingException, match="has the name of the package") as caught:
        refuse_shadows(script, [script, "other.py"], "TensorFlow")

    assert caught.value.target == script
    assert "rename it, to train_" in caught.value.hint


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ("train.py", "horovod.py"),
        ("train.py", "tensorflow/__init__.py"),
        ("src/train.py", "src/azureml/__init__.py"),
        ("", "trainyard.py"),
    ],
)
def test_a_file_beside_the_script_that_takes_a_packages_place_is_warned_of(script: str, path: str) -> None:
    with pytest.warns(UserWarning, match=f"^{path} has the name of the package"):
        refuse_shadows(script, [path], "TensorFlow")


@pytest.mark.parametrize(
    ("script", "path", "framework"),
    [
        ("train.py", "train.py", "TensorFlow"),
        ("train.py", "src/horovod.py", "TensorFlow"),
        ("src/train.py", "horovod.py", "TensorFlow"),
        ("train.py", "tensorflow.md", "TensorFlow"),
        ("train.py", "tensorflow/readme.py", "TensorFlow"),
        ("tensorflow.py", "tensorflow.py", "Python"),
        ("train.py", "__init__.py", "TensorFlow"),
    ],
)
def test_a_file_that_takes_no_packages_place_is_nobodys_concern(script: str, path: str, framework: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refuse_shadows(script, [path], framework)
