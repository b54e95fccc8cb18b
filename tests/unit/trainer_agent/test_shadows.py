"""A script called horovod.py is found by `import horovod`: told before anything starts."""

from pathlib import Path

import pytest

from services.trainer_agent.horovod.shadows import what_shadows


@pytest.mark.parametrize(
    ("files", "entry_script", "found"),
    [
        (["horovod.py"], "horovod.py", "horovod.py"),
        (["train.py", "horovod/__init__.py"], "train.py", "horovod/__init__.py"),
        (["train.py", "tensorflow.py"], "train.py", "tensorflow.py"),
        (["src/train.py", "src/horovod.py"], "src/train.py", "src/horovod.py"),
        (["src/train.py", "horovod.py"], "src/train.py", ""),
        (["train.py", "horovod/notes.txt", "my_horovod.py"], "train.py", ""),
        (["train.py"], "", ""),
    ],
)
def test_a_file_that_stands_before_the_package_is_found(tmp_path: Path, files: list[str], entry_script: str, found: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert what_shadows(tmp_path, entry_script) == found
